"""The error of what is answered: by hand, by brute force, and its promises by simulation."""

import numpy as np
import pytest

from models.calibration.logit import class_probabilities, sigmoid
from training.calibrate.sets import fit_sets
from training.evaluate.selective_risk import SetCoverage, risk_coverage, set_coverage

CLASSES = ("stays", "leaves")


def truth(rng: np.random.Generator, rows: int) -> tuple[np.ndarray, np.ndarray]:
    p = sigmoid(rng.normal(-0.5, 1.5, rows))
    return p, (rng.random(rows) < p).astype(int)


def coverage_of(
    calibration: tuple[np.ndarray, np.ndarray], rows: tuple[np.ndarray, np.ndarray], nominal: float
) -> SetCoverage:
    fitted = fit_sets(class_probabilities(calibration[0]), calibration[1], nominal)
    return set_coverage(fitted.sets(class_probabilities(rows[0])), rows[1], nominal, CLASSES)


def test_by_hand() -> None:
    # Margins .8 (right), .6 (wrong), .6 (right), .2 (wrong); .8 and .2 are equally sure.
    curve = risk_coverage(np.array([0.9, 0.8, 0.2, 0.6]), np.array([1, 0, 0, 0]))
    assert curve.coverage == (0.25, 0.75, 1.0)
    assert curve.error == pytest.approx((0, 1 / 3, 1 / 2))
    assert curve.expected == pytest.approx((0.1, 0.5 / 3, 0.9 / 4))
    assert curve.standard_error[1] == pytest.approx(np.sqrt(2 / 27))
    assert curve.random == 0.5
    assert curve.oracle == pytest.approx((0 + 0 + 1 / 3 + 2 / 4) / 4)
    assert curve.area == pytest.approx((0 + 0.5 / 2 + 1 / 3 + 2 / 4) / 4)


def test_of_several_classes_by_hand() -> None:
    """Top probabilities .8 (right), .5 (wrong), .5 (right, a tie that the later class wins) and .4 (wrong)."""
    p = np.array([[0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.0, 0.5, 0.5], [0.4, 0.3, 0.3]])
    curve = risk_coverage(p, np.array([0, 1, 2, 1]))
    assert curve.coverage == (0.25, 0.75, 1.0)
    assert curve.error == pytest.approx((0, 1 / 3, 1 / 2))
    assert curve.expected == pytest.approx((0.2, 1.2 / 3, 1.8 / 4))
    assert curve.area == pytest.approx((0 + 0.5 / 2 + 1 / 3 + 2 / 4) / 4)


def test_the_area_is_the_mean_over_random_orders_of_ties() -> None:
    rng = np.random.default_rng(0)
    p, y = truth(rng, 60)
    p = p.round(1)
    wrong = (p >= 0.5) != (y == 1)
    margin, areas = np.abs(2 * p - 1).round(12), []
    for _ in range(4000):
        order = np.lexsort((rng.random(60), -margin))
        areas.append((np.cumsum(wrong[order]) / np.arange(1, 61)).mean())
    assert risk_coverage(p, y).area == pytest.approx(np.mean(areas), abs=4 * np.std(areas) / np.sqrt(4000))


def test_a_calibrated_model_errs_as_it_says_and_less_when_it_answers_less() -> None:
    p, y = truth(np.random.default_rng(1), 40_000)
    curve = risk_coverage(p, y)
    assert curve.oracle < curve.area < curve.random
    error, said = np.array(curve.error), np.cumsum(np.sort(np.minimum(p, 1 - p))) / np.arange(1, len(p) + 1)
    for share in (0.1, 0.3, 0.5, 0.8, 1.0):
        at = int(share * len(p)) - 1
        assert error[at] == pytest.approx(said[at], abs=4 * curve.standard_error[at])
    assert error[3999] < error[19_999] < error[-1]


def test_margins_that_say_nothing_buy_nothing() -> None:
    rng = np.random.default_rng(2)
    p, y = rng.random(20_000), rng.integers(0, 2, 20_000)
    curve = risk_coverage(p, y)
    assert curve.area == pytest.approx(curve.random, abs=0.02)


@pytest.mark.parametrize("nominal", [0.8, 0.9, 0.95])
def test_few_rows_of_either_class_are_answered_wrongly(nominal: float) -> None:
    """At most α of either class, for a model that is neither calibrated nor right about the prior."""
    rng = np.random.default_rng(3)
    wrong = []
    for _ in range(300):
        (p, y), (q, labels) = truth(rng, 500), truth(rng, 500)
        found = coverage_of((p**2, y), (q**2, labels), nominal)
        wrong.append([found.wrong_by_class[name].value for name in CLASSES])
        all_wrong = np.average(wrong[-1], weights=np.bincount(labels))
        assert found.error_answered.value * (1 - found.abstained) == pytest.approx(all_wrong)
    shares = np.array(wrong)
    error = shares.std(axis=0, ddof=1) / np.sqrt(len(shares))
    assert (shares.mean(axis=0) <= 1 - nominal + 4 * error).all()
    # For one class the bound is nearly reached: it is no empty promise.
    assert shares.mean(axis=0).max() > (1 - nominal) / 2


def test_the_curve_trades_answers_for_errors() -> None:
    rng = np.random.default_rng(4)
    calibration, rows = truth(rng, 4000), truth(rng, 20_000)
    curve = [coverage_of(calibration, rows, nominal) for nominal in (0.8, 0.9, 0.95, 0.99)]
    assert np.all(np.diff([one.error_answered.value * (1 - one.abstained) for one in curve]) < 0)
    assert curve[-1].abstained > curve[1].abstained
    assert curve[-1].error_answered.value < curve[1].error_answered.value


def test_too_few_rows_abstain_always_and_no_rows_are_refused() -> None:
    found = coverage_of((np.array([0.2, 0.8]), np.array([0, 1])), (np.array([0.1, 0.9]), np.array([0, 0])), 0.9)
    assert found.abstained == 1
    assert np.isnan(found.error_answered.value)
    assert np.isnan(found.wrong_by_class["leaves"].value)
    with pytest.raises(ValueError, match="no rows"):
        risk_coverage(np.array([]), np.array([]))
