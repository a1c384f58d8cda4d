"""What was measured, how much it varied, and the floor that it must meet."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Spread:
    """The median of all rounds, and its quartiles."""

    median: float
    lower: float
    upper: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        lower, median, upper = statistics.quantiles(values, n=4, method="inclusive")
        return cls(round(median, 4), round(lower, 4), round(upper, 4))

    def __str__(self) -> str:
        digits = 0 if self.median >= 1000 else 1 if self.median >= 100 else 2 if self.median >= 5 else 3
        return f"{self.median:.{digits}f} ({self.lower:.{digits}f} to {self.upper:.{digits}f})"


@dataclass(frozen=True)
class Figure:
    """A figure of the backend, and the same of a model to compare it with; `ratio` has that of every round."""

    name: str
    unit: str
    backend: Spread
    identity: Spread | None = None
    ratio: Spread | None = None
    floor: str = ""
    met: bool | None = None  # None: it has no floor


def show(figures: Iterable[Figure], title: str, console: Console) -> None:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("figure")
    for heading in ("unit", "backend", "identity", "ratio", "floor", ""):
        table.add_column(heading, no_wrap=True)
    for figure in figures:
        verdict = {None: "", True: "met", False: "MISSED"}[figure.met]
        compared = [str(each) if each else "" for each in (figure.backend, figure.identity, figure.ratio)]
        table.add_row(figure.name, figure.unit, *compared, figure.floor, verdict)
    console.print(table)
