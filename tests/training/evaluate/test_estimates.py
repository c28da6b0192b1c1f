"""Intervals against scikit-learn, closed forms and their own coverage."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from training.evaluate.estimates import mean, proportion, reflected, roc_auc


def test_mean_by_hand() -> None:
    found = mean(np.array([1.0, 2, 3, 6]))
    assert (found.value, found.standard_error) == (3, pytest.approx(np.sqrt(14 / 3 / 4)))
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.standard_error, rel=1e-4)
    assert np.isnan(mean(np.array([])).value)
    assert np.isnan(mean(np.array([1.0])).standard_error)


def test_wilsons_interval_by_its_quadratic() -> None:
    """Its ends p solve |p̂ − p| = 1.96 √(p (1 − p) / n); at 0 of n the upper end is z²/(n + z²)."""
    found = proportion(np.arange(50) < 13)
    for end in (found.low, found.high):
        assert abs(0.26 - end) == pytest.approx(1.959964 * np.sqrt(end * (1 - end) / 50), rel=1e-5)
    none = proportion(np.zeros(20, bool))
    assert (none.value, none.low) == (0, 0)
    assert none.high == pytest.approx(3.841459 / 23.841459, rel=1e-5)


def test_auc_is_scikit_learns_and_delongs_error_is_the_bootstraps() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random(300) < 0.4).astype(int)
    p = np.round(1 / (1 + np.exp(-(rng.normal(size=300) + 1.2 * y))), 2)
    found = roc_auc(p, y)
    assert found.value == pytest.approx(roc_auc_score(y, p))
    draws = rng.integers(0, 300, (1000, 300))
    assert found.standard_error == pytest.approx(np.std([roc_auc_score(y[d], p[d]) for d in draws]), rel=0.1)
    assert np.isnan(roc_auc(p, np.ones(300)).value)


def test_reflection_takes_out_the_bias_that_resampling_adds() -> None:
    """|mean| of normals, an estimate with an error's bias: the interval holds the truth as often as it says."""
    assert reflected(2.0, np.array([2.0, 3.0, 4.0] * 100)).high == pytest.approx(2.0)
    assert reflected(2.0, np.array([2.0, 3.0, 4.0] * 100)).low == pytest.approx(0.0)
    assert reflected(2.0, np.array([2.0, 3.0, 4.0] * 100), bounds=(1.0, np.inf)).low == 1.0
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        x = rng.normal(0.5, 1, 60)
        again = np.abs(x[rng.integers(0, 60, (400, 60))].mean(axis=1))
        interval = reflected(abs(x.mean()), again, bounds=(0.0, np.inf))
        held += interval.low <= 0.5 <= interval.high
    assert 0.91 <= held / 400 <= 0.98
