"""Choose the field that prediction sets are by, where sets of the class alone are shown to fail some rows."""

from collections.abc import Mapping, Sequence
from typing import Self

import numpy as np
from scipy.stats import beta

from models.calibration.conformal import ConformalSets
from models.rows import Row
from models.schema import NO_FIELD, Schema
from training.calibrate.sets import RowGroups, fit_sets, rank_of_threshold, rows_needed

CHANCE = 0.05
"""Of choosing a field although sets of the class alone miss none of its groups more than `MISSED_MORE` times as often
as promised."""
MISSED_MORE = 1.3
"""At a coverage of .9 a group's is clearly below it if it is shown to be under .87."""


class SetsBy:
    """The groups that sets of rows may be conditional on: of the field that a description names, or else of each
    category and boolean, among which `choose` decides."""

    def __init__(self, groups: Mapping[str, RowGroups], named: str | None = None):
        self._groups, self._named = groups, named

    @classmethod
    def of(cls, rows: Sequence[Row], schema: Schema, named: str | None = None) -> Self:
        """``named`` is a field or `NO_FIELD`, by default what the schema says."""
        named = named or schema.sets_by
        fields = [field for field in schema.fields if field.type in ("category", "boolean")]
        if named is not None:
            fields = [field for field in schema.fields if field.name == named != NO_FIELD]
        return cls({field.name: RowGroups.of(rows, field) for field in fields}, named)

    def choose(
        self, probabilities: np.ndarray, labels: np.ndarray, coverage: float, rows: np.ndarray | None = None
    ) -> RowGroups | None:
        """The groups of all rows for sets that are fitted on the probabilities (n, K) and labels (n,) of ``rows`` (n,),
        by default of all; None for sets of the class alone.

        A field is chosen where sets of the class alone, each row's by thresholds of all others, hold the outcome of a
        class in one of its groups clearly too rarely: the p-values of all classes in all groups of all fields, by the
        binomial law, are tested together (Bonferroni), and the field of the least one is taken. Groups with fewer rows
        of a class than a threshold needs are not tested, nor a class that has but one other.
        """
        if self._named is not None:
            return self._groups.get(self._named)
        held = held_out_coverage(probabilities, labels, coverage)
        numbers = np.arange(len(labels)) if rows is None else rows
        tested = {name: _p_values(held, labels, groups[numbers], coverage) for name, groups in self._groups.items()}
        least = {name: min(values) for name, values in tested.items() if values}
        best = min(least, key=lambda name: least[name], default=None)
        if best is None or least[best] > CHANCE / sum(map(len, tested.values())):
            return None
        return self._groups[best]

    def fit(self, probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> ConformalSets:
        """The sets of these rows, by the field that is named or chosen."""
        return fit_sets(probabilities, labels, coverage, self.choose(probabilities, labels, coverage))


def held_out_coverage(probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> np.ndarray:
    """Whether (n,) the set of each row holds its class, by thresholds that were set by all other rows.

    A row is at most the r-th smallest of the others where fewer than r of them are smaller: no threshold is fitted
    anew.
    """
    held = np.ones(len(labels), bool)
    for k in range(probabilities.shape[1]):
        of_class = labels == k
        scores = 1 - probabilities[of_class, k]
        rank = rank_of_threshold(len(scores) - 1, coverage)
        if rank < len(scores):
            held[of_class] = np.searchsorted(np.sort(scores), scores) < rank
    return held


def _p_values(held: np.ndarray, labels: np.ndarray, groups: RowGroups, coverage: float) -> list[float]:
    """Of each class in each group that is large enough: P(X ≤ held) for the binomial law of the least coverage that is
    not clearly too low."""
    least = 1 - MISSED_MORE * (1 - coverage)
    found = []
    for k in np.unique(labels):
        of_class, numbers = held[labels == k], groups.of_row[labels == k]
        rows = np.bincount(numbers, minlength=len(groups.names))
        inside = np.bincount(numbers, of_class, minlength=len(groups.names))
        large = rows >= rows_needed(coverage)
        if large.sum() > 1:
            found += [binomial_cdf(x, n, least) for x, n in zip(inside[large], rows[large], strict=True)]
    return found


def binomial_cdf(successes: float, trials: float, share: float) -> float:
    """P(X ≤ successes) by the incomplete beta function, which takes numbers that are not whole too."""
    return 1.0 if successes >= trials else float(beta.sf(share, successes + 1, trials - successes))
