"""Scores of several classes: by hand, by scikit-learn, against the scores of two, and by simulated calibration."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, roc_auc_score

from training.calibrate.maps import log_losses
from training.evaluate.calibration_errors import murphy
from training.evaluate.several_classes.scores import (
    ClassScores,
    binned_error,
    brier_losses,
    draws_if_calibrated,
    measures,
    score_classes,
    top_classes,
)

CLASSES = ("red", "green", "blue")


def sample(rows: int, seed: int = 0, sharpness: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 3), and labels drawn from them raised to a power of ``sharpness``."""
    rng = np.random.default_rng(seed)
    p = rng.dirichlet((1.0, 0.8, 0.5), rows).clip(1e-6)
    p /= p.sum(axis=1, keepdims=True)
    true = p**sharpness / (p**sharpness).sum(axis=1, keepdims=True)
    return p, (rng.random(rows)[:, None] > true.cumsum(axis=1)[:, :-1]).sum(axis=1)


@pytest.fixture(scope="module")
def scored() -> tuple[np.ndarray, np.ndarray, ClassScores]:
    p, y = sample(900)
    return p, y, score_classes(p, y, CLASSES, np.random.default_rng(1))


def test_equal_to_scikit_learn(scored: tuple[np.ndarray, np.ndarray, ClassScores]) -> None:
    p, y, scores = scored
    assert scores.log_loss.value == pytest.approx(log_loss(y, p))
    assert scores.brier.value == pytest.approx(((p - np.eye(3)[y]) ** 2).sum(axis=1).mean())
    assert scores.accuracy.value == pytest.approx(accuracy_score(y, p.argmax(axis=1)))
    assert [list(row.values()) for row in scores.confusion.values()] == confusion_matrix(y, p.argmax(axis=1)).tolist()
    for k, name in enumerate(CLASSES):
        assert scores.auc[name].value == pytest.approx(roc_auc_score(y == k, p[:, k]))
        assert scores.recall[name].value == pytest.approx((p.argmax(axis=1) == k)[y == k].mean())


def test_the_errors_of_a_class_are_those_of_two_classes(scored: tuple[np.ndarray, np.ndarray, ClassScores]) -> None:
    p, y, scores = scored
    for k, name in enumerate(CLASSES):
        expected = murphy(p[:, k], (y == k)[None].astype(float), np.ones((1, len(y))))["ece"][0]
        assert scores.calibration_error[name].value.value == pytest.approx(expected)
    each = [error.value.value for error in scores.calibration_error.values()]
    assert scores.classwise_error.value.value == pytest.approx(np.mean(each))


def test_an_error_by_hand() -> None:
    p = np.array([0.12, 0.18, 0.55, 0.95])
    held = np.array([[False, True, True, False]])
    assert binned_error(p, held, np.ones((1, 4))) == pytest.approx([(0.7 + 0.45 + 0.95) / 4])
    assert binned_error(p, held, np.array([[2.0, 0.0, 1.0, 1.0]])) == pytest.approx([(0.24 + 0.45 + 0.95) / 4])


def test_of_two_classes_brier_is_twice_and_the_rest_the_same() -> None:
    q, y = np.random.default_rng(0).random(50), np.random.default_rng(1).integers(0, 2, 50)
    p = np.stack([1 - q, q], axis=1)
    assert brier_losses(p, y) == pytest.approx(2 * (q - y) ** 2)
    assert log_losses(p, y) == pytest.approx(log_losses(q, y))
    found = measures(p, y[None], np.ones((1, 50)))
    ece = murphy(q, y[None].astype(float), np.ones((1, 50)))["ece"]
    assert found["class 1"] == pytest.approx(ece)


def test_of_equal_probabilities_the_later_class_is_the_outcome() -> None:
    assert top_classes(np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.6, 0.2, 0.2]])).tolist() == [1, 2, 0]


def test_labels_are_drawn_from_the_probabilities() -> None:
    """The null's mean log loss is the entropy, and the expected Brier score is 1 − Σ p²."""
    p, _ = sample(400)
    null = draws_if_calibrated(p, np.random.default_rng(0))
    spread = null["log_loss"].std() / np.sqrt(len(null["log_loss"]))
    assert null["log_loss"].mean() == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), abs=4 * spread)
    assert null["brier"].mean() == pytest.approx((1 - (p**2).sum(axis=1)).mean(), abs=0.005)


def test_calibrated_ones_are_inside_the_noise_and_others_are_not() -> None:
    p_values = [
        score_classes(*sample(300, seed), CLASSES, np.random.default_rng(seed)).classwise_error.p_value
        for seed in range(40)
    ]
    assert np.mean(np.array(p_values) < 0.05) <= 0.15
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.16)
    wrong = score_classes(*sample(1500, 0, sharpness=0.4), CLASSES, np.random.default_rng(0))
    assert wrong.classwise_error.p_value < 0.01
    assert wrong.top_label_error.p_value < 0.01
    assert wrong.log_loss_if_calibrated.p_value < 0.01
    assert wrong.classwise_error.value.low > wrong.classwise_error.noise_floor


def test_a_class_that_is_not_there_has_no_figure_of_its_own() -> None:
    p, y = sample(60)
    scores = score_classes(p, np.where(y == 2, 0, y), CLASSES, np.random.default_rng(0))
    assert scores.auc["blue"].reason == "the rows are all of one class"
    assert scores.recall["blue"].reason == "no rows"
    assert sum(scores.confusion["blue"].values()) == 0
    assert np.isfinite(scores.calibration_error["blue"].p_value)
