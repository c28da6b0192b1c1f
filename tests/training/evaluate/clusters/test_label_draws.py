"""Labels drawn as a calibrated model's would fall: their probabilities, their correlation, and the level of tests."""

import numpy as np
import pytest
from scipy.stats import beta

from models.calibration.logit import sigmoid, softmax
from training.evaluate.calibration_errors import murphy
from training.evaluate.clusters.dependence import Dependence
from training.evaluate.clusters.label_draws import LabelDraws
from training.evaluate.scores import draws_if_calibrated, score, spiegelhalter
from training.evaluate.several_classes.subgroups import shares_p_value

CLUSTER = np.repeat(np.arange(80), 6)


def by_text(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Texts of one probability p each, whose share of ones is a draw from a beta law with the mean p and the
    correlation 1/4: calibrated, text by text off."""
    p = rng.uniform(0.1, 0.9, 80)
    rate = beta.rvs(3 * p, 3 * (1 - p), random_state=rng)
    return p[CLUSTER], (rng.random(len(CLUSTER)) < rate[CLUSTER]).astype(int)


def test_labels_keep_their_probabilities_and_have_the_correlation_of_the_residuals() -> None:
    rng = np.random.default_rng(0)
    estimates = [LabelDraws(*by_text(rng), CLUSTER).correlation for _ in range(60)]
    assert np.mean(estimates) == pytest.approx(0.25, abs=4 * np.std(estimates) / np.sqrt(60))
    p, y = by_text(rng)
    draws = LabelDraws(p, y, CLUSTER)
    labels = draws(rng, 20_000) < p
    assert labels.mean(axis=0) == pytest.approx(p, abs=0.02)
    residual = (labels[:, 0] - p[0]) * (labels[:, 1] - p[1])
    assert residual.mean() == pytest.approx(draws.correlation * p[0] * (1 - p[0]), abs=0.01)
    assert np.corrcoef(labels[:, 5], labels[:, 6])[0, 1] == pytest.approx(0, abs=0.03)


def test_independent_labels_have_next_to_none_and_equal_ones_all() -> None:
    rng, p = np.random.default_rng(1), np.random.default_rng(2).uniform(0.1, 0.9, len(CLUSTER))
    independent = [LabelDraws(p, (rng.random(len(p)) < p).astype(int), CLUSTER).correlation for _ in range(50)]
    assert np.mean(independent) < 0.04
    together = [
        LabelDraws(p, (rng.random(80)[CLUSTER] < p).astype(int), CLUSTER).correlation for _ in range(50)
    ]  # fmt: skip
    assert np.mean(together) > 0.9
    classes = softmax(rng.normal(size=(80, 3)))[CLUSTER]
    same = (rng.random((80, 1))[CLUSTER] > classes.cumsum(axis=1)).sum(axis=1)
    assert LabelDraws(classes, same, CLUSTER).correlation > 0.8
    assert LabelDraws(p).correlation == 0


def test_tests_of_calibration_hold_their_level_where_labels_of_a_text_fall_together() -> None:
    rng, runs = np.random.default_rng(3), 200
    clustered, naive = np.zeros((2, runs)), np.zeros((2, runs))
    for run in range(runs):
        p, y = by_text(rng)
        order = np.argsort(p, kind="stable")
        p, y, cluster = p[order], y[order].astype(float), CLUSTER[order]
        observed = murphy(p, y[None], np.ones((1, len(p))))["ece"][0]
        for found, clusters in ((clustered, cluster), (naive, None)):
            uniform = LabelDraws(p, y, clusters)
            null = draws_if_calibrated(murphy, p, rng, uniform)["ece"]
            found[:, run] = (1 + (null >= observed).sum()) / (1 + len(null)), spiegelhalter(p, y, clusters)[1]
    for level in (0.05, 0.2):
        spread = 4 * np.sqrt(level * (1 - level) / runs)
        assert ((clustered <= level).mean(axis=1) <= level + spread).all()
    assert ((clustered <= 0.2).mean(axis=1) > 0.08).all(), "and it is not so by never rejecting"
    assert (naive[0] <= 0.05).mean() > 0.3


def test_shares_of_classes_are_tested_over_clusters() -> None:
    rng, found = np.random.default_rng(4), []
    for _ in range(400):
        p = softmax(rng.normal(size=(80, 3)))[CLUSTER]
        y = (rng.random((80, 1))[CLUSTER] > p.cumsum(axis=1)).sum(axis=1)
        found.append([shares_p_value(p, y, CLUSTER), shares_p_value(p, y)])
    over_clusters, over_rows = (np.array(found) < 0.05).mean(axis=0)
    assert over_clusters <= 0.05 + 4 * np.sqrt(0.05 * 0.95 / 400)
    assert over_rows > 0.2


def test_rows_depend_by_unit_and_by_text_and_not_where_little_is_said() -> None:
    units = np.array([0, 0, *range(1, 199)])
    texts = [f"text {at // 2}" for at in range(1, 201)]
    found = Dependence.of(units, texts)
    assert found.errors is not None
    assert found.tests is not None
    assert len(np.unique(found.errors)) == 199
    # Rows 0 and 1 are one unit, 1 and 2 of one text.
    assert len(set(found.tests[:3])) == 1
    assert found.tests[3] == found.tests[4] != found.tests[5]
    assert Dependence.of(np.arange(200), [f"text {at}" for at in range(200)]) == Dependence()
    assert Dependence.of(np.arange(200), [f"text {at % 5}" for at in range(200)]) == Dependence()
    counts = found.counts(sigmoid(np.zeros(200)), np.arange(200) % 2)
    assert counts is not None
    assert (counts.standard_errors, counts.clusters) == ("cluster-robust", 199)
    assert Dependence().counts(np.zeros(2), np.zeros(2)) is None


def test_scores_of_rows_twice_are_those_of_the_rows_once(few_resamples: None) -> None:
    """Errors over clusters of two equal rows are those of the rows themselves, where over rows they are smaller."""
    rng = np.random.default_rng(5)
    p = sigmoid(rng.normal(size=300))
    y = (rng.random(300) < p).astype(int)
    once = score(p, y, ("no", "yes"), np.random.default_rng(0))
    twice, number = np.tile(p, 2), np.tile(np.arange(300), 2)
    found = score(twice, np.tile(y, 2), ("no", "yes"), np.random.default_rng(0), Dependence(number, number))
    plain = score(twice, np.tile(y, 2), ("no", "yes"), np.random.default_rng(0))
    for name in ("log_loss", "brier", "auc"):
        ours, theirs, naive = (getattr(each, name).standard_error for each in (found, once, plain))
        assert ours == pytest.approx(theirs, rel=0.01)
        assert naive == pytest.approx(theirs / np.sqrt(2), rel=0.01)
    assert found.calibration_error.noise_floor == pytest.approx(once.calibration_error.noise_floor, rel=0.15)
    assert plain.calibration_error.noise_floor < 0.85 * once.calibration_error.noise_floor
    assert found.spiegelhalter_p == pytest.approx(once.spiegelhalter_p, abs=0.1)
