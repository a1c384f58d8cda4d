"""Builds as `build` records them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from builder.journal import Entry, new_id

NOW = datetime(2026, 11, 22, 20, 0, tzinfo=UTC)


def digest(character: str) -> str:
    return "sha256:" + character * 64


def entry(project: Path, days: float, character: str = "", **changes: Any) -> Entry:
    """A build of the target `embedded`, so many days ago; a failed one without a digest's character."""
    when = NOW - timedelta(days=days)
    made = Entry(
        id=new_id(when),
        when=when.isoformat(),
        project=str(project),
        repository="localhost:5000/mydali",
        target="embedded",
        digest=digest(character) if character else "",
        bytes=1_500_000_000,
        seconds=12.34,
        error=None if character else {"code": "plugin-does-not-compile", "what": "x"},
    )
    return made.model_copy(update=changes)
