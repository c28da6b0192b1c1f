"""What is promised of three and five classes, by simulation from probabilities that are known."""

import math

import numpy as np
import pytest

from models.calibration.logit import calibration_scores, softmax
from models.calibration.venn_abers import VennAbers, venn_abers_interval
from training.calibrate.record import fit_intervals
from training.calibrate.sets import fit_sets

CLASSES = (3, 5)


def drawn(rng: np.random.Generator, rows: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits (n, K), the true probabilities (n, K), which are no temperature's of them, and labels (n,)."""
    logits = rng.normal(np.linspace(0.6, -0.6, classes), 1.4, (rows, classes))
    p = softmax(1.5 * np.tanh(logits) + np.linspace(0, 0.5, classes))
    return logits, p, (rng.random((rows, 1)) > p.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)


@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_class_of_each_classs_rows(classes: int, coverage: float) -> None:
    rng = np.random.default_rng(classes)
    held: list[list[float]] = [[] for _ in range(classes)]
    smallest = 10**9
    for _ in range(150):
        logits, _, y = drawn(rng, 250, classes)
        sets = fit_sets(softmax(logits), y, coverage)
        smallest = min(smallest, int(np.bincount(y, minlength=classes).min()))
        new, _, labels = drawn(rng, 1000, classes)
        inside = sets.sets(softmax(new))
        for number in range(classes):
            held[number].append(inside[labels == number, number].mean())
    for shares in held:
        error = np.std(shares, ddof=1) / math.sqrt(len(shares))
        # Between the nominal coverage and what one rank more of the smallest class may add.
        assert coverage - 4 * error <= np.mean(shares) <= coverage + 1 / (smallest + 1) + 4 * error


@pytest.mark.parametrize("classes", CLASSES)
def test_of_each_class_the_pair_holds_a_calibrated_probability(classes: int) -> None:
    """E[(y − p_y) 1{p_y in a tenth}] = 0 for each tenth, p_y the end that the label chooses: P(y = 1 | p_y) = p_y."""
    rng = np.random.default_rng(7)
    gaps = np.zeros((80, classes, 10))
    for run in range(len(gaps)):
        logits, _, y = drawn(rng, 120, classes)
        predictors = fit_intervals(calibration_scores(logits), y)
        assert isinstance(predictors, tuple)
        assert len(predictors) == classes
        new, _, labels = drawn(rng, 600, classes)
        p0, p1 = venn_abers_interval(predictors, calibration_scores(new))
        assert p0.shape == p1.shape == (600, classes)
        assert (p0 <= p1).all()
        for number in range(classes):
            one = labels == number
            chosen = np.where(one, p1[:, number], p0[:, number])
            tenth = np.minimum((chosen * 10).astype(int), 9)
            gaps[run, number] = np.bincount(tenth, one - chosen, minlength=10) / 600
    errors = gaps.std(axis=0, ddof=1) / math.sqrt(len(gaps))
    assert (np.abs(gaps.mean(axis=0)) <= 4.5 * errors + 1e-12).all()


def test_of_two_classes_the_pair_is_of_the_positive_one() -> None:
    logits, _, y = drawn(np.random.default_rng(0), 200, 3)
    two = np.minimum(y, 1)
    predictor = fit_intervals(calibration_scores(logits[:, :2]), two)
    assert isinstance(predictor, VennAbers)
    p0, p1 = venn_abers_interval(predictor, calibration_scores(logits[:, :2]))
    assert p0.shape == p1.shape == (200,)


def test_a_class_of_too_few_rows_is_in_every_set_and_its_pair_begins_at_0() -> None:
    logits, _, y = drawn(np.random.default_rng(1), 300, 3)
    y[y == 2] = 1
    y[:4] = 2
    sets = fit_sets(softmax(logits), y, 0.9)
    assert sets.thresholds[2] == 1.0
    assert sets.sets(softmax(logits))[:, 2].all()
    y[:4] = 0
    predictors = fit_intervals(calibration_scores(logits), y)
    p0, p1 = venn_abers_interval(predictors, calibration_scores(logits))
    assert (p0[:, 2] == 0).all()
    assert (p1[:, 2] > 0).all()
