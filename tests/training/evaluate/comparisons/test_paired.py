"""Holm's procedure from its definition, and the difference of two calibration errors on the same rows."""

import numpy as np
import pytest

from training.evaluate.calibration_errors import smooth_error
from training.evaluate.comparisons.paired import error_difference, holm
from training.evaluate.scores import score


def test_holm_by_its_definition() -> None:
    assert holm([0.04, 0.01, 0.03, 0.005]) == 2
    assert holm([0.001, 0.5, 0.5]) == 1
    assert holm([0.02, 0.02]) == 2
    assert holm([0.04, 0.06]) == 0
    assert holm([]) == 0


def test_holm_errs_in_one_family_of_twenty() -> None:
    p = np.random.default_rng(3).random((4000, 30))
    assert np.mean([holm(family) > 0 for family in p]) == pytest.approx(0.05, abs=0.012)


def test_a_change_of_the_smooth_error_is_that_of_the_scores_and_of_the_same_rows() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=400) * 2
    labels = (rng.random(400) < 1 / (1 + np.exp(-logits))).astype(int)
    good, bad = 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(-2 * logits))
    found, by_pair = error_difference(smooth_error, [bad], [good], [labels], rng)
    each = [score(p, labels, ("no", "yes"), np.random.default_rng(1)).smooth_error.value.value for p in (bad, good)]
    assert found.value == pytest.approx(each[0] - each[1], abs=1e-9)
    assert by_pair == [found.value]
    assert found.low > 0
    same, _ = error_difference(smooth_error, [good], [good], [labels], rng)
    assert (same.value, same.standard_error, same.high) == (0, 0, 0)
    # Paired: the difference of two errors of the same rows is surer than either of them.
    drawn, order = rng.multinomial(400, np.full(400, 1 / 400), 200).astype(float), np.argsort(bad)
    alone = smooth_error(bad[order], labels[order][None].astype(float), drawn)
    slightly = 1 / (1 + np.exp(-2.02 * logits))
    assert error_difference(smooth_error, [slightly], [bad], [labels], rng)[0].standard_error < alone.std() / 5
