"""Labels as a calibrated model's would fall, where those of one cluster may fall together."""

import numpy as np

from models.calibration.logit import class_probabilities
from training.evaluate.clusters.errors import numbered

POINTS = 200
"""At which the expectation over a shared uniform number is taken."""


class LabelDraws:
    """Uniform numbers for labels that have their probabilities, and in clusters (n,) the correlation that labels have.

    The null of a test of calibration says what each label's probability is, not that labels of one customer, or of one
    text, are independent given it: a calibrated model may be too low for one text and too high for the next. Drawn
    independently, labels would make an error that this alone brings look like a fault. Each row takes its cluster's
    number instead of its own with the chance √ρ (Lunn & Davies, 1998, for equal probabilities), so that labels of one
    cluster agree as if a share ρ of their pairs were drawn together.

    ``correlation`` ρ is the observed sum of products of two rows' residuals in one cluster over what it would be if all
    pairs were drawn together, kept in [0, 1]. Where the model is wrong it is too large, which makes a test weaker and
    not wrong. Without clusters, numbers are independent.
    """

    def __init__(self, p: np.ndarray, y: np.ndarray | None = None, clusters: np.ndarray | None = None):
        self._rows, self._cluster, self.correlation = len(p), None, 0.0
        if y is not None and clusters is not None:
            self._cluster = numbered(clusters)
            self.correlation = _correlation(class_probabilities(p), y, self._cluster)

    def __call__(self, rng: np.random.Generator, draws: int) -> np.ndarray:
        """Numbers in [0, 1), (draws, n)."""
        own = rng.random((draws, self._rows))
        if self._cluster is None or self.correlation == 0:
            return own
        shared = rng.random((draws, int(self._cluster.max()) + 1))[:, self._cluster]
        return np.where(rng.random(own.shape) < np.sqrt(self.correlation), shared, own)


def _correlation(p: np.ndarray, y: np.ndarray, cluster: np.ndarray) -> float:
    classes, ends = p.shape[1], p.cumsum(axis=1)[:, :-1]
    label = np.eye(classes)[y.astype(int)]
    found = _pairs(label - p, cluster)
    expected = -_pairs(p, cluster) - len(y)
    for u in (np.arange(POINTS) + 0.5) / POINTS:
        counts = np.bincount(cluster * classes + (u > ends).sum(axis=1)).astype(float)
        expected += (counts**2).sum() / POINTS
    return float(np.clip(found / expected, 0, 1)) if expected > 0 else 0.0


def _pairs(values: np.ndarray, cluster: np.ndarray) -> float:
    """Σ over pairs of two rows of one cluster, and over columns, of the product of their values (n, K)."""
    sums = np.array([np.bincount(cluster, column) for column in values.T])
    return float((sums**2).sum() - (values**2).sum())
