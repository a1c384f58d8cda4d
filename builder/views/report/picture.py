"""Pictures for pages: SVG that is as wide as its place, in which text keeps its size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, Self
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from markupsafe import Markup

Anchor = Literal["start", "middle", "end"]
LINE = 20
"""Pixels from one line of text to the next."""
ROW = 28
"""Pixels that a row of a chart is high, if its text does not need more."""
RING = "M-4,0 A4,4 0 1 0 4,0 A4,4 0 1 0 -4,0 Z"
CROSS = "M-4,-4 L4,4 M-4,4 L4,-4"
TRIANGLE = "M0,0 L-5,-8 L5,-8 Z"
_THICK = 16


class Picture:
    """Across, everything is in percent of the width; down, in pixels. Colours are the style sheet's, by class.

    What is hostile in a text is escaped by ElementTree, which knows no other way to write one.
    """

    def __init__(self, height: float, title: str) -> None:
        self._svg = Element("svg", {"role": "img", "width": "100%", "height": _number(height)})
        SubElement(self._svg, "title").text = title

    @classmethod
    def in_row(cls, title: str) -> Self:
        """One that is as high as the row of a chart that it is in, and at least `ROW`."""
        made = cls(ROW, title)
        made._svg.set("height", "100%")
        return made

    def rung(self, x: float) -> None:
        """A line of the grid, from the row above to the one below."""
        at = {"x1": _percent(x), "y1": "0", "x2": _percent(x), "y2": "100%"}
        SubElement(self._svg, "line", {**at, "class": "grid"})

    def block(self, left: float, width: float, kind: str, tip: str = "") -> None:
        """A bar in the middle of a row."""
        shape = {"x": _percent(left), "width": _percent(width), "y": "50%", "height": _number(_THICK)}
        lifted = {**shape, "transform": f"translate(0 {_number(-_THICK / 2)})", "class": kind}
        self._tip(SubElement(self._svg, "rect", lifted), tip)

    def spot(self, x: float, path: str, kind: str, tip: str = "") -> None:
        """As `mark`, in the middle of a row."""
        place = SubElement(self._svg, "svg", {"x": _percent(x), "y": "50%", "overflow": "visible"})
        self._tip(SubElement(place, "path", {"d": path, "class": kind}), tip)

    def bar(self, left: float, width: float, top: float, height: float, kind: str, tip: str = "") -> None:
        """A rectangle; `tip` is shown under the pointer."""
        shape = {"x": _percent(left), "width": _percent(width), "y": _number(top), "height": _number(height)}
        self._tip(SubElement(self._svg, "rect", {**shape, "class": kind}), tip)

    def line(self, from_: tuple[float, float], to: tuple[float, float], kind: str) -> None:
        (x1, y1), (x2, y2) = from_, to
        ends = {"x1": _percent(x1), "y1": _number(y1), "x2": _percent(x2), "y2": _number(y2)}
        SubElement(self._svg, "line", {**ends, "class": kind})

    def mark(self, x: float, y: float, path: str, kind: str, tip: str = "") -> None:
        """A small shape, which is not stretched; `path` is SVG's, in pixels around the point."""
        place = SubElement(self._svg, "svg", {"x": _percent(x), "y": _number(y), "overflow": "visible"})
        self._tip(SubElement(place, "path", {"d": path, "class": kind}), tip)

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: Anchor = "start") -> None:
        """`y` is where the letters stand."""
        where = {"x": _percent(x), "y": _number(y), "text-anchor": anchor}
        SubElement(self._svg, "text", {**where, **({"class": kind} if kind else {})}).text = text

    def __html__(self) -> str:
        return Markup(ElementTree.tostring(self._svg, encoding="unicode"))

    @staticmethod
    def _tip(element: Element, tip: str) -> None:
        if tip:
            SubElement(element, "title").text = tip


def edge_anchor(x: float) -> Anchor:
    """So that a text at `x` percent stays in the picture."""
    return "start" if x < 8 else "end" if x > 92 else "middle"


def round_steps(longest: float, wanted: int = 5) -> Iterator[float]:
    """From 0 up to `longest` in steps of 1, 2 or 5 times a power of ten, at most `wanted` + 1 of them."""
    if longest <= 0:
        yield 0.0
        return
    power = 10.0 ** math.floor(math.log10(longest / wanted))
    step = next(power * each for each in (1, 2, 5, 10) if power * each * wanted >= longest * (1 - 1e-9))
    for index in range(math.floor(longest / step + 1e-9) + 1):
        yield index * step


def shares(amounts: list[float], at_least: float) -> list[float]:
    """Percentages of the whole in which none is narrower than `at_least`, unless there are too many; 100 in all."""
    total = sum(amounts)
    if not amounts:
        return []
    at_least = min(at_least, 100 / len(amounts) / 2)
    if not total:
        return [100 / len(amounts)] * len(amounts)
    # The wide ones give what the narrow ones need; giving may make another one narrow, so until none is.
    fixed: set[int] = set()
    while True:
        left, of = 100 - at_least * len(fixed), sum(each for index, each in enumerate(amounts) if index not in fixed)
        wide = [at_least if index in fixed else left * each / of for index, each in enumerate(amounts)]
        narrow = {index for index, each in enumerate(wide) if each < at_least - 1e-9 and index not in fixed}
        if not narrow:
            return wide
        fixed |= narrow


def _percent(value: float) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") + "%"


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
