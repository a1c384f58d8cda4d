"""What is in an image, by size; and the part of it that is this project's."""

from __future__ import annotations

from dataclasses import dataclass

from builder.journal import Entry
from builder.views.report.picture import TRIANGLE, Picture, shares
from builder.views.report.words import counted, short, size

_NARROWEST = 0.8


@dataclass(frozen=True)
class LayerRow:
    digest: str
    of: str
    """`base` or `project`."""
    bytes: int
    state: str
    """`new` or `kept`, beside the build before; empty without one."""


def rows(build: Entry, before: Entry | None) -> tuple[LayerRow, ...]:
    """From the lowest layer to the uppermost."""
    known = {each.digest for each in before.layers} if before else set()
    return tuple(
        LayerRow(
            digest=each.digest,
            of="base" if index < build.base_layers else "project",
            bytes=each.bytes,
            state="" if before is None else "kept" if each.digest in known else "new",
        )
        for index, each in enumerate(build.layers)
    )


def picture(found: tuple[LayerRow, ...]) -> Picture:
    """Two bars: the whole image, and below it the project's layers, as under a glass."""
    ours = [each for each in found if each.of == "project"]
    base = [each for each in found if each.of == "base"]
    told = f"base {size(sum(each.bytes for each in base))} in {counted(len(base), 'layer')}"
    mine = f"this project {size(sum(each.bytes for each in ours))} in {counted(len(ours), 'layer')}"
    made = Picture(182 if ours else 78, f"Layers: {told}; {mine}")
    made.text(0, 15, told)
    made.text(100, 35, mine, "strong", "end")
    wide = shares([float(each.bytes) for each in found], _NARROWEST)
    begin = _bar(made, found, wide, 50)
    if ours:
        made.line((begin, 80), (0, 128), "grid")
        made.line((100, 80), (100, 128), "grid")
        made.text(98.5, 116, "only these, larger", "muted", "end")
        _bar(made, tuple(ours), shares([float(each.bytes) for each in ours], 2.0), 140)
    return made


def _bar(made: Picture, found: tuple[LayerRow, ...], wide: list[float], top: float) -> float:
    """Draws it; gives where the project's part begins."""
    left, begin = 0.0, 100.0
    for each, width in zip(found, wide, strict=True):
        if each.of == "project":
            begin = min(begin, left)
        tip = f"{short(each.digest)}, {each.of}, {size(each.bytes)}" + (f", {each.state}" if each.state else "")
        made.bar(left, width, top, 28, f"layer {each.of}", tip)
        if each.state == "new":
            made.mark(left + width / 2, top - 2, TRIANGLE, "mark", tip)
        left += width
    return begin
