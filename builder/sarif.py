"""Findings as SARIF 2.1.0, which GitHub, GitLab and editors show beside the lines.

The format: https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from builder import __version__
from builder.catalogue import story
from builder.findings import Finding

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def document(findings: Sequence[Finding], root: Path) -> dict[str, Any]:
    """One run of `check` on the project in `root`."""
    codes = list(dict.fromkeys(each.code for each in findings))
    driver = {"name": "triton-dali-builder", "version": __version__, "rules": [_rule(code) for code in codes]}
    run = {
        "tool": {"driver": driver},
        "originalUriBaseIds": {"PROJECT": {"uri": f"{root.resolve().as_uri()}/"}},
        "results": [_result(each, codes.index(each.code)) for each in findings],
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _rule(code: str) -> dict[str, Any]:
    told = story(code)
    return {
        "id": code,
        "shortDescription": {"text": told.title},
        "help": {"text": told.text, "markdown": told.text},
        "defaultConfiguration": {"level": str(told.severity)},
    }


def _result(found: Finding, rule: int) -> dict[str, Any]:
    message = "\n".join((f"{found.what}. {found.remedy[:1].upper()}{found.remedy[1:]}", *found.detail))
    return {
        "ruleId": found.code,
        "ruleIndex": rule,
        "level": str(found.severity),
        "message": {"text": message},
        "locations": [{"physicalLocation": _location(found)}],
        "properties": {name: value for name, value in (("model", found.model), ("target", found.target)) if value},
    }


def _location(found: Finding) -> dict[str, Any]:
    place = found.place
    location: dict[str, Any] = {"artifactLocation": {"uri": quote(place.file), "uriBaseId": "PROJECT"}}
    if place.line:
        location["region"] = {"startLine": place.line} | ({"startColumn": place.column} if place.column else {})
    return location
