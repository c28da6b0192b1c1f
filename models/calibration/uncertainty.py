"""What the model does not know of a row's probability, as a spread in log-odds."""

from functools import cached_property

import numpy as np
from msgspec import Struct

from models.calibration.logit import clipped, logit, sigmoid

Z_90 = 1.6448536269514722
"""The normal distribution's 95 % point: 90 % lie within ± so many standard deviations."""
VENN_ABERS_SHARE = 0.25
"""What of the variance of a pooled share counts: the map of few rows goes half of the way to it, in log-odds."""
MAX_VARIANCE = 1e6


class Uncertainty(Struct, frozen=True, dict=True, kw_only=True, forbid_unknown_fields=True):
    """The variance of a calibrated log-odds around the true one, in three parts: each has one number, of the
    positive of two classes, or one for each class against all others.

    ``between_seeds`` is what another seed and other folds would have given, ``rows`` what other training rows would
    have given beyond that, ``map`` what other rows would have given for the map; ``seeds`` were compared
    (`training.calibrate.uncertainty` has the formulas).

    Target: `interval` holds η(x), the share of the class among all rows that are like this one in every field, for 90 %
    of rows like the training rows, on average over them: not of each group of rows by itself. Assumptions: errors of
    log-odds are about normal and of one size, the rows are like the training rows, and the model can learn the form
    of η. What it could not represent with any number of rows is not in it.
    """

    seeds: int
    between_seeds: tuple[float, ...]
    rows: tuple[float, ...]
    map: tuple[float, ...]

    def __post_init__(self) -> None:
        parts = self.between_seeds, self.rows, self.map
        if len({len(part) for part in parts}) != 1 or not self.map:
            raise ValueError("between_seeds, rows and map must each have one number, or one for each class")
        for part in parts:
            if not all(0 <= value <= MAX_VARIANCE for value in part):
                raise ValueError(f"a variance is one of {part}; each must be from 0 to {MAX_VARIANCE:g}")

    @cached_property
    def variance(self) -> np.ndarray:
        """The sum of the parts (1,), or (K,)."""
        return np.asarray(np.sum([self.between_seeds, self.rows, self.map], axis=0))

    def interval(self, p: np.ndarray, p0: np.ndarray, p1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Calibrated probabilities inside (0, 1) and their Venn–Abers pair, each (B,) or (B, K) → the interval's ends.

        logit p ± 1.645 √(variance + ¼ (p1 − p0) / (p (1 − p))): a share pooled from N rows has p1 − p0 ≈ 1/N, and its
        log-odds the variance 1 / (N p (1 − p)).
        """
        pooled = VENN_ABERS_SHARE * (p1 - p0) / np.maximum(p * (1 - p), 1e-12)
        z, half = logit(p), Z_90 * np.sqrt(self.variance + clipped(pooled, 0, MAX_VARIANCE))
        low, high = sigmoid(np.array([z - half, z + half]))
        # A sum of log-odds beyond ±700 has no other double.
        return np.minimum(low, p), np.maximum(high, p)
