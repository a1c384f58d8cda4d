"""`history` on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console, RenderableType
from rich.text import Text

from builder.output import size
from builder.steps.history import Build, Ending
from builder.views import results

_STYLES = {Ending.FAILED: "red", Ending.BUILT: "", Ending.VERIFIED: "green", Ending.PUSHED: "bold green"}


def show(builds: Sequence[Build], console: Console) -> None:
    """One line each."""
    with_engine = any(each.in_engine is not None for each in builds)
    columns = ["when", "project", "target", "digest", "seconds", "size", "ended", "engine", "id"]
    if not with_engine:
        columns.remove("engine")
    table = results.table(*columns, right=("seconds", "size"))
    for each in builds:
        cells: dict[str, RenderableType] = {
            "when": local(each.entry.when),
            "project": f"{each.entry.repository}  {_short(each.entry.project)}",
            "target": each.entry.target,
            "digest": each.entry.digest.removeprefix("sha256:")[:12] or "-",
            "seconds": f"{each.entry.seconds:.1f}",
            "size": size(each.entry.bytes) if each.entry.digest else "-",
            "ended": Text(f"{each.ending} ({each.code})" if each.code else each.ending, _STYLES[each.ending]),
            "engine": "yes" if each.in_engine else "no",
            "id": Text(each.entry.id, "dim"),
        }
        table.add_row(*(cells[name] for name in columns))
    console.print(table)


def local(when: str) -> str:
    """The moment by the clock of this machine, such as 2026-11-22 20:45."""
    try:
        return f"{datetime.fromisoformat(when).astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return when


def _short(folder: str) -> str:
    path = Path(folder)
    return f"~/{path.relative_to(Path.home())}" if path.is_relative_to(Path.home()) else folder
