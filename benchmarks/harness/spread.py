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
    # No interpolation between infinities, which stand for a contender that did nothing in a round.
    low, median, high = (_quantile(np.sort(np.array(values, np.float64)), q) for q in (0.25, 0.5, 0.75))
    return Spread(median, low, high, len(values))


def _quantile(ordered: np.ndarray, q: float) -> float:
    place = q * (len(ordered) - 1)
    below, above = ordered[int(np.floor(place))], ordered[int(np.ceil(place))]
    return float(below if below == above else below + (place % 1) * (above - below))


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Median and quartiles of ours ÷ theirs, round by round: both were measured one after the other, so that a slow
    moment of the machine is in both."""
    return spread([one / other if other else np.inf for one, other in zip(ours, theirs, strict=True)])


def number(value: float) -> str:
    """Three significant digits, or all before the point."""
    if value == 0 or not np.isfinite(value):
        return f"{value:.0f}"
    return f"{value:,.{max(0, 2 - int(np.floor(np.log10(abs(value)))))}f}"
