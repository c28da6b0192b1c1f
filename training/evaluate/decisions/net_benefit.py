"""What decisions by the probabilities are worth at any threshold."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from training.evaluate.estimates import Estimate, mean

THRESHOLDS = tuple(round(0.05 * place, 2) for place in range(1, 20))
"""Those that ``evaluation.json`` holds."""


class NetBenefit(Struct, frozen=True, kw_only=True):
    """Decisions at one threshold t: a row is taken for the positive class from the probability t on.

    Net benefit (Vickers & Elkin, 2006): the share of rows that are rightly taken for it, less t / (1 − t) times the
    share that are wrongly. ``decisions`` are by the calibrated probabilities, ``treat_all`` takes every row for the
    positive class, and to take none has a net benefit of 0. ``over_treat_all`` is ``decisions`` less ``treat_all``, row
    by row. Intervals are pointwise.
    """

    threshold: float
    decisions: Estimate
    treat_all: Estimate
    over_treat_all: Estimate


def net_benefits(
    probabilities: np.ndarray,
    labels: np.ndarray,
    thresholds: Sequence[float] = THRESHOLDS,
    clusters: np.ndarray | None = None,
) -> tuple[NetBenefit, ...]:
    """Probabilities (n,) of the positive of two classes, labels (n,) 0/1 → the curve at thresholds in (0, 1);
    ``clusters`` (n,) as in `mean`."""
    return tuple(_net_benefit(probabilities, labels, threshold, clusters) for threshold in thresholds)


def _net_benefit(p: np.ndarray, y: np.ndarray, threshold: float, clusters: np.ndarray | None) -> NetBenefit:
    of_each = np.where(y == 1, 1.0, -threshold / (1 - threshold))
    taken = np.where(p >= threshold, of_each, 0.0)
    return NetBenefit(
        threshold=threshold, decisions=mean(taken, clusters), treat_all=mean(of_each, clusters),
        over_treat_all=mean(taken - of_each, clusters),
    )  # fmt: skip
