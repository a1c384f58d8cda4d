"""The figures as a picture: one line a row, ours and the other's by time, and how far they may go."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

_WIDTH, _TOP, _LINE, _BOTTOM = 1000, 76, 46, 34
_LEFT, _RIGHT = 360, 770
"""Where the axis of seconds begins and ends."""
_TICKS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_OURS, _RIVAL, _FLOOR, _MET, _MISSED = "#1f6feb", "#bc4c00", "#8c959f", "#1a7f37", "#cf222e"
_INK, _FAINT = "#1f2328", "#d0d7de"
_STYLE = f"text{{font:13px system-ui,sans-serif;fill:{_INK}}}.small{{font-size:11px;fill:#59636e}}"


class _Axis:
    """Seconds to places, by powers of ten: a tenth of a second and two minutes are in the same picture."""

    def __init__(self, lowest: float, highest: float) -> None:
        self._from = math.log10(lowest)
        self._to = math.log10(highest)

    def __call__(self, seconds: float) -> float:
        share = (math.log10(max(seconds, 10**self._from)) - self._from) / (self._to - self._from)
        return round(_LEFT + min(share, 1.0) * (_RIGHT - _LEFT), 1)


def picture(told: Mapping[str, Any]) -> str:
    """SVG of a report's document."""
    rows = told["rows"]
    values = [value for row in rows for value in _extremes(row, told)]
    lowest, highest = min(values) / 1.3, max(values) * 1.3
    axis = _Axis(lowest, highest)
    height = _TOP + _LINE * len(rows) + _BOTTOM
    bottom = height - _BOTTOM
    machine = told["machine"]
    title = f"The daily loop, seconds on {machine['cores']} cores of {machine['processor']}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" '
        f'role="img" aria-label="{escape(title)}">',
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#ffffff" stroke="{_FAINT}"/>',
        f'<text x="16" y="28" font-weight="600">{escape(title)}</text>',
        *_legend(),
    ]
    for tick in _TICKS:
        if lowest <= tick <= highest:
            parts.append(f'<path d="M{axis(tick)} {_TOP - 8}V{bottom}" stroke="{_FAINT}" stroke-width="1"/>')
            parts.append(
                f'<text class="small" x="{axis(tick)}" y="{bottom + 18}" text-anchor="middle">{tick:g} s</text>'
            )
    for number, row in enumerate(rows):
        parts += _row(row, told, axis, _TOP + _LINE * number + _LINE / 2)
    return "\n".join([*parts, "</svg>", ""])


def limit(row: Mapping[str, Any], told: Mapping[str, Any]) -> float | None:
    """The seconds that a row's `ours` may take, by its strictest goal; None where no goal is of that."""
    found = []
    for goal in row["goals"]:
        if goal["what"] not in ("ours", "build 50"):
            continue
        other = _reference(goal["of"], told) if goal["of"] else 1.0
        if other is not None:
            found.append(goal["at_most"] * other)
    return min(found, default=None)


def _reference(name: str, told: Mapping[str, Any]) -> float | None:
    key, _, figure = name.partition(" ")
    return next((float(row["figures"][figure]["median"]) for row in told["rows"] if row["row"] == key), None)


def _extremes(row: Mapping[str, Any], told: Mapping[str, Any]) -> Iterator[float]:
    for name in ("ours", "rival", "floor"):
        if figure := row["figures"].get(name):
            yield from (figure["lowest"], figure["highest"])
    if (most := limit(row, told)) is not None:
        yield most


def _legend() -> Iterator[str]:
    x = _LEFT
    for colour, shape, text in (
        (_OURS, "dot", "python -m builder"),
        (_RIVAL, "diamond", "Dockerfile and docker by hand"),
        (_FLOOR, "bar", "floor"),
        (_MET, "limit", "to reach"),
    ):
        yield _mark(shape, x, 50, colour)
        yield f'<text class="small" x="{x + 10}" y="54">{text}</text>'
        x += 24 + 7 * len(text)


def _row(row: Mapping[str, Any], told: Mapping[str, Any], axis: _Axis, y: float) -> Iterator[str]:
    figures = row["figures"]
    met = all(goal["met"] for goal in row["goals"])
    yield f'<text x="16" y="{y + 4}">{escape(row["work"])}</text>'
    for name, shape, colour, shift in (
        ("floor", "bar", _FLOOR, 0),
        ("rival", "diamond", _RIVAL, 7),
        ("ours", "dot", _OURS, -7),
    ):
        if figure := figures.get(name):
            if name != "floor":
                between = f"M{axis(figure['lowest'])} {y + shift}H{axis(figure['highest'])}"
                yield f'<path d="{between}" stroke="{colour}" stroke-width="2" opacity="0.5"/>'
            yield _mark(shape, axis(figure["median"]), y + shift, colour)
    colour = _MET if met else _MISSED
    if (most := limit(row, told)) is not None:
        yield _mark("limit", axis(most), y, colour)
    yield f'<text x="{_RIGHT + 20}" y="{y - 3}">{escape(_said(figures))}</text>'
    if row["goals"]:
        verdict = "reached" if met else "missed"
        yield f'<text class="small" x="{_RIGHT + 20}" y="{y + 13}" style="fill:{colour}">{verdict}</text>'


def _said(figures: Mapping[str, Any]) -> str:
    ours = f"{figures['ours']['median']:.3g} s"
    return f"{ours}, by hand {figures['rival']['median']:.3g} s" if "rival" in figures else ours


def _mark(shape: str, x: float, y: float, colour: str) -> str:
    if shape == "dot":
        return f'<circle cx="{x}" cy="{y}" r="5" fill="{colour}"/>'
    if shape == "diamond":
        return f'<path d="M{x - 5} {y}l5 -5l5 5l-5 5z" fill="{colour}"/>'
    if shape == "bar":
        return f'<path d="M{x} {y - 7}V{y + 7}" stroke="{colour}" stroke-width="4"/>'
    return f'<path d="M{x} {y - 16}V{y + 16}" stroke="{colour}" stroke-width="2" stroke-dasharray="4 3"/>'
