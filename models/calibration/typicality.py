"""How usual a row's inputs are among the training rows."""

from functools import cached_property

import numpy as np
from msgspec import Struct

from models.reference import MAX_ROWS

MAX_BINS = 100
BLOCK = 1 << 24
"""Comparisons of bins made at once, a byte each."""


class Typicality(Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """Full conformal p-value of a row's inputs (Vovk et al., 2005, section 2.2).

    The score of a row is Σ over fields of −ln(share of its bin) in the bag of training rows *and* the new one; the
    p-value is the share of the bag whose score is at least the new row's. While rows are exchangeable,
    P(typicality ≤ t) ≤ t: 0.01 is as odd as one training row in a hundred. ``patterns`` are the distinct rows of bin
    numbers in the order of the schema's fields, ``weights`` how often each occurs, ``sizes`` the number of each field's
    bins.
    """

    sizes: tuple[int, ...]
    patterns: tuple[tuple[int, ...], ...]
    weights: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = self.sizes
        if not sizes or not 1 <= min(sizes) <= max(sizes) <= MAX_BINS:
            raise ValueError(f"sizes must be numbers of bins, from 1 to {MAX_BINS}")
        if not self.patterns or len(self.patterns) != len(self.weights):
            raise ValueError("patterns and weights must be of equal length, and at least one")
        if not 1 <= min(self.weights) <= max(self.weights) <= MAX_ROWS:
            raise ValueError(f"weights must be from 1 to {MAX_ROWS}")
        if any(len(row) != len(sizes) for row in self.patterns):
            raise ValueError(f"a pattern must hold {len(sizes)} bin numbers")
        if any(not 0 <= number < size for row in self.patterns for number, size in zip(row, sizes, strict=True)):
            raise ValueError("a bin number is outside its field's bins")

    @cached_property
    def _bag(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Patterns (k, F), weights (k,), of each field and bin ln(count + 1) and what that is above ln count
        (F, most bins), and Σ ln count per pattern (k,)."""
        patterns, weights = np.array(self.patterns), np.array(self.weights)
        counts = np.zeros((patterns.shape[1], max(self.sizes)))
        for field in range(patterns.shape[1]):
            np.add.at(counts[field], patterns[:, field], weights)
        log_counts, log_more = np.log(np.maximum(counts, 1)), np.log(counts + 1)
        log_sums = log_counts[np.arange(patterns.shape[1]), patterns].sum(axis=1)
        return patterns, weights, log_more, log_more - log_counts, log_sums

    def p_values(self, rows: np.ndarray) -> np.ndarray:
        """Bin numbers (B, F) → p-values (B,) in (0, 1]."""
        at_once = max(1, BLOCK // (len(self.patterns) * rows.shape[1]))
        blocks = [self._p_values(rows[first : first + at_once]) for first in range(0, len(rows), at_once)]
        return np.concatenate(blocks) if blocks else np.empty(0)

    def _p_values(self, rows: np.ndarray) -> np.ndarray:
        patterns, weights, log_more, gains, log_sums = self._bag
        fields = np.arange(rows.shape[1])
        # A new row adds one to the count of each of its bins, and so to every row of the bag that shares the bin.
        commonness = log_sums + np.einsum("bkf,bf->bk", patterns == rows[:, None], gains[fields, rows])
        mine = log_more[fields, rows].sum(axis=1)
        at_most = (commonness <= mine[:, None] + 1e-9) @ weights
        return np.asarray((at_most + 1) / (weights.sum() + 1))
