"""Scores against scikit-learn and by hand; tests hold their level under calibration and see known faults."""

import numpy as np
import pytest
from scipy.stats import chi2
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

from models.calibration.logit import sigmoid
from training.evaluate.calibration_errors import murphy
from training.evaluate.estimates import Estimate, reflected
from training.evaluate.scores import (
    CalibrationError,
    against_noise,
    draws_if_calibrated,
    hosmer_lemeshow,
    measures,
    resampled,
    score,
    spiegelhalter,
)  # fmt: skip

CLASSES = ("stays", "leaves")
ERRORS = ("calibration_error", "debiased_squared_error", "sweep_error", "smooth_error")


def truth(rows: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    p = sigmoid(rng.normal(-0.5, 1.5, rows))
    return p, (rng.random(rows) < p).astype(int)


def test_scores_equal_scikit_learn() -> None:
    p, y = truth()
    scores = score(p, y, CLASSES, np.random.default_rng(1))
    assert scores.log_loss.value == pytest.approx(log_loss(y, p))
    assert scores.brier.value == pytest.approx(brier_score_loss(y, p))
    assert scores.auc.value == pytest.approx(roc_auc_score(y, p))
    assert scores.recall["leaves"].value == pytest.approx((p[y == 1] >= 0.5).mean())
    assert scores.log_loss.low < scores.log_loss.value < scores.log_loss.high


def test_the_order_of_rows_and_the_seed_of_another_score_change_nothing() -> None:
    p, y = truth(400)
    p = np.round(p, 2).clip(0.01, 0.99)
    order = np.random.default_rng(0).permutation(400)
    here, there = (score(p[rows], y[rows], CLASSES, np.random.default_rng(1)) for rows in (np.arange(400), order))
    for name in ERRORS:
        assert getattr(here, name).value.value == pytest.approx(getattr(there, name).value.value), name


def test_a_calibrated_model_expects_its_own_entropy_and_variance() -> None:
    p, y = truth()
    scores = score(p, y, CLASSES, np.random.default_rng(2))
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).mean()
    assert scores.log_loss_if_calibrated.expected == pytest.approx(entropy, abs=0.002)
    assert scores.brier_if_calibrated.expected == pytest.approx((p * (1 - p)).mean(), abs=0.001)
    assert scores.brier_if_calibrated.p_value == pytest.approx(scores.spiegelhalter_p, abs=0.05)
    sharpened = score(sigmoid(2 * np.log(p / (1 - p))), y, CLASSES, np.random.default_rng(2))
    assert sharpened.log_loss_if_calibrated.p_value < 0.01


def test_murphys_parts_make_up_the_brier_score() -> None:
    p, y = truth(700)
    scores = score(p, y, CLASSES, np.random.default_rng(3))
    parts = scores.brier_parts
    total = parts.reliability.value.value - parts.resolution.value + parts.uncertainty.value + parts.within_bins.value
    assert total == pytest.approx(scores.brier.value, abs=1e-12)
    assert parts.reliability.noise_floor > 0


def test_p_values_are_uniform_under_calibration() -> None:
    """Of 1,500 label vectors drawn from the probabilities, each against the noise that a report would show."""
    p, rng = np.sort(truth(400)[0]), np.random.default_rng(6)
    null = draws_if_calibrated(measures, p, rng)
    found = measures(p, (rng.random((1500, 400)) < p).astype(float), np.ones((1, 400)))
    for name in ("ece", "debiased", "sweep", "smooth", "reliability", "hosmer_lemeshow"):
        p_values = np.array([against_noise(Estimate(one, 0, 0, 0), null[name]).p_value for one in found[name]])
        for level in (0.05, 0.25, 0.5, 0.75):
            assert (p_values <= level).mean() == pytest.approx(level, abs=4 * np.sqrt(level / 1000)), name
    assert abs(found["debiased"].mean()) < 4 * found["debiased"].std() / np.sqrt(1500)
    assert (chi2.sf(found["hosmer_lemeshow"], 10) <= 0.05).mean() == pytest.approx(0.05, abs=0.02)
    z = np.array([spiegelhalter(p, y)[1] for y in (rng.random((1500, 400)) < p)])
    assert (z <= 0.05).mean() == pytest.approx(0.05, abs=0.02)


def test_degrees_of_freedom_are_the_number_of_bins() -> None:
    """The statistic's mean under calibration is the number of bins, not two fewer."""
    p = np.sort(truth(1000)[0])
    y = (np.random.default_rng(4).random((4000, 1000)) < p).astype(float)
    statistics = hosmer_lemeshow(p, y)
    assert statistics.mean() == pytest.approx(10, abs=0.3)
    few = np.repeat([0.2, 0.5, 0.9], 100)
    assert score(few, (np.arange(300) % 2), CLASSES, np.random.default_rng(0)).hosmer_lemeshow.degrees_of_freedom == 3


def test_hosmer_lemeshow_by_hand() -> None:
    p, y = np.repeat([0.2, 0.6], 10), np.array([[1.0] * 4 + [0] * 6 + [1] * 6 + [0] * 4])
    assert hosmer_lemeshow(p, y)[0] == pytest.approx((4 - 2) ** 2 / (10 * 0.16) + 0)


def test_spiegelhalter_by_hand_and_on_overconfidence() -> None:
    z, p_value = spiegelhalter(np.array([0.2, 0.9]), np.array([1.0, 1.0]))
    assert z == pytest.approx((0.8 * 0.6 + 0.1 * -0.8) / np.sqrt(0.36 * 0.16 + 0.64 * 0.09))
    assert 0 < p_value < 1
    assert spiegelhalter(np.full(4, 0.5), np.ones(4)) == (0.0, 1.0)
    p, y = truth()
    assert spiegelhalter(p, y)[1] > 0.01
    assert spiegelhalter(sigmoid(2 * np.log(p / (1 - p))), y)[1] < 1e-6


@pytest.mark.parametrize("name", ERRORS)
def test_a_bent_model_is_outside_its_noise_floor(name: str) -> None:
    for seed in range(2):
        p, y = truth(900, seed)
        distorted: CalibrationError = getattr(
            score(sigmoid(0.4 * np.log(p / (1 - p))), y, CLASSES, np.random.default_rng(2)), name
        )
        assert distorted.p_value < 0.01
        assert distorted.value.value > distorted.noise_95 > distorted.noise_floor


def test_the_interval_of_the_calibration_error_holds_the_true_one() -> None:
    """Over samples of a model distorted in a known way, about as often as it says."""
    rng = np.random.default_rng(5)
    eta = sigmoid(rng.normal(-0.5, 1.5, 200_000))
    distorted = sigmoid(0.4 * np.log(eta / (1 - eta)))
    wanted = np.abs(distorted - eta).mean()
    held = 0
    for _ in range(100):
        rows = rng.choice(len(eta), 600, replace=False)
        p, y = (
            distorted[rows][np.argsort(distorted[rows])],
            (rng.random(600) < eta[rows]).astype(float)[np.argsort(distorted[rows])],
        )
        estimate = float(murphy(p, y[None], np.ones((1, 600)))["ece"][0])
        interval = reflected(estimate, resampled(murphy, p, y, rng)["ece"], bounds=(0.0, np.inf))
        held += interval.low <= wanted <= interval.high
    # Of 100 at 95 % fewer would hold it with one seed in 7,000.
    assert held >= 86
