"""Which rows depend on each other: for standard errors, and for tests of calibration."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from msgspec import Struct

from training.evaluate.clusters.errors import numbered
from training.evaluate.clusters.label_draws import LabelDraws
from training.evaluate.folds import joined, little_is_said


class ClusterCounts(Struct, frozen=True, kw_only=True):
    """What an evaluation says of rows that depend on each other.

    ``standard_errors`` and intervals are "over rows", or "cluster-robust" over ``clusters`` clusters of rows; tests of
    calibration are over ``test_clusters``, whose labels have the ``correlation`` of the residuals (`LabelDraws`).
    """

    standard_errors: str
    clusters: int
    test_clusters: int
    correlation: float


@dataclass(frozen=True)
class Dependence:
    """Numbers of clusters (n,), None where every row is its own.

    Those for ``errors`` are the rows that are held out together: of one group, or equal. Those for ``tests`` of
    calibration join rows of one text too: rows drawn independently may share a text by chance, which is no reason for a
    larger standard error; but how far the model is off for a text is the same for all of its rows.
    """

    errors: np.ndarray | None = None
    tests: np.ndarray | None = None

    @classmethod
    def of(cls, units: np.ndarray, texts: Sequence[str]) -> Self:
        """Of rows with these units (n,) (`Units`) and texts, as the model reads them; where only a few texts are said
        at all, they do not join rows."""
        same = numbered(np.array(texts, object).astype(str))
        tests = numbered(units) if little_is_said(same) else joined(numbered(units), same)
        return cls(*(None if len(np.unique(each)) == len(each) else each for each in (units, tests)))

    def __getitem__(self, rows: np.ndarray) -> "Dependence":
        return Dependence(*(None if each is None else each[rows] for each in (self.errors, self.tests)))

    def counts(self, p: np.ndarray, y: np.ndarray) -> ClusterCounts | None:
        """How many clusters, with the correlation of labels y (n,) whose probabilities are p; None without any."""
        if self.errors is None and self.tests is None:
            return None
        errors, tests = (len(y) if each is None else len(np.unique(each)) for each in (self.errors, self.tests))
        return ClusterCounts(
            standard_errors="over rows" if self.errors is None else "cluster-robust", clusters=errors,
            test_clusters=tests, correlation=LabelDraws(p, y, self.tests).correlation,
        )  # fmt: skip


INDEPENDENT = Dependence()
