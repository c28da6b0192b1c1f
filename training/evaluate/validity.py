"""What an evaluation says of intervals, of tenths of probability, and of answering the surest rows alone."""

import numpy as np
from msgspec import Struct
from scipy.stats import binom

from models.reference import probability_bins
from training.evaluate.clusters.errors import picked
from training.evaluate.estimates import Estimate, proportion
from training.evaluate.selective_risk import risk_coverage


class RiskArea(Struct, frozen=True, kw_only=True):
    """Mean error over all shares of rows answered, most certain first; the other two as in `RiskCoverage`."""

    area: float
    random: float
    oracle: float


class IntervalValidity(Struct, frozen=True, kw_only=True):
    """Intervals of a class's probability: valid ones hold the observed rate between their mean ends.

    Of ``groups``, tenths of the rows by probability and rows of one text where there are at least four,
    ``compatible_groups`` have a count of the class that the interval does not exclude (`compatible`): of a
    target of 90 % of the rows, nine in ten and more, as a group's mean is known better than a row's probability.
    """

    mean_low: float
    mean_high: float
    observed: Estimate
    average_width: float
    outside_by: float
    groups: int = 0
    compatible_groups: int = 0


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
            observed=proportion(labels[held] == 1, picked(clusters, held)),
        )
        for held in (bins == number for number in np.unique(bins))
    )


def interval_validity(
    p: np.ndarray, low: np.ndarray, high: np.ndarray, labels: np.ndarray, clusters: np.ndarray | None = None,
    texts: np.ndarray | None = None,
) -> IntervalValidity:  # fmt: skip
    """A class's probabilities and the ends (n,) of their intervals, and labels (n,) 0/1; ``clusters`` (n,) as of
    `proportion`, ``texts`` (n,) a number for each text, None where all differ."""
    observed = float(labels.mean())
    held = [*_tenths(p), *([] if texts is None else _large_groups(texts))]
    return IntervalValidity(
        mean_low=float(low.mean()), mean_high=float(high.mean()), observed=proportion(labels == 1, clusters),
        average_width=float((high - low).mean()),
        outside_by=max(0.0, float(low.mean()) - observed, observed - float(high.mean())),
        groups=len(held), compatible_groups=sum(compatible(low[rows], high[rows], labels[rows]) for rows in held),
    )  # fmt: skip


GROUP_ROWS, GROUPS = 4, 10


def compatible(low: np.ndarray, high: np.ndarray, labels: np.ndarray) -> bool:
    """Whether the ones among labels (n,) are neither too few for the lower ends nor too many for the upper ones, by
    binomial tests at 5 % on either side."""
    ones, n = int(labels.sum()), len(labels)
    return bool(binom.cdf(ones, n, low.mean()) >= 0.05 and binom.sf(ones - 1, n, high.mean()) >= 0.05)


def _tenths(p: np.ndarray) -> list[np.ndarray]:
    """The places of about a tenth of the rows each, by probability."""
    return [rows for rows in np.array_split(np.argsort(p, kind="stable"), GROUPS) if len(rows)]


def _large_groups(numbers: np.ndarray) -> list[np.ndarray]:
    """The places of the rows of each number, where they are `GROUP_ROWS` or more."""
    return [np.flatnonzero(numbers == one) for one in np.flatnonzero(np.bincount(numbers) >= GROUP_ROWS)]
