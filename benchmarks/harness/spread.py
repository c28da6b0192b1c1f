"""Medians with their spread over rounds, and how they are written."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct


class Spread(Struct, frozen=True):
    """Median and quartiles of one figure over ``rounds`` rounds."""

    median: float
    low: float
    high: float
    rounds: int

    def __str__(self) -> str:
        if self.rounds == 1:
            return number(self.median)
        return f"{number(self.median)} [{number(self.low)}–{number(self.high)}]"


def spread(values: Sequence[float]) -> Spread:
    """Median and quartiles over rounds."""
    low, median, high = np.quantile(np.array(values, np.float64), (0.25, 0.5, 0.75)).tolist()
    return Spread(median, low, high, len(values))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Median and quartiles of ours ÷ theirs, round by round: both were measured one after the other, so that a slow
    moment of the machine is in both."""
    return spread([one / other for one, other in zip(ours, theirs, strict=True)])


def number(value: float) -> str:
    """Three significant digits, or all before the point."""
    if value == 0 or not np.isfinite(value):
        return f"{value:.0f}"
    return f"{value:,.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}"
