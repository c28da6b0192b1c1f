"""Subgroups of several classes: the test of their shares holds its level, and each group is scored by its own rows."""

import numpy as np
import pytest
from scipy.stats import norm

from tests.training.evaluate.several_classes.test_scores import CLASSES, sample
from training.calibrate.maps import log_losses
from training.evaluate.several_classes.subgroups import score_class_subgroups, shares_p_value


def test_the_test_of_shares_holds_its_level_and_finds_what_is_off() -> None:
    p_values = np.array([shares_p_value(*sample(120, seed)) for seed in range(400)])
    assert np.mean(p_values < 0.05) == pytest.approx(0.05, abs=0.035)
    p, y = sample(120)
    assert shares_p_value(p, np.where(y == 1, 0, y)) < 1e-6


def test_of_two_classes_it_is_the_normal_one() -> None:
    q = np.random.default_rng(0).uniform(0.1, 0.9, 80)
    y = (np.random.default_rng(1).random(80) < q).astype(int)
    z = (y - q).sum() / np.sqrt((q * (1 - q)).sum())
    assert shares_p_value(np.stack([1 - q, q], axis=1), y) == pytest.approx(2 * norm.sf(abs(z)))


def test_a_group_is_scored_by_its_own_rows() -> None:
    p, y = sample(200)
    rows = np.arange(20, 90)
    (group,) = score_class_subgroups({("sex", "male"): rows}, y, p, p, CLASSES, np.random.default_rng(0))
    assert (group.title, group.rows) == ("sex: male", 70)
    assert group.calibrated.log_loss.value == pytest.approx(log_losses(p[rows], y[rows]).mean())
    assert group.observed["green"].value == pytest.approx((y[rows] == 1).mean())
    assert sum(group.calibrated.expected.values()) == pytest.approx(1)
    assert group.calibrated.top_label_error.noise_floor > 0
