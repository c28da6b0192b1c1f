"""Paired differences by hand, and the shift that was put in."""

import numpy as np
import pytest

from models.calibration.logit import logit, sigmoid
from models.calibration.maps import Identity
from tests.training.logits import two
from training.evaluate.estimates import Estimate
from training.evaluate.scores import score
from training.loss_study.contrasts import (
    Run,
    averaged,
    logit_shift,
    miscalibration,
    paired,
    paired_calibration_error,
    row_values,
    spread,
    values_of,
)

CLASSES = ("stays", "leaves")


def run(raw: np.ndarray, calibrated: np.ndarray | None = None) -> Run:
    return Run(two(logit(raw)), raw if calibrated is None else calibrated)


def test_seeds_are_averaged_before_the_error_over_rows() -> None:
    found = spread([np.array([1.0, 2, 3, 6]), np.array([3.0, 2, 3, 2])])
    rows = np.array([2.0, 2, 3, 4])
    assert found.over_rows.value == pytest.approx(2.75)
    assert found.over_rows.standard_error == pytest.approx(rows.std(ddof=1) / 2)
    assert found.by_seed == (3.0, 2.5)
    assert found.seeds_sd == pytest.approx(0.5 / np.sqrt(2))
    assert np.isnan(spread([np.array([1.0, 2])]).seeds_sd)


def test_estimates_that_are_no_means_are_averaged_as_they_are() -> None:
    found = averaged([Estimate(0.8, 0.02, 0.76, 0.84), Estimate(0.9, 0.01, 0.88, 0.92)])
    assert found.over_rows == Estimate(*(pytest.approx(value) for value in (0.85, 0.015, 0.82, 0.88)))
    assert found.by_seed == (0.8, 0.9)


def test_row_values_by_hand() -> None:
    found = row_values(np.array([0.9, 0.5, 0.2, 0.4]), np.array([1, 0, 0, 1]), CLASSES)
    assert found["log_loss"] == pytest.approx(-np.log([0.9, 0.5, 0.8, 0.4]))
    assert found["brier"] == pytest.approx([0.01, 0.25, 0.04, 0.36])
    assert found["accuracy"].tolist() == [1, 0, 1, 0]
    assert found["recall_leaves"].tolist() == [1, 0]
    assert found["recall_stays"].tolist() == [0, 1]


def test_differences_are_paired_over_the_seeds_that_both_have() -> None:
    y = np.array([1, 0, 1])
    ours = {0: run(np.array([0.9, 0.2, 0.6])), 1: run(np.array([0.8, 0.3, 0.3]))}
    theirs = {1: run(np.array([0.4, 0.3, 0.3])), 2: run(np.array([0.1, 0.9, 0.1]))}
    found = paired(ours, theirs, y, values_of("log_loss", "raw", CLASSES))
    assert found is not None
    assert found.over_rows.value == pytest.approx(np.log(0.4 / 0.8) / 3)
    assert found.by_seed == (pytest.approx(found.over_rows.value),)
    recall = paired(ours, theirs, y, values_of("recall_leaves", "raw", CLASSES))
    assert recall is not None
    assert recall.over_rows.value == pytest.approx(0.5)
    assert paired({0: ours[0]}, theirs, y, values_of("brier", "raw", CLASSES)) is None


def test_miscalibration_is_what_calibration_takes_away() -> None:
    y, raw, true = np.array([1, 0]), np.array([0.9, 0.9]), np.array([0.5, 0.5])
    assert miscalibration(run(raw, true), y) == pytest.approx([np.log(0.5 / 0.9), np.log(0.5 / 0.1)])
    assert not miscalibration(run(raw), y).any()


def test_the_difference_of_calibration_errors_is_that_of_the_scores() -> None:
    rng = np.random.default_rng(1)
    z = 2 * rng.normal(size=600)
    y = (rng.random(600) < sigmoid(z)).astype(int)
    true, flat = {0: Run(two(z), sigmoid(z))}, {0: Run(two(z / 3), sigmoid(z / 3))}
    found = paired_calibration_error(flat, true, y, "raw", rng)
    assert found is not None
    by_hand = [score(sigmoid(logits), y, CLASSES, rng).calibration_error.value.value for logits in (z / 3, z)]
    assert found.over_rows.value == pytest.approx(by_hand[0] - by_hand[1])
    assert found.over_rows.low > 0.03
    same = paired_calibration_error(true, true, y, "calibrated", rng)
    assert same is not None
    assert (same.over_rows.value, same.over_rows.standard_error) == (0, 0)
    assert paired_calibration_error(true, {1: true[0]}, y, "raw", rng) is None


def test_a_shift_of_the_logits_is_found_with_its_error() -> None:
    rng = np.random.default_rng(2)
    z = 1.5 * rng.normal(size=4000) - 0.6
    y = (rng.random(4000) < sigmoid(z)).astype(int)
    values = logit_shift(Identity())(Run(two(z + 0.7), z), y)
    error = values.std(ddof=1) / np.sqrt(4000)
    assert values.mean() == pytest.approx(0.7, abs=3 * error)
    # Its own definition, and the spread of the estimate on other rows.
    assert sigmoid(z + 0.7 - values.mean()).mean() == pytest.approx(y.mean(), abs=1e-9)
    rows = (rng.integers(0, 4000, 4000) for _ in range(200))
    again = [logit_shift(Identity())(Run(two(z[one] + 0.7), z), y[one]).mean() for one in rows]
    assert np.std(again) == pytest.approx(error, rel=0.15)
