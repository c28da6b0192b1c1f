"""Prediction sets of held-out rows: each fold's thresholds, and the field that they are by, from the other folds."""

import numpy as np

from models.calibration.logit import class_probabilities
from models.schema import Schema
from training.calibrate.sets import fit_sets
from training.calibrate.sets_choice import SetsBy
from training.evaluate.groups import Members
from training.evaluate.selective_risk import SetCoverage, set_coverage
from training.evaluate.sets.cells import ConditionalSets, set_cells

COVERAGES = (0.8, 0.9, 0.95)
"""Nominal coverages that the nested evaluation reports, whatever the bundle's own."""


class CrossFittedSets:
    """Sets of rows with these labels (n,), filled in fold by fold."""

    def __init__(
        self, sets_by: SetsBy, labels: np.ndarray, schema: Schema, coverage: float,
        clusters: np.ndarray | None = None,
    ):  # fmt: skip
        self._by, self._labels, self._classes, self._clusters = sets_by, labels, schema.classes, clusters
        self._nominals = (coverage, *COVERAGES)
        self._member = np.zeros((len(self._nominals), len(labels), len(schema.classes)), bool)
        self._plain = np.zeros_like(self._member[0])
        self._chosen: list[str | None] = []

    def fit(self, rest: np.ndarray, here: np.ndarray, p_rest: np.ndarray, p_here: np.ndarray) -> None:
        """Fit on the rows ``rest`` with their probabilities, and fill in those of the rows ``here``."""
        p_rest, p_here, y = class_probabilities(p_rest), class_probabilities(p_here), self._labels[rest]
        groups = self._by.choose(p_rest, y, self._nominals[0], rest)
        self._chosen.append(None if groups is None else groups.field)
        numbers = None if groups is None else groups.of_row[here]
        for member, nominal in zip(self._member, self._nominals, strict=True):
            sets = fit_sets(p_rest, y, nominal, None if groups is None else groups[rest])
            member[here] = sets.sets(p_here, numbers)
        self._plain[here] = fit_sets(p_rest, y, self._nominals[0]).sets(p_here)

    @property
    def member(self) -> np.ndarray:
        """Membership (n, K) bool at the bundle's coverage."""
        return np.asarray(self._member[0])

    def coverages(self) -> tuple[SetCoverage, ...]:
        """At `COVERAGES`."""
        return tuple(
            set_coverage(member, self._labels, nominal, self._classes, self._clusters)
            for member, nominal in zip(self._member[1:], COVERAGES, strict=True)
        )

    def conditional(self, groups: Members) -> ConditionalSets | None:
        """What sets by a field are to be compared with; None where no fold has such."""
        if not any(self._chosen):
            return None
        plain = set_coverage(self._plain, self._labels, self._nominals[0], self._classes, self._clusters)
        worst = set_cells(self._plain, self._labels, groups, self._classes, self._clusters).worst
        return ConditionalSets(chosen=tuple(self._chosen), plain=plain, plain_worst=worst)
