"""Fit conformal prediction sets: a threshold for each class, or for each class in each bin of a field."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from models.bins.input_binner import bin_number
from models.calibration.conformal import ConformalSets
from models.rows import Row
from models.schema import Field


@dataclass(frozen=True)
class RowGroups:
    """Which bin of a field each row is in: its number (n,) int64 among ``names``."""

    field: str
    names: tuple[str, ...]
    of_row: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Row], field: Field) -> "RowGroups":
        """The groups of rows by a field that is no text."""
        number = bin_number(field)
        numbers = [number(getattr(row, field.name)) for row in rows]
        return cls(field.name, field.input_bins.names, np.array(numbers, np.int64))

    def __getitem__(self, rows: np.ndarray) -> "RowGroups":
        return RowGroups(self.field, self.names, self.of_row[rows])


def fit_sets(
    probabilities: np.ndarray, labels: np.ndarray, coverage: float, groups: RowGroups | None = None
) -> ConformalSets:
    """Probabilities (n, K) and labels (n,) → the thresholds of each class, of ``groups`` each group's
    (`ConformalSets`)."""
    scores = [1 - probabilities[labels == k, k] for k in range(probabilities.shape[1])]
    thresholds = tuple(threshold(of_class, coverage) for of_class in scores)
    if groups is None:
        return ConformalSets(coverage=coverage, thresholds=thresholds)
    by_class = [
        _of_groups(of_class, groups[labels == k], coverage, thresholds[k]) for k, of_class in enumerate(scores)
    ]  # fmt: skip
    by_group = dict(zip(groups.names, zip(*by_class, strict=True), strict=True))
    return ConformalSets(coverage=coverage, thresholds=thresholds, by=groups.field, groups=by_group)


def threshold(scores: np.ndarray, coverage: float) -> float:
    """The ⌈(n + 1) coverage⌉-th smallest of scores (n,) in [0, 1]; 1 where n is below `rows_needed`."""
    rank = rank_of_threshold(len(scores), coverage)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else 1.0


def rank_of_threshold(rows: int, coverage: float) -> int:
    """⌈(rows + 1) coverage⌉, which may be more than there are rows."""
    # By fractions: 100 · 0.55 is 55.00000000000001 in floats, a rank too many.
    return math.ceil((rows + 1) * Fraction(str(coverage)))


def rows_needed(coverage: float) -> int:
    """The least n with ⌈(n + 1) coverage⌉ ≤ n: of fewer rows no threshold below 1 promises anything."""
    c = Fraction(str(coverage))
    return math.ceil(c / (1 - c))


def _of_groups(scores: np.ndarray, groups: RowGroups, coverage: float, otherwise: float) -> list[float]:
    """The threshold of each group, from one class's scores (n,): the group's own, or that of all groups that are too
    small for one, or ``otherwise``."""
    enough = np.bincount(groups.of_row, minlength=len(groups.names)) >= rows_needed(coverage)
    rest = scores[~enough[groups.of_row]]
    shared = threshold(rest, coverage) if len(rest) >= rows_needed(coverage) else otherwise
    return [
        threshold(scores[groups.of_row == number], coverage) if own else shared
        for number, own in enumerate(enough.tolist())
    ]
