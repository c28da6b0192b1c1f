"""The mean and the spread between seeds, against statistics by hand."""

import numpy as np
import pytest

from training.evaluate.scores import score
from training.evaluate.seeds import compare_seeds
from training.evaluate.several_classes.scores import score_classes


def test_mean_and_standard_deviation_are_over_the_seeds_and_the_first_serves() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 120)
    each = [np.clip(0.5 + 0.3 * (labels - 0.5) + rng.normal(size=120) / 6, 0.02, 0.98) for _ in range(3)]
    scores = {seed: score(p, labels, ("no", "yes"), np.random.default_rng(0)) for seed, p in enumerate(each, 7)}
    seeds = compare_seeds(scores)
    assert seeds is not None
    assert (seeds.serves, [one.seed for one in seeds.each]) == (7, [7, 8, 9])
    losses = [-np.log(np.where(labels == 1, p, 1 - p)).mean() for p in each]
    assert [one.log_loss for one in seeds.each] == pytest.approx(losses)
    assert (seeds.log_loss.mean, seeds.log_loss.sd) == pytest.approx((np.mean(losses), np.std(losses, ddof=1)))
    squares = [((p - labels) ** 2).mean() for p in each]
    assert (seeds.brier.mean, seeds.brier.sd) == pytest.approx((np.mean(squares), np.std(squares, ddof=1)))
    right = [((p >= 0.5) == labels).mean() for p in each]
    assert (seeds.accuracy.mean, seeds.accuracy.sd) == pytest.approx((np.mean(right), np.std(right, ddof=1)))
    errors = [one.calibration_error.value.value for one in scores.values()]
    assert seeds.calibration_error.mean == pytest.approx(np.mean(errors))
    assert seeds.each[1].calibration_error == scores[8].calibration_error
    assert seeds.top_label_error is None


def test_of_several_classes_the_errors_are_classwise_and_of_the_top_label() -> None:
    rng = np.random.default_rng(1)
    labels, names = np.arange(90) % 3, ("a", "b", "c")
    scores = {}
    for seed in range(2):
        p = np.exp(np.eye(3)[labels] + rng.normal(size=(90, 3)))
        scores[seed] = score_classes(p / p.sum(axis=1, keepdims=True), labels, names, rng)
    seeds = compare_seeds(scores)
    assert seeds is not None
    assert seeds.top_label_error is not None
    tops = [one.top_label_error.value.value for one in scores.values()]
    assert seeds.top_label_error.mean == pytest.approx(np.mean(tops))
    assert seeds.calibration_error.mean == pytest.approx(
        np.mean([one.classwise_error.value.value for one in scores.values()])
    )
    assert seeds.each[0].auc == pytest.approx(np.mean([one.value for one in scores[0].auc.values()]))


def test_one_seed_has_no_spread() -> None:
    p = np.linspace(0.1, 0.9, 40)
    assert compare_seeds({0: score(p, np.arange(40) % 2, ("no", "yes"), np.random.default_rng(0))}) is None
