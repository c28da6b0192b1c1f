"""Calibration maps against independent references: the loss's own stationarity, scikit-learn, recovered truths."""

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from models.calibration import SATURATED, CalibrationMap, FocalInverse, Identity, Temperature, VennAbers, logit, sigmoid
from training.calibrate import fit_map, fit_temperature, fit_venn_abers

GAMMAS = (0.0, 0.5, 1.0, 2.0, 3.0)
SMOOTHINGS = (0.0, 0.05, 0.1)
ALPHAS = ((1.0, 1.0), (0.38, 0.62), (0.61, 0.39))


def expected_loss(p: float, eta: float, gamma: float, smoothing: float, died: float, survived: float) -> float:
    """The definition of focal_smooth, written out without the code under test."""
    total = 0.0
    for label, weight, probability in ((1, survived, eta), (0, died, 1 - eta)):
        own = (1 - smoothing) + smoothing / 2
        s1 = own if label == 1 else 1 - own
        total -= probability * weight * (s1 * (1 - p) ** gamma * np.log(p) + (1 - s1) * p**gamma * np.log(1 - p))
    return total


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("smoothing", SMOOTHINGS)
@pytest.mark.parametrize("alphas", ALPHAS)
def test_the_inverse_recovers_the_truth_from_the_loss_minimiser(
    gamma: float, smoothing: float, alphas: tuple[float, float]
) -> None:
    inverse = FocalInverse(gamma=gamma, smoothing=smoothing, alpha_died=alphas[0], alpha_survived=alphas[1])
    for eta in (0.06, 0.2, 0.384, 0.5, 0.75, 0.94):
        found = minimize_scalar(
            lambda z, eta=eta: expected_loss(1 / (1 + np.exp(-z)), eta, gamma, smoothing, *alphas),
            bounds=(-8, 8), method="bounded", options={"xatol": 1e-10},
        )  # fmt: skip
        assert sigmoid(inverse(np.array(found.x))) == pytest.approx(eta, abs=1e-4)


def test_without_focus_smoothing_or_weights_it_is_the_identity() -> None:
    inverse = FocalInverse(gamma=0, smoothing=0, alpha_died=0.3, alpha_survived=0.3)
    z = np.linspace(-700, 700, 4001)
    assert np.allclose(inverse(z), z, rtol=1e-12, atol=1e-9)


def test_the_reversed_alpha_shifts_the_logit_as_known() -> None:
    reversed_alpha = FocalInverse(gamma=0, smoothing=0, alpha_died=0.61, alpha_survived=0.39)
    assert -reversed_alpha(np.array(0.0)) == pytest.approx(np.log(0.39 / 0.61), abs=1e-12)
    read = logit(np.array(0.3838)) + np.log(0.39 / 0.61)
    assert sigmoid(read) == pytest.approx(0.285, abs=1e-3)


@given(
    st.sampled_from(GAMMAS), st.sampled_from(SMOOTHINGS), st.sampled_from(ALPHAS),
    st.lists(st.floats(-700, 700), min_size=2, max_size=30, unique=True),
)  # fmt: skip
def test_the_inverse_is_finite_and_keeps_the_order(
    gamma: float, smoothing: float, alphas: tuple[float, float], logits: list[float]
) -> None:
    inverse = FocalInverse(gamma=gamma, smoothing=smoothing, alpha_died=alphas[0], alpha_survived=alphas[1])
    z = np.sort(np.array(logits))
    found = inverse(z)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= -1e-9 * np.abs(found[1:])).all()
    p = CalibrationMap((inverse,)).probabilities(z)
    assert ((p > 0) & (p < 1)).all()


def test_beyond_saturation_it_goes_on_with_slope_one() -> None:
    inverse = FocalInverse(gamma=2, smoothing=0.1, alpha_died=1, alpha_survived=1)
    far = inverse(np.array([5.0, 6.0]))
    assert far[1] - far[0] == pytest.approx(1.0)
    edge = minimize_scalar(
        lambda z: expected_loss(1 / (1 + np.exp(-z)), SATURATED, 2, 0.1, 1, 1), bounds=(0, 8), method="bounded"
    ).x
    assert sigmoid(inverse(np.array(edge))) == pytest.approx(SATURATED, abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [{"gamma": 3.5}, {"gamma": -1}, {"smoothing": 1.0}, {"alpha_died": 0.0}, {"alpha_survived": float("inf")}],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        FocalInverse(**{"gamma": 2.0, "smoothing": 0.1, "alpha_died": 0.4, "alpha_survived": 0.6, **wrong})


def truth(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 1.8, rows)
    return z, (rng.random(rows) < sigmoid(z)).astype(int)


def test_a_known_temperature_is_recovered() -> None:
    z, y = truth(200_000, 0)
    assert fit_temperature(2.5 * z, y).temperature == pytest.approx(2.5, rel=0.02)


def test_the_map_is_chosen_by_evidence() -> None:
    z, y = truth(3000, 1)
    chosen, candidates = fit_map(z, y, None, seed=0)
    assert chosen.steps == (Identity(),)
    assert [one.name for one in candidates if one.chosen] == ["identity"]
    bent, candidates = fit_map(3 * z, y, None, seed=0)
    assert isinstance(bent.steps[-1], Temperature)
    assert {one.name: one.worse_by for one in candidates}["identity"] > 0.02


def test_the_inverse_is_chosen_for_logits_bent_by_the_loss() -> None:
    eta, y = truth(3000, 2)
    grid = np.linspace(-6, 6, 6001)
    inverse = FocalInverse(gamma=2, smoothing=0.1, alpha_died=0.4, alpha_survived=0.6)
    bent = np.interp(np.clip(eta, -4, 4), inverse(grid), grid)
    chosen, _ = fit_map(bent, y, inverse, seed=0)
    assert chosen.steps[0] == inverse


@pytest.mark.parametrize("decimals", [1, 6])
def test_venn_abers_equals_refitting_isotonic_regression(decimals: int) -> None:
    z, y = truth(120, 3)
    z = z.round(decimals)
    venn_abers = fit_venn_abers(z, y)
    asked = np.concatenate([np.random.default_rng(4).normal(-0.5, 2, 60), z[:20], [-99.0, 99.0]])
    p0, p1 = venn_abers.interval(asked)
    for score, low, high in zip(asked, p0, p1, strict=True):
        for label, found in ((0, low), (1, high)):
            refitted = IsotonicRegression().fit(np.append(z, score), np.append(y, label))
            assert found == pytest.approx(float(refitted.predict([score])[0]), abs=1e-9)
    assert (p0 <= p1).all()


def test_maps_survive_json_and_nonsense_is_refused() -> None:
    inverse = FocalInverse(gamma=2, smoothing=0.1, alpha_died=0.4, alpha_survived=0.6)
    chain = CalibrationMap((inverse, Temperature(1.5)))
    again = msgspec.json.decode(msgspec.json.encode(chain), type=CalibrationMap)
    assert again == chain
    assert [name for name, _ in again.trace(np.zeros(1))] == ["model", "focal_inverse", "temperature"]
    with pytest.raises(msgspec.ValidationError, match="temperature"):
        msgspec.json.decode(b'{"steps":[{"step":"temperature","temperature":-1}]}', type=CalibrationMap)
    with pytest.raises(ValueError, match="rising"):
        VennAbers((1.0, 0.5), (0.0,) * 5, (1.0,) * 5)
    with pytest.raises(ValueError, match="p1 must not fall"):
        VennAbers((0.5,), (0.0, 0.1, 0.2), (1.0, 0.5, 1.0))
