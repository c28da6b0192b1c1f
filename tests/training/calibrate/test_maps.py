"""Fitted maps against scikit-learn and against truths that are known."""

from collections.abc import Callable

import numpy as np
import pytest
from sklearn.calibration import _SigmoidCalibration
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from models.calibration.inverse import FocalInverse
from models.calibration.logit import logit, sigmoid
from models.calibration.maps import CalibrationMap, Identity, Step
from models.calibration.venn_abers import MergedVennAbers
from training.calibrate.choice import (
    FEW_ROWS_MAP,
    FLEXIBLE_ROWS,
    MAP_RULES,
    STEP_FUNCTIONS,
    MapRule,
    chosen_map,
    fit_map,
)
from training.calibrate.maps import (
    fit_beta,
    fit_half_venn_abers,
    fit_isotonic,
    fit_merged_venn_abers,
    fit_platt,
    fit_temperature,
    fit_venn_abers,
    log_losses,
    platt_targets,
)

INVERSE = FocalInverse(gamma=2, smoothing=0.1, alpha_negative=0.4, alpha_positive=0.6)


def truth(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n,) that are right, and labels."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 1.8, rows)
    return z, (rng.random(rows) < sigmoid(z)).astype(int)


@pytest.mark.parametrize("rows", [60, 800])
def test_platt_equals_scikit_learn(rows: int) -> None:
    z, y = truth(rows, 0)
    theirs = _SigmoidCalibration().fit(2 * z + 1, y)
    ours = fit_platt(2 * z + 1, y)
    assert (ours.slope, ours.offset) == pytest.approx((-theirs.a_, -theirs.b_), abs=2e-4)
    assert sigmoid(ours(z)) == pytest.approx(theirs.predict(z), abs=1e-4)


def test_platts_targets_by_hand() -> None:
    assert platt_targets(np.array([0, 0, 0, 1])) == (1 / 5, 2 / 3)


@pytest.mark.parametrize("decimals", [1, 9])
def test_isotonic_equals_scikit_learn(decimals: int) -> None:
    z, y = truth(500, 1)
    z = z.round(decimals)
    low, high = platt_targets(y)
    theirs = IsotonicRegression(y_min=low, y_max=high, out_of_bounds="clip").fit(z, y)
    asked = np.concatenate([np.linspace(-12, 12, 4001), z])
    assert sigmoid(fit_isotonic(z, y)(asked)) == pytest.approx(theirs.predict(asked), abs=1e-9)


def test_beta_equals_logistic_regression_where_no_bound_is_touched() -> None:
    z, y = truth(700, 2)
    features = np.stack([np.log(sigmoid(z)), -np.log(sigmoid(-z))], axis=1)
    theirs = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(features, y)
    ours = fit_beta(z, y)
    assert (ours.a, ours.b, ours.c) == pytest.approx((*theirs.coef_[0], theirs.intercept_[0]), abs=1e-3)


def test_betas_bound_gives_the_best_map_on_it() -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=4000)
    # Above 0 the truth falls: b would be negative.
    y = (rng.random(4000) < sigmoid(-np.logaddexp(0, -z) - 0.8 * np.logaddexp(0, z))).astype(int)
    found = fit_beta(z, y)
    assert found.b == 0
    alone = LogisticRegression(C=np.inf, tol=1e-10).fit(np.log(sigmoid(z))[:, None], y)
    assert (found.a, found.c) == pytest.approx((alone.coef_[0, 0], alone.intercept_[0]), abs=1e-3)


def test_known_truths_are_recovered() -> None:
    z, y = truth(400_000, 4)
    assert fit_temperature(2.5 * z, y).temperature == pytest.approx(2.5, rel=0.02)
    platt = fit_platt((z + 0.7) / 1.6, y)
    assert (platt.slope, platt.offset) == pytest.approx((1.6, -0.7), abs=0.02)
    s = np.random.default_rng(5).normal(0, 2, 400_000)
    right = -0.4 - 0.6 * np.logaddexp(0, -s) + 1.8 * np.logaddexp(0, s)
    labels = (np.random.default_rng(6).random(len(s)) < sigmoid(right)).astype(int)
    beta = fit_beta(s, labels)
    assert (beta.a, beta.b, beta.c) == pytest.approx((0.6, 1.8, -0.4), abs=0.04)
    assert np.abs(sigmoid(beta(s)) - sigmoid(right)).max() < 0.01


def test_half_venn_abers_is_the_middle_in_log_odds_and_keeps_the_order() -> None:
    z, y = truth(300, 14)
    asked = np.linspace(-6, 6, 301)
    half, whole = fit_half_venn_abers(z, y)(asked), fit_merged_venn_abers(z, y)(asked)
    assert half == pytest.approx((asked + whole) / 2, abs=1e-12)
    assert (np.diff(half) > 0).all()
    for weight in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="weight"):
            MergedVennAbers(fit_venn_abers(z, y), weight=weight)


@pytest.mark.parametrize("fit", [fit_isotonic, fit_merged_venn_abers])
def test_step_functions_approach_the_truth(fit: Callable[[np.ndarray, np.ndarray], Step]) -> None:
    fresh = truth(4000, 8)[0]

    def error(rows: int, seed: int) -> float:
        z, y = truth(rows, seed)
        return float(np.abs(sigmoid(fit(1.5 * z - 2, y)(1.5 * fresh - 2)) - sigmoid(fresh)).mean())

    few, many = (np.mean([error(rows, 20 + seed) for seed in range(8)]) for rows in (150, 1200))
    assert many < 0.04
    # The rate is n^(−1/3): half the error for eight times the rows.
    assert 1.6 < few / many < 2.6


def test_the_merged_probability_is_the_minimax_one() -> None:
    z, y = truth(150, 9)
    asked = np.linspace(-6, 6, 101)
    p0, p1 = fit_venn_abers(z, y).interval(asked)
    p = sigmoid(fit_merged_venn_abers(z, y)(asked))
    assert p == pytest.approx(p1 / (1 - p0 + p1), abs=1e-12)
    # Its regret is the same whichever of the two was right, so no other probability has a smaller greatest one.
    regrets = np.log(p1) - np.log(p), np.log1p(-p0) - np.log1p(-p)
    assert regrets[0] == pytest.approx(regrets[1], abs=1e-12)
    assert ((p0 <= p) & (p <= p1)).all()


def test_separated_classes_give_finite_maps() -> None:
    z, y = np.append(np.linspace(-3, -1, 30), np.linspace(1, 3, 30)), np.repeat([0, 1], 30)
    for fit in (fit_temperature, fit_platt, fit_beta, fit_isotonic, fit_merged_venn_abers):
        p = CalibrationMap((fit(z, y),)).probabilities(np.array([-800.0, -2, 0, 2, 800]))
        assert ((p > 0) & (p < 1)).all()
        assert (np.diff(p) >= 0).all()


@pytest.mark.parametrize("rule", MAP_RULES)
@pytest.mark.parametrize("rows", [300, FLEXIBLE_ROWS])
def test_all_candidates_are_kept_with_their_distance(rule: MapRule, rows: int) -> None:
    z, y = truth(rows, 10)
    z = np.interp(np.clip(z, -3.5, 3.5), INVERSE(np.linspace(-6, 6, 6001)), np.linspace(-6, 6, 6001))
    _, candidates = fit_map(z, y, INVERSE, 0, rule)
    assert [one.name for one in candidates] == [
        "identity", "temperature", "platt", "beta", "platt+half_venn_abers", "focal_inverse",
        "focal_inverse+temperature", "focal_inverse+platt", "focal_inverse+beta",
        "focal_inverse+platt+half_venn_abers", "isotonic", "venn_abers",
    ]  # fmt: skip
    counted = [one.parameters for one in candidates if "venn" not in one.name]
    assert counted[:-1] == [0, 1, 2, 3] * 2
    assert min(one.parameters for one in candidates if "venn" in one.name or one.name == "isotonic") > 3
    best = min(candidates, key=lambda one: one.log_loss)
    assert (best.worse_by, best.standard_error) == (0, 0)
    for one in candidates:
        assert one.worse_by == pytest.approx(one.log_loss - best.log_loss)
    near = [one for one in candidates if one.worse_by <= one.standard_error]
    simple = min(near, key=lambda one: (one.parameters, one.log_loss)).name
    least = best.name if rows >= FLEXIBLE_ROWS else FEW_ROWS_MAP
    assert [one.name for one in candidates if one.chosen] == [least if rule == "least" else simple]


def test_an_inverse_that_changes_nothing_is_no_candidate() -> None:
    z, y = truth(200, 1)
    straight = FocalInverse(gamma=0, smoothing=0, alpha_negative=0.5, alpha_positive=0.5)
    assert straight(z) == pytest.approx(z, abs=1e-12)
    assert fit_map(z, y, straight, 0) == fit_map(z, y, None, 0)


def test_one_standard_error_prefers_the_simpler_map() -> None:
    z, y = truth(1200, 8)
    least, candidates = fit_map(3 * z, y, None, 0, "least")
    simple, _ = fit_map(3 * z, y, None, 0, "one_standard_error")
    assert [one.parameters > 1 for one in candidates if one.chosen] == [True]
    assert len(least.steps) > 1
    assert [type(step).__name__ for step in simple.steps] == ["Temperature"]


def test_a_map_is_chosen_when_it_is_needed() -> None:
    z, y = truth(800, 2)
    assert fit_map(z, y, None, 0, "one_standard_error")[0].steps == (Identity(),)
    chosen, candidates = fit_map(3 * z, y, None, 0, "one_standard_error")
    assert {one.name: one.worse_by for one in candidates}["identity"] > 0.02
    fresh, labels = truth(20_000, 11)
    excess = log_losses(chosen.probabilities(3 * fresh), labels) - log_losses(sigmoid(fresh), labels)
    assert excess.mean() < 0.003


@pytest.mark.parametrize("distortion", ["none", "steep", "loss"])
def test_the_map_for_few_rows_costs_little_whatever_the_distortion(distortion: str) -> None:
    grid = np.linspace(-6, 6, 6001)

    def distorted(z: np.ndarray) -> np.ndarray:
        return {"none": z, "steep": 3 * z, "loss": np.interp(np.clip(z, -4, 4), INVERSE(grid), grid)}[distortion]

    fresh, labels = truth(20_000, 11)
    excess = []
    for seed in range(6):
        z, y = truth(700, 30 + seed)
        p = chosen_map(distorted(z), y, None, 0)[1].probabilities(distorted(fresh))
        excess.append((log_losses(p, labels) - log_losses(sigmoid(fresh), labels)).mean())
    assert np.mean(excess) < 0.005


def test_a_truth_that_no_parametric_map_can_follow_is_left_to_a_step_function() -> None:
    rng = np.random.default_rng(12)
    z = rng.uniform(-4, 4, 1500)
    p = np.where(z < -1.5, 0.05, np.where(z < 1.5, 0.5, 0.95))
    y = (rng.random(1500) < p).astype(int)
    chosen, _ = fit_map(z, y, None, 0)
    assert chosen.steps[-1].__struct_config__.tag in STEP_FUNCTIONS
    # With fewer rows the map is not chosen by its score.
    few, candidates = fit_map(z[: FLEXIBLE_ROWS - 1], y[: FLEXIBLE_ROWS - 1], None, 0)
    assert [one.name for one in candidates if one.chosen] == [FEW_ROWS_MAP]
    assert isinstance(few.steps[-1], MergedVennAbers)
    assert few.steps[-1].weight == 0.5


def test_the_inverse_is_chosen_for_logits_of_an_improper_loss() -> None:
    right, y = truth(1500, 2)
    grid = np.linspace(-6, 6, 6001)
    z = np.interp(np.clip(right, -4, 4), INVERSE(grid), grid)
    assert fit_map(z, y, INVERSE, seed=0)[0].steps[0] == INVERSE
    assert logit(sigmoid(INVERSE(z))) == pytest.approx(np.clip(right, -4, 4), abs=1e-3)
