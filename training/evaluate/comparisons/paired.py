"""Two models on the same rows: the difference of their calibration errors, and how many of a family of tests reject."""

from collections.abc import Callable, Sequence

import numpy as np

from training.evaluate.clusters.errors import drawn_rows
from training.evaluate.estimates import Estimate, reflected

RESAMPLES = 1000


def error_difference(
    error: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray],
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    rng: np.random.Generator,
    clusters: np.ndarray | None = None,
) -> tuple[Estimate, list[float]]:
    """Our calibration error minus theirs, averaged over pairs of probabilities (n,), and the difference of each pair.

    ``labels`` (n,) 0/1 are those of each pair, ``error(p, y, w)`` is one of `calibration_errors`. The interval is the
    reflected bootstrap's over rows, or over clusters (n,) of them, each draw the same for all.
    """
    rows = len(labels[0])
    weights = np.vstack([np.ones(rows), drawn_rows(clusters, rows, RESAMPLES, rng)])

    def errors(p: np.ndarray, y: np.ndarray) -> np.ndarray:
        order = np.argsort(p, kind="stable")
        return error(p[order], y[order][None].astype(float), weights[:, order])

    differences = np.array([errors(a, y) - errors(b, y) for a, b, y in zip(ours, theirs, labels, strict=True)])
    observed = differences[:, 0]
    return reflected(float(observed.mean()), differences[:, 1:].mean(axis=0)), observed.tolist()


def one_by_one(p: np.ndarray, labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Probabilities (n, K) and the classes' numbers (n,) → those of each class (n,), and 1 for the rows of it, 0 for
    others (n,); of two classes (n,) they are the positive one's as they stand."""
    if p.ndim == 1:
        return [(p, labels)]
    return [(of_class, (labels == k).astype(int)) for k, of_class in enumerate(p.T)]


def holm(p_values: Sequence[float], level: float = 0.05) -> int:
    """How many of these tests reject with the chance of even one false rejection ≤ ``level`` (Holm, 1979).

    Valid however the tests depend on one another.
    """
    ordered = np.sort(np.asarray(p_values, dtype=float))
    passed = ordered <= level / np.arange(len(ordered), 0, -1)
    return int(np.argmin(np.append(passed, False)))
