"""The stack's weights, and the choice of second models."""

import numpy as np
import pytest
from scipy.optimize import minimize

from models.calibration.inverse import FocalInverse
from models.calibration.logit import log_softmax, sigmoid
from models.calibration.stack import Stack
from training.calibrate.stack import (
    OFFSET_SHRINKAGE,
    SHRINKAGE,
    StackSettings,
    all_candidates,
    choose_stack,
    fit_stack,
)

RNG = np.random.default_rng(7)
N = 600
TRUTH = RNG.normal(size=N) * 2
Y = (RNG.random(N) < sigmoid(TRUTH)).astype(np.int64)
MODEL, OTHER = TRUTH + RNG.normal(size=N), TRUTH + RNG.normal(size=N)
EVERYTHING = StackSettings(candidates=(("linear",), ("trees",), ("linear", "trees")))


def test_weights_are_those_of_another_optimiser() -> None:
    found = fit_stack(MODEL, {"trees": OTHER}, Y)

    def loss(w: np.ndarray) -> float:
        z = w[0] * MODEL + w[1] * OTHER + w[2]
        own = np.logaddexp(0, z) - Y * z
        away = (w[0] - 0.5) ** 2 + (w[1] - 0.5) ** 2
        return float(own.mean() + (SHRINKAGE * away + OFFSET_SHRINKAGE * w[2] ** 2) / N)

    best = minimize(loss, np.zeros(3), method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-14, "maxiter": 9000})
    assert [found.own, found.others["trees"], *found.offsets] == pytest.approx(best.x.tolist(), abs=1e-4)


def test_weights_of_three_classes_are_those_of_another_optimiser() -> None:
    rng = np.random.default_rng(3)
    truth = rng.normal(size=(300, 3))
    y = (truth + rng.gumbel(size=(300, 3))).argmax(axis=1)
    a, b = (truth + rng.normal(size=(300, 3)) for _ in range(2))
    found = fit_stack(a, {"linear": b}, y)

    def loss(w: np.ndarray) -> float:
        log_p = log_softmax(w[0] * a + w[1] * b + w[2:])
        away = ((w[:2] - 0.5) ** 2).sum()
        return float(-log_p[range(300), y].mean() + (SHRINKAGE * away + OFFSET_SHRINKAGE * (w[2:] ** 2).sum()) / 300)

    best = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-8})
    assert [found.own, found.others["linear"], *found.offsets] == pytest.approx(best.x.tolist(), abs=1e-4)


def test_a_model_that_knows_nothing_gets_no_weight_and_none_is_below_0() -> None:
    found = fit_stack(MODEL, {"linear": -OTHER}, Y)
    assert found.others["linear"] == 0
    assert found.own > 0.3


def test_without_rows_to_speak_of_weights_stay_where_they_are_drawn_to() -> None:
    before = Stack(own=0.1, others={"trees": 0.8}, offsets=(0.0,))
    small = np.full(8, 1e-3)
    few = fit_stack(small, {"trees": small}, Y[:8], towards=before)
    assert (few.own, few.others["trees"]) == pytest.approx((0.1, 0.8), abs=0.01)


def test_the_inverse_of_the_loss_is_taken_of_the_model_alone() -> None:
    inverse = FocalInverse(gamma=2.0, smoothing=0.0, alpha_negative=0.5, alpha_positive=0.5)
    found = fit_stack(MODEL, {"trees": OTHER}, Y, inverse)
    by_hand = fit_stack(inverse(MODEL), {"trees": OTHER}, Y)
    assert (found.own, found.others, found.offsets) == (by_hand.own, by_hand.others, by_hand.offsets)
    assert np.array_equal(found(MODEL, {"trees": OTHER}), by_hand(inverse(MODEL), {"trees": OTHER}))
    assert [name for name, _ in found.trace(MODEL, {"trees": OTHER})] == ["focal_inverse", "stack"]


def test_what_helps_is_chosen_and_what_harms_is_not() -> None:
    noise = RNG.normal(size=N) * 10
    chosen = choose_stack(MODEL, {"linear": noise, "trees": OTHER}, Y, None, 0, EVERYTHING)
    assert chosen is not None
    assert "trees" in chosen.others
    assert chosen.others.get("linear", 0.0) < 0.02
    only_noise = StackSettings(candidates=(("linear",),))
    alone = choose_stack(MODEL, {"linear": noise}, Y, None, 0, only_noise)
    assert alone is None or alone.others["linear"] < 0.02
    assert choose_stack(MODEL, {}, Y, None, 0, StackSettings()) is None


def test_candidates_are_all_sets_without_one_model_twice() -> None:
    assert all_candidates(("linear", "trees")) == (("linear",), ("trees",), ("linear", "trees"))
    assert all_candidates(("linear", "trees", "words")) == (("trees",), ("words",), ("trees", "words"))
    assert all_candidates(("words",)) == (("words",),)
