"""Cluster-robust standard errors: by hand, against a regression's sandwich, and by what their intervals hold."""

import numpy as np
import pytest
from scipy.stats import t

from models.calibration.logit import sigmoid
from training.evaluate.clusters.errors import drawn_rows, effective_rows, standard_error
from training.evaluate.estimates import Estimate, exact_proportion, mean, proportion, roc_auc
from training.promote.noninferiority import mean_bound

Sample = tuple[np.ndarray, np.ndarray, np.ndarray]


def drawn(rng: np.random.Generator, clusters: int) -> Sample:
    """Calibrated probabilities of half of what decides, labels and clusters: the other half is the cluster's own."""
    cluster = np.repeat(np.arange(clusters), rng.integers(1, 12, clusters))
    known, unknown = rng.normal(size=clusters)[cluster], rng.normal(size=clusters)[cluster]
    y = (known + unknown + 0.5 * rng.normal(size=len(cluster)) > 0).astype(int)
    return sigmoid(1.5 * known), y, cluster


def test_by_hand() -> None:
    """Values 1, 3 | 2 | 6 with the mean 3: sums −2, −1, 3; 3/2 · 14 = 21; √21 / 4."""
    values, clusters = np.array([1.0, 3, 2, 6]), np.array([7, 7, 1, 4])
    found = mean(values, clusters)
    assert found.value == 3
    assert found.standard_error == pytest.approx(np.sqrt(21) / 4)
    assert found.high == pytest.approx(3 + 4.302652729911275 * np.sqrt(21) / 4)
    assert mean_bound(values, clusters, 0.05).standard_error == pytest.approx(found.standard_error)
    assert np.isnan(mean(values, np.zeros(4)).standard_error)
    # Each row its own cluster: the plain error, (n − 1) and all.
    assert mean(values, np.arange(4)).standard_error == pytest.approx(mean(values).standard_error)


def test_it_is_the_sandwich_of_a_regression_on_a_constant() -> None:
    """(XᵀX)⁻¹ (Σ_g X_gᵀ e_g e_gᵀ X_g) (XᵀX)⁻¹ · G/(G − 1), matrices and all (Liang & Zeger, 1986)."""
    rng = np.random.default_rng(0)
    cluster = np.sort(rng.integers(0, 20, 150))
    values = rng.normal(size=20)[cluster] + rng.normal(size=150)
    x, e = np.ones((150, 1)), values - values.mean()
    bread = np.linalg.inv(x.T @ x)
    meat = np.zeros((1, 1))
    for g in np.unique(cluster):
        at = cluster == g
        meat += x[at].T @ np.outer(e[at], e[at]) @ x[at]
    count = len(np.unique(cluster))
    sandwich = bread @ meat @ bread * count / (count - 1)
    assert standard_error(e, cluster) == pytest.approx(float(np.sqrt(sandwich[0, 0])))


def held(estimate: Estimate, truth: float) -> bool:
    return estimate.low <= truth <= estimate.high


def test_intervals_hold_the_truth_where_those_over_rows_do_not() -> None:
    rng = np.random.default_rng(1)
    big = [drawn(rng, 20_000) for _ in range(5)]
    p, y = (np.concatenate([each[part] for each in big]) for part in (0, 1))
    briers, rates, auc = (p - y) ** 2, (p > 0.3) == (y == 1), roc_auc(p, y).value
    runs = 600
    found = np.zeros((7, runs))
    for run in range(runs):
        p, y, cluster = drawn(rng, 60)
        brier, right = (p - y) ** 2, (p > 0.3) == (y == 1)
        for place, (estimate, truth) in enumerate((
            (mean(brier, cluster), briers.mean()), (mean(brier), briers.mean()),
            (proportion(right, cluster), rates.mean()), (exact_proportion(right, cluster), rates.mean()),
            (proportion(right), rates.mean()), (roc_auc(p, y, cluster), auc), (roc_auc(p, y), auc),
        )):  # fmt: skip
            found[place, run] = held(estimate, float(truth))
    shares = found.mean(axis=1)
    # Means of ratios over clusters of random size lose a point or two; rows alone lose many.
    for robust in (0, 2, 3, 5):
        assert 0.92 <= shares[robust] <= 0.99, shares
    for naive in (1, 4, 6):
        assert shares[naive] < 0.85, shares


def test_effective_rows() -> None:
    held = np.array([True, True, False, False, True, True])
    assert effective_rows(held, np.arange(6)) == pytest.approx(5)
    # Three clusters of two equal rows: as 2 of 3, which the correction counts as 2.
    assert effective_rows(held, np.array([0, 0, 1, 1, 2, 2])) == pytest.approx(2)
    assert effective_rows(np.ones(6, bool), np.array([0, 0, 1, 1, 2, 2])) == 3
    none = exact_proportion(np.zeros(6, bool), np.array([0, 0, 1, 1, 2, 2]))
    assert none.value == none.low == 0
    assert none.high > exact_proportion(np.zeros(6, bool)).high
    factor = (t.ppf(0.975, 5) / t.ppf(0.975, 2)) ** 2
    assert none.high == pytest.approx(1 - 0.025 ** (1 / (3 * factor)))


def test_a_bootstrap_draws_whole_clusters() -> None:
    cluster = np.array([0, 0, 1, 2, 2, 2])
    counts = drawn_rows(cluster, 6, 50, np.random.default_rng(0))
    assert (counts[:, 0] == counts[:, 1]).all()
    assert (counts[:, 3] == counts[:, 5]).all()
    assert (counts[:, [0, 2, 3]].sum(axis=1) == 3).all()
    assert (drawn_rows(None, 6, 50, np.random.default_rng(0)).sum(axis=1) == 6).all()
