"""The rows of a bill of materials."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from builder.views.report.words import short

_TYPES = {
    "operating-system": "operating system",
    "framework": "server and DALI",
    "machine-learning-model": "model",
    "container": "image",
}
_PURLS = {"pkg:deb/": "Debian package", "pkg:pypi/": "Python package"}
_REFERENCES = {"plugin:": "plugin library", "plugin-sources": "plugin sources"}


@dataclass(frozen=True)
class Material:
    name: str
    version: str
    kind: str


def materials(document: Mapping[str, Any]) -> tuple[Material, ...]:
    """The components of a CycloneDX document, by kind and name."""
    found = [
        Material(str(each.get("name", "")), _version(each), _kind(each))
        for each in document.get("components") or ()
        if isinstance(each, Mapping)
    ]
    return tuple(sorted(found, key=lambda each: (each.kind, each.name.lower(), each.version)))


def by_kind(found: tuple[Material, ...]) -> dict[str, float]:
    """How many of each, the most first."""
    counts: dict[str, float] = {}
    for each in found:
        counts[each.kind] = counts.get(each.kind, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _version(component: Mapping[str, Any]) -> str:
    version = str(component.get("version") or "")
    return f"sha256:{short(version)}\N{HORIZONTAL ELLIPSIS}" if version.startswith("sha256:") else version


def _kind(component: Mapping[str, Any]) -> str:
    for field, known in (("purl", _PURLS), ("bom-ref", _REFERENCES)):
        for begin, name in known.items():
            if str(component.get(field, "")).startswith(begin):
                return name
    kind = str(component.get("type", ""))
    return _TYPES.get(kind, kind or "unknown")
