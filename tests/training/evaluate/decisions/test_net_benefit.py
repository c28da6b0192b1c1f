"""Net benefit, against values worked out by hand and in closed form."""

import numpy as np
import pytest

from training.evaluate.decisions.net_benefit import THRESHOLDS, net_benefits

P = np.array([0.1, 0.2, 0.6, 0.7, 0.9])
Y = np.array([0, 1, 0, 1, 1])


def test_net_benefit_by_hand() -> None:
    """Five rows. At 1/2 two of three that are taken are right: 2/5 − 1/5; at .8 one is taken, and rightly: 1/5. Of all
    three of five are of the class, and the two others weigh 1 and 4."""
    half, eight = net_benefits(P, Y, (0.5, 0.8))
    assert half.decisions.value == pytest.approx(2 / 5 - 1 / 5)
    assert half.treat_all.value == pytest.approx(3 / 5 - 2 / 5)
    assert eight.decisions.value == pytest.approx(1 / 5)
    assert eight.treat_all.value == pytest.approx(3 / 5 - 4 * 2 / 5)
    assert eight.over_treat_all.value == pytest.approx(1 / 5 + 1)
    # Rows' values at 1/2: 0, 0, −1, 1, 1, with the variance (0.2² · 2 + 1.2² + 0.8² · 2) / 4.
    error = np.sqrt((2 * 0.04 + 1.44 + 2 * 0.64) / 4 / 5)
    assert half.decisions.standard_error == pytest.approx(error)
    assert (half.decisions.low, half.decisions.high) == pytest.approx(
        (0.2 - 1.96 * error, 0.2 + 1.96 * error), abs=1e-4
    )
    # A row at the threshold is taken.
    assert net_benefits(P, Y, (0.9,))[0].decisions.value == pytest.approx(1 / 5)


def test_true_probabilities_are_worth_at_least_all_and_none() -> None:
    """For true probabilities the net benefit has a closed form: E[max(0, p − (1 − p) t / (1 − t))] (uniform p here)."""
    rng = np.random.default_rng(0)
    p = rng.random(200_000)
    y = (rng.random(len(p)) < p).astype(int)
    for point in net_benefits(p, y):
        t = point.threshold
        expected = (1 - t) / 2
        assert point.decisions.value == pytest.approx(expected, abs=5 * point.decisions.standard_error)
        assert point.treat_all.value == pytest.approx(0.5 - 0.5 * t / (1 - t), abs=5 * point.treat_all.standard_error)
        assert point.over_treat_all.low > -0.005
    assert [point.threshold for point in net_benefits(P, Y)] == list(THRESHOLDS)


def test_intervals_hold_the_truth() -> None:
    rng, held = np.random.default_rng(1), 0
    for _ in range(400):
        p = rng.random(300)
        (point,) = net_benefits(p, (rng.random(300) < p).astype(int), (0.4,))
        held += point.decisions.low <= 0.3 <= point.decisions.high
    assert held / 400 == pytest.approx(0.95, abs=0.035)


def test_rows_that_are_there_twice_say_no_more() -> None:
    """Of pairs of equal rows the cluster-robust error is that of one of each."""
    rng = np.random.default_rng(2)
    p = rng.random(2000)
    y = (rng.random(len(p)) < p).astype(int)
    once = net_benefits(p, y, (0.3,))[0]
    pairs = np.repeat(np.arange(len(p)), 2)
    twice = net_benefits(p[pairs], y[pairs], (0.3,), pairs)[0]
    assert twice.decisions.value == pytest.approx(once.decisions.value)
    assert twice.over_treat_all.standard_error == pytest.approx(once.over_treat_all.standard_error, rel=0.01)
