"""Online Platt scaling against scikit-learn's logistic regression, its regret, its limits, and shifts."""

import math

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from models.calibration.online import (
    MAX_OFFSET,
    MAX_SLOPE,
    MIN_SLOPE,
    OnlinePlatt,
    OnlineStep,
    log_odds,
    logistic,
)
from models.calibration.prior_shift import PriorShift

Z = 1.6
"""Standard deviation of the log-odds of simulated rows."""


def learn(offset: np.ndarray | float, slope: np.ndarray | float, rows: int, seed: int) -> OnlinePlatt:
    """Outcomes of rows whose true log-odds are slope · z + offset, z the bundle's."""
    rng, online = np.random.default_rng(seed), OnlinePlatt()
    z = rng.normal(-0.5, Z, rows)
    y = rng.random(rows) < 1 / (1 + np.exp(-(slope * z + offset)))
    for p, label in zip((1 / (1 + np.exp(-z))).tolist(), y.tolist(), strict=True):
        online.observe(p, label)
    return online


def cost(online: OnlinePlatt) -> float:
    """Nats an outcome that the step cost; below 0 is a gain."""
    return (online.log_loss_after - online.log_loss_before) / online.outcomes


def test_a_miscalibration_is_found_as_logistic_regression_finds_it() -> None:
    rng, online = np.random.default_rng(0), OnlinePlatt()
    z = rng.normal(-0.5, Z, 20_000)
    y = rng.random(len(z)) < 1 / (1 + np.exp(-(0.6 * z - 0.8)))
    for p, label in zip((1 / (1 + np.exp(-z))).tolist(), y.tolist(), strict=True):
        online.observe(p, label)
    # The last 2,000 rows are what a memory of 1,000 outcomes by decaying weights is worth.
    fitted = LogisticRegression(C=np.inf).fit(z[-2000:, None], y[-2000:])
    assert online.slope == pytest.approx(float(fitted.coef_[0, 0]), abs=0.12)
    assert online.offset == pytest.approx(float(fitted.intercept_[0]), abs=0.15)
    assert online.outcomes == len(z)


def test_without_a_shift_it_costs_at_most_a_thousandth_of_a_nat() -> None:
    for rows, repetitions in ((1000, 60), (5000, 20)):
        costs = [cost(learn(0.0, 1.0, rows, seed)) for seed in range(repetitions)]
        assert np.mean(costs) + 2 * np.std(costs) / math.sqrt(repetitions) <= 0.001


@pytest.mark.parametrize("kind", ["abrupt", "slow"])
def test_under_a_shift_it_gains(kind: str) -> None:
    time = np.arange(5000) / 5000
    offset = np.where(time > 0.5, 1.0, 0.0) if kind == "abrupt" else time
    costs = [cost(learn(offset, 1.0, 5000, seed)) for seed in range(20)]
    assert max(costs) < -0.01
    online = learn(offset, 1.0, 5000, 99)
    assert online.offset == pytest.approx(1.0, abs=0.4)


def test_the_first_step_by_hand() -> None:
    online = OnlinePlatt(a=2.0, c=3.0)
    online.observe(logistic(1.0), False)
    keep, g = 0.999, logistic(1.0)
    a, b, c = keep * 2 + 0.01 + g * g, g * g, keep * 3 + 0.01 + g * g
    offset, slope = np.array([0.0, 1.0]) - np.linalg.solve([[a, b], [b, c]], [g, g])
    assert (online.offset, online.slope) == pytest.approx((offset, slope))
    assert (online.a, online.b, online.c) == pytest.approx((a, b, c))
    assert online.log_loss_before == online.log_loss_after == pytest.approx(-math.log(1 - g))


@pytest.mark.parametrize("label", [False, True])
@pytest.mark.parametrize("p", [1e-300, 0.02, 0.5, 0.98, 1 - 2**-52])
def test_the_limits_hold_whatever_comes(p: float, label: bool) -> None:
    online = OnlinePlatt()
    for _ in range(5000):
        online.observe(p, label)
    assert MIN_SLOPE <= online.slope <= MAX_SLOPE
    assert abs(online.offset) <= MAX_OFFSET
    assert 0 < online.step.probability(p) < 1
    restored = msgspec.json.decode(msgspec.json.encode(online), type=OnlinePlatt)
    assert restored == online
    online.observe(0.3, True)
    restored.observe(0.3, True)
    assert restored == online


def test_the_nearest_point_within_the_limits() -> None:
    rng = np.random.default_rng(1)
    x, y = np.meshgrid(np.linspace(-MAX_OFFSET, MAX_OFFSET, 801), np.linspace(MIN_SLOPE, MAX_SLOPE, 751))
    for _ in range(40):
        root = rng.normal(size=(2, 2))
        (a, b), (_, c) = root @ root.T + 0.1 * np.eye(2)
        online = OnlinePlatt(a=a, b=b, c=c)
        offset, slope = rng.normal(0, 6), rng.normal(2, 4)

        def distance(one: float, two: float) -> float:
            u, v = one - offset, two - slope  # noqa: B023
            return float(a * u * u + 2 * b * u * v + c * v * v)  # noqa: B023

        grid = (a * (x - offset) ** 2 + 2 * b * (x - offset) * (y - slope) + c * (y - slope) ** 2).min()
        found = online._nearest(offset, slope)
        assert abs(found[0]) <= MAX_OFFSET
        assert MIN_SLOPE <= found[1] <= MAX_SLOPE
        assert distance(*found) <= grid + 1e-9


def test_a_step_of_slope_1_is_a_prior_shift() -> None:
    shift = PriorShift(training=0.4, target=0.7)
    step = OnlineStep(offset=shift.shift)
    p = np.array([0.0, 1e-9, 0.3, 0.999, 1.0])
    assert [step.probability(one) for one in p.tolist()] == pytest.approx(shift.probabilities(p).tolist())
    assert step.probability(0.3) == pytest.approx(logistic(log_odds(0.3) + shift.shift))


def test_a_state_that_is_none_is_refused() -> None:
    for field in ({"b": 200.0}, {"a": -1.0}, {"slope": 9.0}, {"offset": -5.0}, {"outcomes": -1}, {"d": 0}):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(field, OnlinePlatt)
