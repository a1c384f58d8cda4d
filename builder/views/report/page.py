"""The page itself: everything that it shows is in it; it fetches nothing, and runs nothing that is not its own."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from builder import __version__
from builder.journal import Entry
from builder.views.report import changes, latency, layers, materials, timeline, words
from builder.views.report.told import Told

_HERE = Path(__file__).parent
_SEVERITIES = {"error": "✗", "warning": "!", "note": "i"}
_RECENT_AT_LEAST = 3


def page(told: Told) -> str:
    """HTML, in one file without any other.

    Texts may be anybody's: file names, log lines, what a compiler said. Jinja escapes them all, and the content
    security policy lets only this program's own style and script be used, by their digests.
    """
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "size": words.size,
        "duration": words.duration,
        "milliseconds": words.milliseconds,
        "number": words.number,
        "short": words.short,
        "day": words.day,
    }
    style = (_HERE / "style.css").read_text(encoding="utf-8")
    script = (_HERE / "filter.js").read_text(encoding="utf-8")
    text = environment.get_template("page.html").render(
        style=Markup(style),
        script=Markup(script),
        policy="; ".join(
            (
                "default-src 'none'",
                f"style-src {_hash(style)}",
                f"script-src {_hash(script)}",
                "img-src data:",
                "base-uri 'none'",
                "form-action 'none'",
            )
        ),
        version=__version__,
        severities=_SEVERITIES,
        **_facts(told),
    )
    # A lone surrogate, as of a file name that is no UTF-8, cannot be written.
    return text.encode("utf-8", "replace").decode("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _facts(told: Told) -> dict[str, Any]:
    """What the templates show."""
    build, before = told.build, told.before
    rows = layers.rows(build, before)
    spent = timeline.phases(build)
    listed = materials.materials(told.sbom) if told.sbom else ()
    counts = materials.by_kind(listed)
    recent = told.recent[-20:]
    verification = told.verification
    return {
        "told": told,
        "build": build,
        "before": before,
        "verification": verification,
        "verdict": _verdict(told),
        "timeline": timeline.timeline(build),
        "phases": timeline.bars(spent, _shares(spent)),
        "layers": rows,
        "layers_picture": layers.picture(rows) if rows else None,
        "in_all": changes.in_all(build),
        "ours": sum(each.bytes for each in rows if each.of == "project"),
        "changes": changes.changes(build, before) if before else None,
        "recent": changes.picture(recent) if len(recent) >= _RECENT_AT_LEAST else None,
        "recent_builds": recent,
        "models": [
            (each, latency.picture(each.name, each.latency_ms) if each.latency_ms.histogram else None)
            for each in (verification.models if verification else ())
        ],
        "lower_edge": latency.lower_edge,
        "materials": listed,
        "kinds": timeline.bars(counts, {name: words.number(count) for name, count in counts.items()}),
        "findings": (findings := _findings(build)),
        "severity_counts": ", ".join(
            words.counted(count, each)
            for each in _SEVERITIES
            if (count := sum(str(found["severity"]) == each for found in findings))
        ),
        "error": {"code": "", "what": "", "where": "", "remedy": "", "detail": (), **build.error}
        if build.error
        else None,
    }


def _verdict(told: Told) -> tuple[str, str, str]:
    """A class of the style sheet, a sign, and words."""
    if not told.build.digest:
        return "bad", "✗", "failed"
    if told.verification is None:
        return "open", "○", "built, not verified"
    return ("good", "✓", "built and verified") if told.verification.passed else ("bad", "✗", "verification not passed")


def _shares(spent: Mapping[str, float]) -> dict[str, str]:
    whole = sum(spent.values()) or 1.0
    return {name: f"{words.duration(each)}, {each / whole:.0%}" for name, each in spent.items()}


def _findings(build: Entry) -> list[dict[str, Any]]:
    """With every field that a template asks for, whatever the entry has."""
    empty = {"code": "", "severity": "note", "what": "", "remedy": "", "detail": (), "model": "", "target": ""}
    found = []
    for each in build.findings:
        place = each.get("place")
        parts = [place.get("file", ""), place.get("line"), place.get("column")] if isinstance(place, Mapping) else []
        found.append({**empty, **each, "place": ":".join(str(part) for part in parts if part)})
    return found
