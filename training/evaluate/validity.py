"""What an evaluation says of intervals, of tenths of probability, and of answering the surest rows alone."""

import numpy as np
from msgspec import Struct

from models.reference import probability_bins
from training.evaluate.estimates import Estimate, proportion
from training.evaluate.selective_risk import risk_coverage


class RiskArea(Struct, frozen=True, kw_only=True):
    """Mean error over all shares of rows answered, most certain first; the other two as in `RiskCoverage`."""

    area: float
    random: float
    oracle: float


class IntervalValidity(Struct, frozen=True, kw_only=True):
    """Venn–Abers intervals: calibrated ones hold the observed rate between the mean p0 and the mean p1."""

    mean_low: float
    mean_high: float
    observed: Estimate
    average_width: float
    outside_by: float


class ReliabilityBin(Struct, frozen=True, kw_only=True):
    """The rows whose probability of a class, of two the positive one, is in one tenth: how many, their mean
    probability, the share of the class."""

    rows: int
    probability: float
    observed: Estimate


def risk_area(probabilities: np.ndarray, labels: np.ndarray) -> RiskArea:
    """`risk_coverage` in three numbers."""
    curve = risk_coverage(probabilities, labels)
    return RiskArea(area=curve.area, random=curve.random, oracle=curve.oracle)


def reliability(
    probabilities: np.ndarray, labels: np.ndarray, clusters: np.ndarray | None = None
) -> tuple[ReliabilityBin, ...]:
    """Probabilities (n,) and labels (n,) 0/1 by tenth of probability, those with rows: a reliability diagram's data;
    ``clusters`` (n,) as of `proportion`."""
    bins = probability_bins(probabilities)
    return tuple(
        ReliabilityBin(
            rows=int(held.sum()),
            probability=float(probabilities[held].mean()),
            observed=proportion(labels[held] == 1, None if clusters is None else clusters[held]),
        )
        for held in (bins == number for number in np.unique(bins))
    )


def interval_validity(
    low: np.ndarray, high: np.ndarray, labels: np.ndarray, clusters: np.ndarray | None = None
) -> IntervalValidity:
    """Ends (n,) of the intervals of a class's probability, and labels (n,) 0/1; ``clusters`` (n,) as of
    `proportion`."""
    observed = float(labels.mean())
    return IntervalValidity(
        mean_low=float(low.mean()), mean_high=float(high.mean()), observed=proportion(labels == 1, clusters),
        average_width=float((high - low).mean()),
        outside_by=max(0.0, float(low.mean()) - observed, observed - float(high.mean())),
    )  # fmt: skip
