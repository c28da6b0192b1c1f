"""Scores against scikit-learn and by hand; verdicts on known truths."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from models.calibration import sigmoid
from models.passenger import LABELS
from training.data import Table
from training.evaluate import ece, nested_evaluation, score


def truth(rows: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = sigmoid(rng.normal(-0.5, 1.5, rows))
    return p, (rng.random(rows) < p).astype(int)


def test_scores_equal_scikit_learn() -> None:
    p, y = truth()
    scores = score(p, y, np.random.default_rng(1))
    assert scores.log_loss.value == pytest.approx(log_loss(y, p))
    assert scores.brier.value == pytest.approx(brier_score_loss(y, p))
    assert scores.auc.value == pytest.approx(roc_auc_score(y, p))
    assert scores.recall[LABELS[1]].value == pytest.approx((p[y == 1] >= 0.5).mean())
    assert scores.log_loss.low < scores.log_loss.value < scores.log_loss.high


def test_calibration_error_by_hand() -> None:
    p, y = np.array([0.05, 0.05, 0.75, 0.75, 1.0]), np.array([0, 1, 1, 1, 1])
    assert ece(p, y) == pytest.approx((abs(1 - 0.1) + abs(2 - 1.5) + 0) / 5)


def test_a_calibrated_model_is_inside_its_noise_floor_and_a_bent_one_is_not() -> None:
    inside, bent = 0, 0
    for seed in range(8):
        p, y = truth(900, seed)
        inside += score(p, y, np.random.default_rng(2)).calibration_error.p_value > 0.05
        bent += score(sigmoid(0.4 * np.log(p / (1 - p))), y, np.random.default_rng(2)).calibration_error.p_value < 0.01
    assert inside >= 6
    assert bent == 8


def test_spiegelhalter_sees_overconfidence() -> None:
    p, y = truth()
    assert score(p, y, np.random.default_rng(3)).spiegelhalter_p > 0.01
    assert score(sigmoid(2 * np.log(p / (1 - p))), y, np.random.default_rng(3)).spiegelhalter_p < 1e-6


def test_nested_evaluation_judges_every_row_by_a_calibration_without_it(table: Table) -> None:
    rng = np.random.default_rng(4)
    z = 2 * (1.8 * rng.normal(size=len(table)) + 1.5 * (table.labels - 0.5))
    folds = rng.integers(0, 4, len(table))
    settings = {"inverse": None, "coverage": 0.9, "seed": 0}
    evaluation, p = nested_evaluation(z, table.labels, folds, table.passengers, **settings)
    assert evaluation["calibrated"].log_loss.value < evaluation["raw"].log_loss.value
    assert evaluation["sets"].overall.value == pytest.approx(0.9, abs=0.04)
    assert evaluation["interval"].outside_by < 0.02
    assert 0.40 < evaluation["logistic_regression"]["scores"].log_loss.value < 0.48
    # The labels of a fold do not reach its own calibrated probabilities.
    changed = np.where(folds == 2, 1 - table.labels, table.labels)
    _, again = nested_evaluation(z, changed, folds, table.passengers, **settings)
    assert np.array_equal(p[folds == 2], again[folds == 2])
    assert not np.array_equal(p[folds != 2], again[folds != 2])
