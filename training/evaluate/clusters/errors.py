"""Standard errors where rows of one cluster depend on each other and clusters do not."""

import numpy as np


def numbered(clusters: np.ndarray) -> np.ndarray:
    """Cluster numbers (n,) from 0 on, without gaps."""
    return np.asarray(np.unique(clusters, return_inverse=True)[1])


def picked(clusters: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    """The clusters of these rows, by their places or a mask; None where every row is its own."""
    return None if clusters is None else clusters[rows]


def cluster_sums(deviations: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """The sum (G,) of deviations (n,) over each cluster."""
    return np.bincount(numbered(clusters), deviations)


def standard_error(deviations: np.ndarray, clusters: np.ndarray) -> float:
    """Of the mean of values whose deviations from it are given (n,): √(G/(G − 1) Σ_g (Σ_{i∈g} d_i)²) / n.

    The sandwich over cluster sums with its correction for few clusters (Liang & Zeger, 1986; Cameron & Miller, 2015,
    section II.C): whatever the dependence within clusters. NaN with fewer than two.
    """
    sums = cluster_sums(deviations, clusters)
    if len(sums) < 2:
        return float("nan")
    return float(np.sqrt(len(sums) / (len(sums) - 1) * (sums**2).sum()) / len(deviations))


def effective_rows(held: np.ndarray, clusters: np.ndarray) -> float:
    """How many independent rows would tell a share of True (n,) as sharply: n over the design effect, at most n.

    Where all or none are True the clusters are counted (Kish, 1965; Korn & Graubard, 1998).
    """
    p, rows = float(held.mean()), len(held)
    error = standard_error(held - p, clusters)
    if not error > 0:
        return float(len(np.unique(clusters)))
    return min(float(rows), p * (1 - p) / error**2)


def drawn_rows(clusters: np.ndarray | None, rows: int, draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each row counts (draws, rows) in bootstrap samples of rows, or of whole clusters."""
    number = np.arange(rows) if clusters is None else numbered(clusters)
    count = int(number.max()) + 1
    return rng.multinomial(count, np.full(count, 1 / count), draws).astype(float)[:, number]
