"""What is measured, and what each of it has to reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.daily.spread import Spread, ratios

Rounds = Sequence[Mapping[str, float]]
"""Of one row: what was measured in each round, by name. `ours` is the whole, `ours build` a part of it."""

ROWS = {
    "help": "python -m builder --help",
    "check": "check, on the example",
    "build": "build, nothing changed",
    "operator": "one line of the operator changed → verified image",
    "config": "only config.pbtxt changed → verified image",
    "push": "that image pushed",
    "cold": "cold, downloads warm → image",
    "targets": "three targets, cold",
    "models": "50 models",
}
SIZES = (1, 10, 25, 50)
"""How many models the row `models` has."""


@dataclass(frozen=True)
class Goal:
    """That a figure is at most so much; with `of`, so many times that other one in the same round."""

    row: str
    what: str
    at_most: float
    of: str = ""
    """`ROW NAME`, such as `build rival`."""
    unit: str = "s"
    """`s`, `B`, or none: of what counts as often as it happened."""
    says: str = ""
    """In place of what is said of it by itself."""

    def __str__(self) -> str:
        if self.says:
            return self.says
        limit = f"{self.at_most / 1e6:g} MB" if self.unit == "B" else f"{self.at_most:g}"
        return f"≤ {limit} times {self.of}" if self.of else f"≤ {limit}" + (" s" if self.unit == "s" else "")


GOALS = (
    Goal("help", "ours", 0.25),
    Goal("check", "ours", 2.0),
    Goal("build", "ours", 1.0),
    Goal("build", "ours", 1.5, "build rival", says="≤ 1.5 times that by hand"),
    Goal("operator", "ours", 1.25, "operator floor", says="≤ 1.25 times compile + serialize + start + one inference"),
    Goal("config", "ours", 0.6, "operator ours", says="≤ 0.6 times the row above"),
    Goal("config", "compiled", 0, unit="", says="the compiler does not run"),
    Goal("push", "bytes", 1e6, unit="B"),
    Goal("push", "ours", 1.5),
    Goal("cold", "ours", 1.0, "cold rival", says="≤ by hand"),
    Goal("targets", "ours", 1.8, "targets one", says="≤ 1.8 times one target"),
    *(
        Goal(
            "models",
            f"{what} {more}",
            more / fewer,
            f"models {what} {fewer}",
            says=f"{what}: ≤ {more / fewer:g} times {fewer}",
        )
        for what in ("build", "check")
        for fewer, more in ((10, 50), (25, 50))
    ),
)


@dataclass(frozen=True)
class Verdict:
    """A goal, and what was reached."""

    goal: Goal
    reached: Spread

    @property
    def met(self) -> bool:
        # What must not happen must not happen in any round.
        reached = self.reached.median if self.goal.unit else self.reached.highest
        return reached <= self.goal.at_most


def series(measured: Mapping[str, Rounds], row: str, name: str) -> list[float]:
    """One figure of all rounds of its row."""
    return [each[name] for each in measured[row]]


def verdicts(measured: Mapping[str, Rounds]) -> list[Verdict]:
    """On each goal of the rows that were measured, where it and what it is held against were measured."""
    found = []
    for goal in GOALS:
        if not all(goal.what in each for each in measured.get(goal.row) or [{}]):
            continue
        values = series(measured, goal.row, goal.what)
        if goal.of:
            row, _, name = goal.of.partition(" ")
            if len(measured.get(row, ())) != len(values):
                continue
            values = ratios(values, series(measured, row, name))
        found.append(Verdict(goal, Spread.of(values)))
    return found
