"""What was measured, as a document, as a table, and as the words of a README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.daily.goals import ROWS, Verdict, verdicts
from bench.daily.sides import Phase
from bench.daily.spread import Spread, ratios
from bench.daily.warm import Measured

_FORMAT = 1
_PHASES = 12
"""Of a row, the longest ones."""
_SHORTEST = 0.05
_TITLE = 90


def document(
    measured: Measured, machine: Mapping[str, Any], *, when: str, seconds: float, loads: Sequence[float]
) -> dict[str, Any]:
    """All of it, with every round's values."""
    judged = verdicts(measured.rows)
    rows = [_row(row, rounds, judged, measured.phases.get(row, ())) for row, rounds in measured.rows.items()]
    return {
        "format": _FORMAT,
        "when": when,
        "seconds": round(seconds, 1),
        "machine": dict(machine),
        "load": list(loads),
        "met": all(each.met for each in judged),
        "rows": sorted(rows, key=lambda row: list(ROWS).index(row["row"])),
    }


def _row(row: str, rounds: Sequence[Mapping[str, float]], judged: Sequence[Verdict], phases: Sequence[Phase]) -> Any:
    values = {name: [each[name] for each in rounds] for name in rounds[0]}
    figures = {name: {**asdict(Spread.of(each)), "rounds": each} for name, each in values.items()}
    compared = {
        f"to {other}": {**asdict(Spread.of(ratio)), "rounds": [round(each, 4) for each in ratio]}
        for other in ("rival", "floor")
        if other in values and (ratio := ratios(values["ours"], values[other]))
    }
    return {
        "row": row,
        "work": ROWS[row],
        "rounds": len(rounds),
        "figures": figures,
        "ratios": compared,
        "goals": [
            {
                "goal": str(each.goal),
                "of": each.goal.of,
                "what": each.goal.what,
                "unit": "x" if each.goal.of else each.goal.unit,
                "at_most": each.goal.at_most,
                "reached": asdict(each.reached),
                "met": each.met,
            }
            for each in judged
            if each.goal.row == row
        ],
        "phases": [asdict(each) for each in phases],
    }


def show(told: Mapping[str, Any], console: Console) -> None:
    """The table, and where the time of each row's last round went."""
    table = Table(box=None, pad_edge=False, title=_heading(told), title_justify="left")
    table.add_column("work")
    for heading in ("ours", "by hand", "ratio", "floor"):
        table.add_column(heading, no_wrap=True, justify="right")
    for heading in ("to reach", "reached", ""):
        table.add_column(heading)
    for row in told["rows"]:
        figures = row["figures"]
        compared = row["ratios"].get("to rival")
        cells = [
            _seconds(figures.get("ours")),
            _seconds(figures.get("rival")),
            f"{compared['median']:.2f}" if compared else "",
            _seconds(figures.get("floor")),
        ]
        goals = row["goals"]
        table.add_row(
            row["work"],
            *cells,
            "\n".join(each["goal"] for each in goals),
            "\n".join(_reached(each) for each in goals),
            "\n".join("met" if each["met"] else "[bold red]MISSED[/]" for each in goals),
        )
    console.print(table)
    for row in told["rows"]:
        _show_parts(row, console)


def _show_parts(row: Mapping[str, Any], console: Console) -> None:
    parts = {name: each for name, each in row["figures"].items() if " " in name}
    longest = sorted(
        (each for each in row["phases"] if each["seconds"] >= _SHORTEST), key=lambda each: -each["seconds"]
    )
    said = [each for each in row["phases"] if not each["seconds"]]
    if not parts and not longest and not said:
        return
    console.print(f"\n[bold]{escape(row['work'])}[/]", soft_wrap=True)
    for name, each in parts.items():
        console.print(f"  {each['median']:8.2f} s  {escape(name)}", soft_wrap=True)
    for each in sorted(longest[:_PHASES], key=lambda each: (each["of"], each["began"])):
        line = f"  {each['seconds']:8.2f} s  {each['of']}: {each['title'][:_TITLE]} (from {each['began']:.2f} s on)"
        console.print(line, markup=False, soft_wrap=True)
    for each in said:
        console.print(
            f"  at {each['began']:5.2f} s  {each['of']}: {each['title'][:_TITLE]}", markup=False, soft_wrap=True
        )


def summary(told: Mapping[str, Any]) -> str:
    """A table in Markdown for a README, and what it was measured on."""
    lines = [
        "| work | here | by hand | to reach | reached |",
        "|---|---|---|---|---|",
    ]
    for row in told["rows"]:
        figures = row["figures"]
        goals = ", ".join(each["goal"] for each in row["goals"])
        reached = ", ".join(_reached(each) + ("" if each["met"] else " **(missed)**") for each in row["goals"])
        cells = [row["work"], _seconds(figures.get("ours")), _seconds(figures.get("rival")), goals, reached]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"{_heading(told)}.", ""])


def _heading(told: Mapping[str, Any]) -> str:
    machine = told["machine"]
    rounds = sorted({row["rounds"] for row in told["rows"]})
    counted = f"{rounds[0]} rounds" if len(rounds) == 1 else f"{rounds[0]} to {rounds[-1]} rounds"
    return (
        f"Medians of {counted} (lowest to highest) on {machine['cores']} cores of {machine['processor']}, "
        f"{machine['memory_gib']:.0f} GiB, {machine['system']}, Linux {machine['kernel']}, "
        f"Docker {machine['engine']}, buildx {machine['buildx']}; "
        f"load {told['load'][0]} before and {told['load'][-1]} after"
    )


def _seconds(figure: Mapping[str, float] | None) -> str:
    if figure is None:
        return ""
    digits = 1 if figure["median"] >= 10 else 2
    return f"{figure['median']:.{digits}f} s ({figure['lowest']:.{digits}f} to {figure['highest']:.{digits}f})"


def _reached(goal: Mapping[str, Any]) -> str:
    median = goal["reached"]["median"]
    if goal["unit"] == "B":
        return f"{median / 1e6:.3f} MB"
    if goal["unit"] == "":
        return "yes" if goal["met"] else "no"
    return f"{median:.2f}" + (" s" if goal["unit"] == "s" else "")
