"""When each stage of a build ran, and what the time went into."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from builder.journal import Entry, Step
from builder.views.report.picture import CROSS, LINE, RING, Picture, edge_anchor, round_steps
from builder.views.report.words import duration

_NARROWEST = 0.7
_TARGET = re.compile(r"^\[[^\]]*\] ")
"""What BuildKit puts before the steps of its own, where several targets are built."""


@dataclass(frozen=True)
class Row:
    """A stage that had something to do, or a step of the program's own."""

    name: str
    longest: str
    """What it did for the most time."""
    picture: Picture
    seconds: str
    note: str
    """`failed`, or how many steps of it came from the cache."""
    failed: bool


@dataclass(frozen=True)
class Timeline:
    """A chart of rows over one axis."""

    rows: tuple[Row, ...]
    axis: Picture
    cached_stages: tuple[str, ...]
    """Those that came from the cache as a whole."""
    cached_steps: int
    """Of all stages."""
    ran: int
    """Steps that did not."""
    steps: tuple[Step, ...]
    """All of them, by their beginning."""


def steps_of(build: Entry) -> tuple[Step, ...]:
    """Those that were for this target, as far as that is known."""
    own = (each for each in build.steps if not each.targets or build.target in each.targets)
    return tuple(sorted(own, key=lambda each: (each.began, each.stage, each.title)))


def timeline(build: Entry) -> Timeline:
    steps = steps_of(build)
    end = max([build.seconds, *(each.began + each.seconds for each in steps)], default=0) or 1.0
    stages: dict[str, list[Step]] = {}
    for number, each in enumerate(steps):
        stages.setdefault(each.stage or f"\0{number}", []).append(each)
    busy = [group for group in stages.values() if not all(each.cached for each in group)]
    busy.sort(key=lambda group: min(each.began for each in group if not each.cached))
    ticks = tuple(round_steps(end))
    axis = Picture(LINE, f"from 0 to {duration(end)}")
    for tick in ticks:
        axis.text(tick / end * 100, 14, f"{tick:g} s", "muted", edge_anchor(tick / end * 100))
    return Timeline(
        rows=tuple(_row(group, end, ticks) for group in busy),
        axis=axis,
        cached_stages=tuple(group[0].stage or _command(group[0]) for group in stages.values() if group not in busy),
        cached_steps=sum(each.cached for each in steps),
        ran=sum(not each.cached for each in steps),
        steps=steps,
    )


def _command(step: Step) -> str:
    """A step's title without its stage and number."""
    head, gap, command = step.title.partition("  ")
    return command if gap and step.stage and head.startswith(step.stage) else _TARGET.sub("", step.title)


def _row(group: Sequence[Step], end: float, ticks: Iterable[float]) -> Row:
    ran = [each for each in group if not each.cached]
    longest = max(ran, key=lambda each: each.seconds)
    name = longest.stage or _command(longest)
    began, until = min(each.began for each in ran), max(each.began + each.seconds for each in ran)
    cached = len(group) - len(ran)
    failed = any(each.error for each in group)
    note = "failed" if failed else f"{cached} cached" if cached else ""
    told = f"{name}: {duration(began)} to {duration(until)}" + (f", {note}" if note else "")
    picture = Picture.in_row(told)
    for tick in ticks:
        picture.rung(tick / end * 100)
    for each in sorted(group, key=lambda each: each.cached):  # rings lie over bars
        left = min(each.began / end * 100, 100 - _NARROWEST)
        tip = f"{each.title}: {'from the cache' if each.cached else duration(each.seconds)}"
        if each.cached:
            picture.spot(max(left, 1.5), RING, "cached", tip)
            continue
        width = max(each.seconds / end * 100, _NARROWEST)
        picture.block(left, min(width, 100 - left), "failed" if each.error else "ran", tip)
        if each.error:
            picture.spot(min(left + width + 1.5, 98), CROSS, "cross", each.error)
    return Row(
        name=name,
        longest=_command(longest) if longest.stage else "",
        picture=picture,
        seconds=duration(busy_seconds(ran)),
        note=note,
        failed=failed,
    )


def busy_seconds(steps: Iterable[Step]) -> float:
    """The time in which at least one of them ran."""
    total, until = 0.0, 0.0
    for began, end in sorted((each.began, each.began + each.seconds) for each in steps):
        total += max(0.0, end - max(began, until))
        until = max(until, end)
    return total


BUILDER = "this program"
BETWEEN = "outside of all steps"
_EXPORTED = "image"
_OTHERS = "other stages"
_PHASES = {
    "base": ("pip", "embedded", "triton", "wheel", "abi", "debian"),
    "compiler, fetched": ("toolchain",),
    "plugins, compiled": ("plugins", "compile"),
    "pipelines, serialized": ("models",),
    "plugins, loaded and listed": ("facts", "inventory", "proof", "artifacts"),
    _EXPORTED: ("runtime", "lock", "package"),
}


def phase(stage: str, title: str = "") -> str:
    """What a stage is for; those of a project's own Dockerfile are all one, and so are steps of this program's own."""
    if not stage:
        return _EXPORTED if _TARGET.sub("", title).startswith("exporting ") else BUILDER
    for name, stages in _PHASES.items():
        if any(stage == each or stage.startswith(f"{each}-") for each in stages):
            return name
    return _OTHERS


@dataclass(frozen=True)
class Share:
    """A row of a bar chart."""

    name: str
    value: str
    picture: Picture


def phases(build: Entry) -> dict[str, float]:
    """Seconds by phase, the longest first, which sum up to the build's: steps at the same time share it equally."""
    steps = [each for each in steps_of(build) if not each.cached and each.seconds > 0]
    moments = sorted(
        {0.0, build.seconds, *(each.began for each in steps), *(each.began + each.seconds for each in steps)}
    )
    spent: dict[str, float] = {}
    for begin, end in itertools.pairwise(moments):
        names = [
            phase(each.stage, each.title) for each in steps if each.began <= begin and each.began + each.seconds >= end
        ]
        for name in names or [BETWEEN]:
            spent[name] = spent.get(name, 0.0) + (end - begin) / max(1, len(names))
    return dict(sorted(spent.items(), key=lambda item: -item[1]))


def bars(amounts: dict[str, float], texts: dict[str, str]) -> tuple[Share, ...]:
    """A row each, as long as its part of the longest one."""
    longest = max(amounts.values(), default=0.0) or 1.0
    rows = []
    for name, amount in amounts.items():
        picture = Picture.in_row(f"{name}: {texts[name]}")
        picture.block(0, max(amount / longest * 100, _NARROWEST), "ran")
        rows.append(Share(name, texts[name], picture))
    return tuple(rows)
