"""The story behind each code: one Markdown file a code, which `explain` prints.

The first line is `# Title`, the second `severity: error`, `warning` or `note`; the rest tells what happens, why, and
what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path

_FOLDER = Path(__file__).parent / "stories"


class Severity(StrEnum):
    """How much a finding matters. The values are SARIF's levels."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True)
class Story:
    """What is known about a code."""

    code: str
    severity: Severity
    title: str
    text: str
    """Markdown, without the title."""


@cache
def story(code: str) -> Story:
    """The story of `code`.

    Raises:
        KeyError: there is no such code.
    """
    path = _FOLDER / f"{code}.md"
    if code not in codes():
        raise KeyError(code)
    title, severity, text = path.read_text(encoding="utf-8").split("\n", 2)
    return Story(code, Severity(severity.removeprefix("severity: ")), title.removeprefix("# "), text.strip())


@cache
def codes() -> tuple[str, ...]:
    """Every code that a finding or an error may have."""
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.md")))
