"""Calibration maps against independent references: the loss's own stationarity, scikit-learn, recovered truths."""

import re
from collections.abc import Callable, Sequence

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from sklearn.isotonic import IsotonicRegression

from models.calibration.inverse import SATURATED, FocalInverse, LossInverse
from models.calibration.logit import MAX_VALUE, logit, sigmoid
from models.calibration.maps import Beta, CalibrationMap, Identity, Isotonic, Platt, Step, Temperature
from models.calibration.prior_shift import PriorShift
from models.calibration.venn_abers import MergedVennAbers, VennAbers  # fmt: skip
from training.calibrate.maps import fit_venn_abers

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
    inverse = FocalInverse(gamma=gamma, smoothing=smoothing, alpha_negative=alphas[0], alpha_positive=alphas[1])
    for eta in (0.06, 0.2, 0.384, 0.5, 0.75, 0.94):
        found = minimize_scalar(
            lambda z, eta=eta: expected_loss(1 / (1 + np.exp(-z)), eta, gamma, smoothing, *alphas),
            bounds=(-8, 8), method="bounded", options={"xatol": 1e-10},
        )  # fmt: skip
        assert sigmoid(inverse(np.array(found.x))) == pytest.approx(eta, abs=1e-4)


def test_without_focus_smoothing_or_weights_it_is_the_identity() -> None:
    inverse = FocalInverse(gamma=0, smoothing=0, alpha_negative=0.3, alpha_positive=0.3)
    z = np.linspace(-700, 700, 4001)
    assert np.allclose(inverse(z), z, rtol=1e-12, atol=1e-9)


def test_the_reversed_alpha_shifts_the_logit_as_known() -> None:
    reversed_alpha = FocalInverse(gamma=0, smoothing=0, alpha_negative=0.61, alpha_positive=0.39)
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
    inverse = FocalInverse(gamma=gamma, smoothing=smoothing, alpha_negative=alphas[0], alpha_positive=alphas[1])
    z = np.sort(np.array(logits))
    found = inverse(z)
    assert np.isfinite(found).all()
    assert (np.diff(found) >= -1e-9 * np.abs(found[1:])).all()
    p = CalibrationMap((inverse,)).probabilities(z)
    assert ((p > 0) & (p < 1)).all()


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0, 3.0])
def test_without_smoothing_the_formula_holds_to_the_ends(gamma: float) -> None:
    """h(v) = v/φ(v) of the paper, written out; where that can no longer be computed, the order of logits is kept."""
    inverse = FocalInverse(gamma=gamma, smoothing=0, alpha_negative=1, alpha_positive=1)

    def h(v: np.ndarray) -> np.ndarray:
        return v / ((1 - v) ** gamma - gamma * (1 - v) ** (gamma - 1) * v * np.log(v))

    z = np.linspace(-14, 14, 57)
    p = 1 / (1 + np.exp(-z))
    assert inverse(z) == pytest.approx(np.log(h(p) / h(1 - p)), abs=1e-6)
    far = np.array([-1e300, -1e4, -800.0, 800.0, 1e4, 1e300])
    assert np.isfinite(inverse(far)).all()
    assert (np.diff(inverse(far)) > 0).all()


def test_beyond_saturation_it_goes_on_with_slope_one() -> None:
    inverse = FocalInverse(gamma=2, smoothing=0.1, alpha_negative=1, alpha_positive=1)
    far = inverse(np.array([5.0, 6.0]))
    assert far[1] - far[0] == pytest.approx(1.0)
    edge = minimize_scalar(
        lambda z: expected_loss(1 / (1 + np.exp(-z)), SATURATED, 2, 0.1, 1, 1), bounds=(0, 8), method="bounded"
    ).x
    assert sigmoid(inverse(np.array(edge))) == pytest.approx(SATURATED, abs=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [{"gamma": 3.5}, {"gamma": -1}, {"smoothing": 1.0}, {"alpha_negative": 0.0}, {"alpha_positive": float("inf")}],
)
def test_parameters_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong)).split("_")[0]):
        FocalInverse(**{"gamma": 2.0, "smoothing": 0.1, "alpha_negative": 0.4, "alpha_positive": 0.6, **wrong})


def truth(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 1.8, rows)
    return z, (rng.random(rows) < sigmoid(z)).astype(int)


@pytest.mark.parametrize("decimals", [0, 1, 6])
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


STEPS: tuple[Step, ...] = (
    Identity(), FocalInverse(gamma=2, smoothing=0.1, alpha_negative=0.4, alpha_positive=0.6),
    LossInverse((-1.0, 0.0, 2.0), (-3.0, 0.5, 4.0)), Temperature(1.5), Platt(slope=0.7, offset=-0.2),
    Beta(a=0.5, b=1.5, c=0.1), Isotonic((-1.0, 0.0, 1.0), (0.1, 0.1, 0.8)),
    MergedVennAbers(VennAbers((0.0, 1.0), (0.0, 0.1, 0.1, 0.4, 0.5), (0.3, 0.4, 0.6, 0.6, 1.0))),
)  # fmt: skip


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__struct_config__.tag)
def test_every_step_survives_json_and_never_falls(step: Step) -> None:
    chain = CalibrationMap((step, PriorShift(training=0.4, target=0.1)))
    again = msgspec.json.decode(msgspec.json.encode(chain), type=CalibrationMap)
    assert again == chain
    z = np.concatenate([[-1e300, -1e4], np.linspace(-40, 40, 1601), [1e4, 1e300]])
    trace = again.trace(z)
    assert [name for name, _ in trace] == ["model", step.__struct_config__.tag, "prior_shift"]
    for _, p in trace:
        assert ((p > 0) & (p < 1)).all()
        assert (np.diff(p) >= 0).all()
    assert again.trace(z.reshape(-1, 1))[-1][1].shape == (1605, 1)


def test_steps_by_hand() -> None:
    z = np.array([-2.0, 0.0, 3.0])
    assert Temperature(2.0)(z).tolist() == [-1.0, 0.0, 1.5]
    assert Platt(slope=0.5, offset=1.0)(z) == pytest.approx([0.0, 1.0, 2.5])
    s = sigmoid(z)
    assert Beta(a=0.5, b=2.0, c=0.3)(z) == pytest.approx(0.3 + 0.5 * np.log(s) - 2 * np.log(1 - s))
    assert Beta(a=1, b=1, c=0)(z) == pytest.approx(z)
    table = LossInverse((-1.0, 0.0, 2.0), (-3.0, 0.5, 4.0))
    assert table(np.array([-5.0, -1.0, -0.5, 1.0, 2.0, 7.0])) == pytest.approx([-7.0, -3.0, -1.25, 2.25, 4.0, 9.0])
    steps = Isotonic((-1.0, 0.0, 1.0), (0.1, 0.1, 0.8))
    assert sigmoid(steps(np.array([-9.0, -0.5, 0.5, 9.0]))) == pytest.approx([0.1, 0.1, 0.45, 0.8])


def test_prior_shift_by_bayes_rule() -> None:
    shift = PriorShift(training=0.384, target=0.1)
    p = np.array([0.02, 0.384, 0.9])
    survived, died = p * 0.1 / 0.384, (1 - p) * 0.9 / 0.616
    assert sigmoid(shift(logit(p))) == pytest.approx(survived / (survived + died))
    assert shift.probabilities(p) == pytest.approx(survived / (survived + died))
    assert shift.probabilities(np.array([0.0, 1.0])).tolist() == [0.0, 1.0]
    assert sigmoid(shift(logit(np.array(0.384)))) == pytest.approx(0.1), "who is as the average stays so"
    assert PriorShift(training=0.3, target=0.3)(p) == pytest.approx(p)
    # So far that the odds' factor is no number any more.
    far, back = PriorShift(training=1e-320, target=1 - 1e-16), PriorShift(training=1 - 1e-16, target=1e-320)
    assert far.probabilities(np.array([0.0, 0.5, 1.0])).tolist() == [0.0, 1.0, 1.0]
    assert back.probabilities(np.array([0.0, 0.5, 1.0])) == pytest.approx([0.0, 0.0, 1.0], abs=1e-300)


def test_a_shift_takes_the_place_of_another() -> None:
    plain = CalibrationMap((Temperature(2.0),))
    first, second = PriorShift(training=0.4, target=0.1), PriorShift(training=0.4, target=0.7)
    assert plain.prior_shift is None
    assert plain.shifted(first).prior_shift == first
    assert plain.shifted(first).shifted(second) == CalibrationMap((Temperature(2.0), second))
    assert plain.shifted(first).shifted(None) == plain
    two = CalibrationMap((Temperature(2.0), Identity(), Platt(slope=1, offset=0)))
    assert two.shifted(first).shifted(None) == two
    assert two.shifted(None) == two
    with pytest.raises(ValueError, match="last step"):
        CalibrationMap((first, Temperature(2.0)))


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"step": "temperature", "temperature": -1}, "temperature"),
        ({"step": "platt", "slope": -0.1, "offset": 0}, "slope must be at least 0"),
        ({"step": "beta", "a": 1, "b": -1, "c": 0}, "a and b must be at least 0"),
        ({"step": "isotonic", "logits": [0, 1], "probabilities": [0.5, 1]}, "inside"),
        ({"step": "isotonic", "logits": [0, 1], "probabilities": [0.5, 0.4]}, "must not fall"),
        ({"step": "isotonic", "logits": [1, 1], "probabilities": [0.4, 0.5]}, "rising"),
        ({"step": "isotonic", "logits": [0, 1], "probabilities": [0.4]}, "as many"),
        ({"step": "loss_inverse", "logits": [0, 1], "values": [0, 0]}, "values must be within ±1e.06 and rising"),
        ({"step": "loss_inverse", "logits": [0, 1], "values": [0, 1, 2]}, "equal length"),
        ({"step": "prior_shift", "training": 0.4, "target": 1}, "target prevalence is 1.0"),
        ({"step": "prior_shift", "training": 0, "target": 0.5}, "training prevalence is 0.0"),
        ({"step": "venn_abers", "predictor": {"scores": [0], "p0": [0, 0, 1], "p1": [1, 1, 1]}}, "below 1"),
        ({"step": "unheard_of"}, "Invalid value 'unheard_of'"),
    ],
)
def test_nonsense_is_refused_on_reading(step: dict[str, object], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.json.decode(msgspec.json.encode({"steps": [step]}), type=CalibrationMap)


MOST = MAX_VALUE
"""The largest parameter of any step."""
WIDE = (-MOST, MOST)


def venn_abers(
    scores: Sequence[float] = (0.5,), p0: Sequence[float] = (0.0, 0.1, 0.2), p1: Sequence[float] = (0.3, 0.4, 1.0)
) -> VennAbers:
    return VennAbers(tuple(scores), tuple(p0), tuple(p1))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Temperature(MOST), lambda: Temperature(1 / MOST), lambda: Platt(slope=0, offset=MOST),
        lambda: Platt(slope=MOST, offset=-MOST), lambda: Beta(a=0, b=0, c=MOST), lambda: Beta(a=MOST, b=MOST, c=-MOST),
        lambda: Isotonic(WIDE, (1e-300, 1 - 1e-16)), lambda: Isotonic((0.0,), (0.5,)), lambda: LossInverse(WIDE, WIDE),
        lambda: FocalInverse(gamma=0, smoothing=0.99, alpha_negative=1 / MOST, alpha_positive=MOST),
        lambda: FocalInverse(gamma=3, smoothing=0, alpha_negative=MOST, alpha_positive=1 / MOST),
        lambda: MergedVennAbers(venn_abers(WIDE, (0, 0, 0, 0, 0.9), (1e-9, 1, 1, 1, 1)), 1e-9),
        lambda: venn_abers(p0=(0, 0, 1), p1=(0, 1, 1)), lambda: venn_abers(p0=(1e-9, 0.1, 0.2), p1=(0, 0.4, 1)),
        lambda: venn_abers(p0=(0.5, 0.5, 0.5 + 9e-10), p1=(0.5, 0.5, 0.5)),
    ],
)  # fmt: skip
def test_a_bound_itself_is_accepted(make: Callable[[], object]) -> None:
    assert make() is not None


BEYOND = MOST * (1 + 1e-9)
FOCAL = {"gamma": 2.0, "smoothing": 0.1, "alpha_negative": 0.4, "alpha_positive": 0.6}
PLATT, BETA = "slope must be at least 0, both at most 1e+06", "a and b must be at least 0, all at most 1e+06"
KNOTS = "logits must be within ±1e+06 and rising, as many as probabilities, at least one"
INSIDE = "probabilities must be inside (0, 1) and must not fall"
VALUES = "values must be within ±1e+06 and rising, and at least two"
LOGITS_OF_TABLE = VALUES.replace("values", "logits")
SHIFT = PriorShift(training=0.4, target=0.5)
MONOTONE, BOTH = "the inverse is monotone from 0 to 3 only", "both must be from 1e-06 to 1e+06"
SHARE = "it must be above 0 and below 1"
SCORES = "scores must be within ±1e+06 and rising, and at least one"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Temperature(BEYOND), "temperature is 1000000.001; it must be from 1e-06 to 1e+06"),
        (lambda: Temperature(0.9e-6), "temperature is 9e-07; it must be from 1e-06 to 1e+06"),
        (lambda: Temperature(float("nan")), "temperature is nan; it must be from 1e-06 to 1e+06"),
        (lambda: Platt(slope=BEYOND, offset=0.5), f"slope and offset are 1000000.001, 0.5; {PLATT}"),
        (lambda: Platt(slope=-1e-9, offset=0), f"slope and offset are -1e-09, 0; {PLATT}"),
        (lambda: Platt(slope=1, offset=-BEYOND), f"slope and offset are 1, -1000000.001; {PLATT}"),
        (lambda: Beta(a=-1e-9, b=1, c=2), f"a, b, c are -1e-09, 1, 2; {BETA}"),
        (lambda: Beta(a=BEYOND, b=1, c=2), f"a, b, c are 1000000.001, 1, 2; {BETA}"),
        (lambda: Beta(a=1, b=-1e-9, c=2), f"a, b, c are 1, -1e-09, 2; {BETA}"),
        (lambda: Beta(a=1, b=BEYOND, c=2), f"a, b, c are 1, 1000000.001, 2; {BETA}"),
        (lambda: Beta(a=1, b=2, c=-BEYOND), f"a, b, c are 1, 2, -1000000.001; {BETA}"),
        (lambda: Isotonic((), ()), KNOTS), (lambda: Isotonic((0.0, BEYOND), (0.1, 0.2)), KNOTS),
        (lambda: Isotonic((0.0, 1.0), (0.1,)), KNOTS), (lambda: Isotonic((1.0, 1.0), (0.1, 0.2)), KNOTS),
        (lambda: Isotonic((0.0, 1.0), (0.0, 0.2)), INSIDE), (lambda: Isotonic((0.0, 1.0), (0.1, 1.0)), INSIDE),
        (lambda: Isotonic((0.0, 1.0), (0.2, 0.1)), INSIDE),
        (lambda: LossInverse((0.0,), (0.0,)), LOGITS_OF_TABLE),
        (lambda: LossInverse((0.0, BEYOND), (0.0, 1.0)), LOGITS_OF_TABLE),
        (lambda: LossInverse((1.0, 1.0), (0.0, 1.0)), LOGITS_OF_TABLE),
        (lambda: LossInverse((0.0, 1.0), (-BEYOND, 1.0)), VALUES), (lambda: LossInverse((0.0, 1.0), (1.0,)), VALUES),
        (lambda: LossInverse((0.0, 1.0), (1.0, 1.0)), VALUES),
        (lambda: LossInverse((0.0, 1.0), (0.0, 1.0, 2.0)), "logits and values must be of equal length"),
        (lambda: FocalInverse(**{**FOCAL, "gamma": 3.001}), f"gamma is 3.001; {MONOTONE}"),
        (lambda: FocalInverse(**{**FOCAL, "gamma": -0.001}), f"gamma is -0.001; {MONOTONE}"),
        (lambda: FocalInverse(**{**FOCAL, "smoothing": -0.001}), "smoothing is -0.001; it must be from 0 to 0.99"),
        (lambda: FocalInverse(**{**FOCAL, "smoothing": 0.991}), "smoothing is 0.991; it must be from 0 to 0.99"),
        (lambda: FocalInverse(**{**FOCAL, "alpha_negative": 9e-7}), f"alpha is 9e-07; {BOTH}"),
        (lambda: FocalInverse(**{**FOCAL, "alpha_positive": 2e6}), f"alpha is 2000000.0; {BOTH}"),
        (lambda: CalibrationMap((SHIFT, Identity())), "prior_shift must be the last step"),
        (lambda: PriorShift(training=0.4, target=0.0), f"the target prevalence is 0.0; {SHARE}"),
        (lambda: PriorShift(training=1.0, target=0.5), f"the training prevalence is 1.0; {SHARE}"),
        (lambda: venn_abers((), (0.0,), (1.0,)), SCORES), (lambda: venn_abers((BEYOND,)), SCORES),
        (lambda: venn_abers((1.0, 1.0), (0,) * 5, (1,) * 5), SCORES),
        (lambda: venn_abers(p0=(0, 0)), "p0 must hold 3 probabilities"),
        (lambda: venn_abers(p0=(-0.1, 0, 0)), "p0 must hold 3 probabilities"),
        (lambda: venn_abers(p1=(0.5, 1, 1.1)), "p1 must hold 3 probabilities"),
        (lambda: venn_abers(p1=(0.5, 0.5, 1, 1)), "p1 must hold 3 probabilities"),
        (lambda: venn_abers(p0=(0.1, 0, 0)), "p0 must not fall"),
        (lambda: venn_abers(p1=(0.9, 0.8, 1)), "p1 must not fall"),
        (lambda: venn_abers(p0=(0.3 + 2e-9, 0.4, 0.5)), "p0 must be at most p1"),
        (lambda: MergedVennAbers(venn_abers(), 0.0), "weight is 0.0; it must be above 0 and at most 1"),
        (lambda: MergedVennAbers(venn_abers(), 1.001), "weight is 1.001; it must be above 0 and at most 1"),
        (lambda: MergedVennAbers(venn_abers(p1=(0, 1, 1))), "p1 must stay above 0 and p0 below 1"),
        (lambda: MergedVennAbers(venn_abers(p0=(0, 0, 1))), "p1 must stay above 0 and p0 below 1"),
    ],
)  # fmt: skip
def test_what_is_beyond_a_bound_is_refused_in_words(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        make()


# Identities, for any parameters

LOGITS = st.floats(-30, 30)
SCALES = st.floats(0.05, 20)
SHARES = st.floats(0.01, 0.99)
RISING = st.lists(st.floats(-50, 50), min_size=2, max_size=8, unique_by=lambda x: round(x, 3)).map(sorted)
INVERSES = st.builds(
    FocalInverse,
    gamma=st.floats(0, 3),
    smoothing=st.just(0.0) | st.floats(0, 0.9),
    alpha_negative=SCALES,
    alpha_positive=SCALES,
)
VENN_ABERS = st.lists(st.tuples(LOGITS, st.booleans()), min_size=2, max_size=25).map(
    lambda rows: fit_venn_abers(np.array([z for z, _ in rows]), np.array([int(y) for _, y in rows]))
)


@st.composite
def tables(draw: st.DrawFn) -> LossInverse:
    logits = draw(RISING)
    values = draw(
        st.lists(st.floats(-50, 50), min_size=len(logits), max_size=len(logits), unique_by=lambda x: round(x, 3))
    )
    return LossInverse(tuple(logits), tuple(sorted(values)))


@st.composite
def isotonic(draw: st.DrawFn) -> Isotonic:
    logits = draw(RISING)
    return Isotonic(tuple(logits), tuple(sorted(draw(st.lists(SHARES, min_size=len(logits), max_size=len(logits))))))


ANY_STEP = st.one_of(
    st.just(Identity()), INVERSES, tables(), isotonic(), st.builds(Temperature, SCALES),
    st.builds(Platt, slope=st.floats(0, 20), offset=LOGITS), st.builds(Beta, a=SCALES, b=SCALES, c=LOGITS),
    st.builds(MergedVennAbers, VENN_ABERS, SHARES | st.just(1.0)),
)  # fmt: skip
MAPS = st.builds(
    lambda steps, shift: CalibrationMap((*steps, *shift)),
    st.lists(ANY_STEP, max_size=4), st.lists(st.builds(PriorShift, training=SHARES, target=SHARES), max_size=1),
)  # fmt: skip


@given(MAPS, st.lists(st.floats(-1e300, 1e300) | LOGITS, min_size=1, max_size=30))
def test_any_chain_of_steps_is_finite_rises_and_survives_json(chain: CalibrationMap, logits: list[float]) -> None:
    z = np.sort(np.array(logits))
    p = chain.probabilities(z)
    assert ((p > 0) & (p < 1)).all()
    assert (np.diff(p) >= -1e-12).all()
    again = msgspec.json.decode(msgspec.json.encode(chain), type=CalibrationMap)
    assert again == chain
    assert again.probabilities(z).tolist() == p.tolist()
    # Row by row: no probability depends on another's.
    assert [float(chain.probabilities(one)[0]) for one in z.reshape(-1, 1)] == pytest.approx(p.tolist(), abs=1e-12)
    assert len(chain.trace(z)) == len(chain.steps) + 1


@given(LOGITS, SHARES)
def test_logit_and_sigmoid_undo_each_other(z: float, p: float) -> None:
    assert logit(sigmoid(np.array(z))) == pytest.approx(z, abs=1e-3, rel=1e-9)
    assert sigmoid(logit(np.array(p))) == pytest.approx(p)
    assert sigmoid(np.array(z)) + sigmoid(np.array(-z)) == pytest.approx(1)


@given(st.lists(LOGITS, min_size=1, max_size=9), SCALES, LOGITS, SHARES, SHARES)
def test_steps_that_undo_each_other(logits: list[float], scale: float, offset: float, one: float, other: float) -> None:
    z = np.array(logits)
    assert Temperature(scale)(Temperature(1 / scale)(z)) == pytest.approx(z)
    there, back = Platt(slope=scale, offset=offset), Platt(slope=1 / scale, offset=-offset / scale)
    assert back(there(z)) == pytest.approx(z, abs=1e-9)
    assert Beta(a=scale, b=scale, c=offset)(z) == pytest.approx(there(z), abs=1e-9)
    shift, unshift = PriorShift(training=one, target=other), PriorShift(training=other, target=one)
    assert unshift(shift(z)) == pytest.approx(z, abs=1e-9)
    p = sigmoid(z)
    assert shift.probabilities(p) == pytest.approx(sigmoid(shift(z)), abs=1e-12)
    assert unshift.probabilities(shift.probabilities(p)) == pytest.approx(p, abs=1e-6)


@given(tables(), st.lists(st.floats(-200, 200), min_size=1, max_size=9))
def test_a_table_read_backwards_undoes_itself(table: LossInverse, logits: list[float]) -> None:
    z = np.array(logits)
    assert LossInverse(table.values, table.logits)(table(z)) == pytest.approx(z, abs=1e-6)


@given(INVERSES, st.floats(-8, 8))
def test_the_inverse_is_where_the_expected_loss_is_stationary(inverse: FocalInverse, z: float) -> None:
    eta = float(sigmoid(inverse(np.array(z))))
    alphas = (inverse.alpha_negative, inverse.alpha_positive)
    unweighted = float(sigmoid(inverse(np.array(z)) + np.log(alphas[1] / alphas[0])))
    if not 1 - SATURATED < unweighted < SATURATED:
        return
    step = 1e-4

    def loss(x: float) -> float:
        return expected_loss(float(sigmoid(np.array(x))), eta, inverse.gamma, inverse.smoothing, *alphas)

    slope, bend = (
        (loss(z + step) - loss(z - step)) / (2 * step),
        (loss(z + step) - 2 * loss(z) + loss(z - step)) / step**2,
    )
    # The minimum is within a hundredth of a logit.
    assert abs(slope) <= 0.01 * abs(bend) + 1e-7


@given(INVERSES, st.floats(-60, 60))
def test_the_inverse_knows_no_difference_between_the_classes(inverse: FocalInverse, z: float) -> None:
    mirrored = FocalInverse(
        gamma=inverse.gamma,
        smoothing=inverse.smoothing,
        alpha_negative=inverse.alpha_positive,
        alpha_positive=inverse.alpha_negative,
    )
    assert mirrored(np.array(-z)) == pytest.approx(-inverse(np.array(z)), abs=1e-6)
    assert inverse.improper or inverse(np.array(z)) == pytest.approx(z)


@given(VENN_ABERS, st.lists(LOGITS, min_size=1, max_size=20), SHARES)
def test_the_merged_probability_lies_between_the_two_and_a_weight_goes_part_of_the_way(
    predictor: VennAbers, logits: list[float], weight: float
) -> None:
    z = np.array(logits)
    p0, p1 = predictor.interval(z)
    whole, part = MergedVennAbers(predictor), MergedVennAbers(predictor, weight)
    merged = sigmoid(whole(z))
    assert merged == pytest.approx(p1 / (1 - p0 + p1), abs=1e-12)
    assert ((p0 - 1e-12 <= merged) & (merged <= p1 + 1e-12)).all()
    assert part(z) == pytest.approx((1 - weight) * z + weight * whole(z), abs=1e-9)


def test_the_rounding_of_fits_is_taken_out() -> None:
    rounded = np.array([-1e-17, 0.5, 0.5 - 1e-16, 0.7, 1 + 3e-16])
    found = VennAbers.checked(np.array([0.0, 1.0]), rounded, rounded)
    assert found.scores == (0.0, 1.0)
    assert found.p0 == found.p1 == (0.0, 0.5, 0.5, 0.7, 1.0)
