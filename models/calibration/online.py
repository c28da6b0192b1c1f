"""Online Platt scaling: an offset and a slope on the calibrated log-odds of two classes, kept up to date by outcomes.

Gupta & Ramdas, 2023, "Online Platt scaling with calibeating" (arXiv 2305.00070, algorithm 1): online logistic
regression on (1, z), z the log-odds, by the online Newton step (Hazan, Agarwal & Kale, 2007). Two things
differ, so that it follows a shift: old outcomes are forgotten (discounted online Newton step, Yuan & Lamperski, 2020),
and the step is that of the curvature that was seen (γ = 1).
"""

import math
from typing import Annotated, Self

from msgspec import Meta, Struct

MIN_SLOPE, MAX_SLOPE, MAX_OFFSET = 0.25, 4.0, 4.0
"""Limits of what may be served: the order of rows stays, and no run of outcomes makes certainty of a doubt."""
MAX_LOG_ODDS = 10.0
"""Beyond it a row teaches as one at it: one sure and wrong row has a bounded pull."""
WINDOW_OUTCOMES = 1000.0
"""How many outcomes are remembered, by weights (1 − 1/1000)ᵏ: where nothing shifts, what is learnt from noise costs
about 1/(2 · 1000) nats a row."""
PRIOR_PRECISION, MIN_PRECISION = 100.0, 10.0
"""Of offset and slope: at first about 0 and 1 with a standard deviation of .1, as some 600 outcomes would leave them,
so that the first outcomes are not taken for the truth; later, at least."""


class OnlineStep(Struct, frozen=True, kw_only=True):
    """slope · z + offset, learnt from so many ``outcomes``; the last step of a served probability. ``threshold_shifts``
    are added to the thresholds of the prediction sets, class by class (`AdaptiveThresholds`)."""

    slope: float = 1.0
    offset: float = 0.0
    outcomes: int = 0
    threshold_shifts: tuple[float, float] = (0.0, 0.0)

    def probability(self, p: float) -> float:
        """A probability in [0, 1] of the positive class → the one that is served; 0 and 1 stay."""
        if not 0 < p < 1:
            return p
        z = self.slope * log_odds(p) + self.offset
        return logistic(z)


class OnlinePlatt(Struct, kw_only=True, forbid_unknown_fields=True):
    """The learner, and all of its state: the parameters, and the precision (the matrix of ``a`` offset · offset, ``b``
    offset · slope, ``c`` slope · slope) that its steps are divided by.

    ``log_loss_before`` and ``log_loss_after`` are sums over the outcomes without and with the step as it was before
    each (nats): what the step was worth. ``since`` is when the first outcome came (Unix seconds).
    """

    slope: Annotated[float, Meta(ge=MIN_SLOPE, le=MAX_SLOPE)] = 1.0
    offset: Annotated[float, Meta(ge=-MAX_OFFSET, le=MAX_OFFSET)] = 0.0
    a: Annotated[float, Meta(gt=0)] = PRIOR_PRECISION
    b: float = 0.0
    c: Annotated[float, Meta(gt=0)] = PRIOR_PRECISION
    outcomes: Annotated[int, Meta(ge=0)] = 0
    since: float | None = None
    log_loss_before: Annotated[float, Meta(ge=0)] = 0.0
    log_loss_after: Annotated[float, Meta(ge=0)] = 0.0

    def __post_init__(self) -> None:
        if not (all(map(math.isfinite, (self.a, self.b, self.c))) and self.a * self.c > self.b * self.b):
            raise ValueError("the precision a, b, c is not that of two parameters")

    @property
    def step(self) -> OnlineStep:
        """What is served now."""
        return OnlineStep(slope=self.slope, offset=self.offset, outcomes=self.outcomes)

    def observe(self, p: float, positive: bool) -> None:
        """Learn from an outcome and the bundle's own probability of the positive class, in (0, 1), that it had."""
        z = max(-MAX_LOG_ODDS, min(MAX_LOG_ODDS, log_odds(p)))
        q = logistic(self.slope * z + self.offset)
        self.log_loss_before -= math.log(logistic(z) if positive else logistic(-z))
        self.log_loss_after -= math.log(q if positive else 1 - q)
        self._forget()
        gradient = q - positive
        self.a, self.b, self.c = self.a + gradient**2, self.b + gradient**2 * z, self.c + (gradient * z) ** 2
        determinant = self.a * self.c - self.b**2
        offset = self.offset - gradient * (self.c - self.b * z) / determinant
        slope = self.slope - gradient * (self.a * z - self.b) / determinant
        self.offset, self.slope = self._nearest(offset, slope)
        self.outcomes += 1

    def _forget(self) -> None:
        """Old outcomes count less; the steps stay bounded where none of them tells anything."""
        keep = 1 - 1 / WINDOW_OUTCOMES
        self.a = keep * self.a + (1 - keep) * MIN_PRECISION
        self.b = keep * self.b
        self.c = keep * self.c + (1 - keep) * MIN_PRECISION

    def _nearest(self, offset: float, slope: float) -> tuple[float, float]:
        """The point within the limits that is nearest in the precision's norm."""
        if abs(offset) <= MAX_OFFSET and MIN_SLOPE <= slope <= MAX_SLOPE:
            return offset, slope
        corners = []
        for edge in (-MAX_OFFSET, MAX_OFFSET):
            best = slope - self.b / self.c * (edge - offset)
            corners.append((edge, max(MIN_SLOPE, min(MAX_SLOPE, best))))
        for edge in (MIN_SLOPE, MAX_SLOPE):
            best = offset - self.b / self.a * (edge - slope)
            corners.append((max(-MAX_OFFSET, min(MAX_OFFSET, best)), edge))

        def distance(point: tuple[float, float]) -> float:
            x, y = point[0] - offset, point[1] - slope
            return self.a * x * x + 2 * self.b * x * y + self.c * y * y

        return min(corners, key=distance)

    def copy(self) -> Self:
        """The same state, apart."""
        return type(self)(**{name: getattr(self, name) for name in self.__struct_fields__})


def log_odds(p: float) -> float:
    """ln p − ln(1 − p), p in (0, 1)."""
    return math.log(p) - math.log1p(-p)


def logistic(z: float) -> float:
    """1 / (1 + e^−z), strictly inside (0, 1), as `models.calibration.logit.sigmoid` keeps it."""
    z = max(-700.0, min(36.0, z))
    return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(z) / (1 + math.exp(z))
