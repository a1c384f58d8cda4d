"""How fast a model answered, as a histogram over a logarithmic axis."""

from __future__ import annotations

import math
from collections.abc import Iterator

from builder.artifacts import BUCKETS_PER_DECADE, Latency
from builder.views.report.picture import Picture, edge_anchor
from builder.views.report.words import milliseconds

_TOP, _HEIGHT = 48, 130
_TICKS = 5


def lower_edge(upper: float) -> float:
    """Of the bucket with this upper edge, in ms."""
    return float(upper / 10 ** (1 / BUCKETS_PER_DECADE))


def picture(model: str, latency: Latency) -> Picture:
    """Bars for the buckets, lines for the median and the 99th percentile."""
    first = math.log10(min(lower_edge(latency.histogram[0][0]), latency.p50))
    last = math.log10(max(latency.histogram[-1][0], latency.p99))
    margin = 1 / BUCKETS_PER_DECADE

    def place(value: float) -> float:
        return (math.log10(value) - first + margin) / (last - first + 2 * margin) * 100

    count = sum(each for _, each in latency.histogram)
    told = f"p50 {milliseconds(latency.p50)}", f"p99 {milliseconds(latency.p99)}"
    made = Picture(_TOP + _HEIGHT + 26, f"Latency of {model}: {count} requests, {told[0]}, {told[1]}")
    floor = _TOP + _HEIGHT
    most = max(each for _, each in latency.histogram)
    for upper, each in latency.histogram:
        left, right = place(lower_edge(upper)), place(upper)
        tall = max(each / most * _HEIGHT, 2)
        tip = f"{milliseconds(lower_edge(upper))} to {milliseconds(upper)}: {each} of {count}"
        made.bar(left, right - left, floor - tall, tall, "ran bucket", tip)
    made.line((0, floor), (100, floor), "axis")
    for value, text, y in ((latency.p50, told[0], 14), (latency.p99, told[1], 34)):
        x = place(value)
        for kind in ("halo", "percentile"):
            made.line((x, y + 4), (x, floor), kind)
        made.text(x, y, text, "strong", "start" if x < 15 else "end" if x > 70 else "middle")
    for tick in _ticks(10 ** (first - margin), 10 ** (last + margin)):
        x = place(tick)
        made.line((x, floor), (x, floor + 5), "axis")
        made.text(x, floor + 21, f"{tick:g} ms", "muted", edge_anchor(x))
    return made


def _ticks(low: float, high: float) -> Iterator[float]:
    """Round figures between the two; of many only the powers of ten."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [each for power in decades for factor in factors if low <= (each := factor * 10.0**power) <= high]
        if len(found) <= _TICKS:
            break
    step = math.ceil(len(found) / _TICKS) or 1
    yield from found[::step]
