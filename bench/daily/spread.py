"""What a row of values comes to."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """A median, and how far apart the values were."""

    median: float
    lowest: float
    lower: float  # quartile
    upper: float  # quartile
    highest: float
    count: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        lower, median, upper = (
            statistics.quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        )
        return cls(
            median=round(median, 4),
            lowest=round(min(values), 4),
            lower=round(lower, 4),
            upper=round(upper, 4),
            highest=round(max(values), 4),
            count=len(values),
        )


def ratios(values: Sequence[float], others: Sequence[float]) -> list[float]:
    """Round by round, so that what else the machine did in a round is in both."""
    return [value / other for value, other in zip(values, others, strict=True)]
