"""The losses of three classes and more: the formulas in NumPy, two classes as a case, the inverse and minimisation."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from scipy.optimize import minimize

from models.calibration.inverse import SATURATED, ClasswiseInverse, FocalInverse
from training.losses.functions import smoothed
from training.losses.registry import LOSSES, LossError, balanced_alpha, balanced_weights, make_loss

POINTWISE = [name for name, entry in LOSSES.items() if entry.pointwise]
CLOSED = [name for name in POINTWISE if name != "focal_smooth_note"]
CLASSES = ("red", "green", "blue", "grey")
RNG = np.random.default_rng(1)
LOGITS, LABELS = RNG.normal(size=(80, 4)).astype(np.float32) * 3, RNG.choice(4, 80, p=[0.5, 0.3, 0.15, 0.05])
ROUGH = {"red": 0.1, "green": 0.2, "blue": 0.3, "grey": 0.4}


def reference(name: str, z: np.ndarray, y: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    """Each pointwise loss in float64, from its formula, of logits (n, K)."""
    classes = z.shape[1]
    log_p = z - np.logaddexp.reduce(z, axis=1, keepdims=True)
    p = np.exp(log_p)
    gamma, smoothing = parameters.get("gamma", 0.0), parameters.get("smoothing", 0.0)
    by_class = parameters.get("alpha") or parameters.get("weights")
    weight = np.ones(len(y)) if by_class is None else np.array(list(by_class.values()))[y]
    s = np.full(z.shape, smoothing / classes)
    s[np.arange(len(y)), y] += 1 - smoothing
    if name == "focal_smooth_note":
        return np.asarray(weight * (1 - (p * s).sum(1)) ** gamma * -(s * log_p).sum(1))
    return np.asarray(weight * -(s * (1 - p) ** gamma * log_p).sum(1))


@pytest.mark.parametrize("name", POINTWISE)
def test_equal_to_the_formula_in_float64(name: str) -> None:
    loss = make_loss(name, CLASSES, LABELS)
    expected = reference(name, LOGITS.astype(float), LABELS, loss.parameters)
    found = np.array(loss.per_row(mx.array(LOGITS), mx.array(LABELS), 10**6))
    assert np.allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("name", POINTWISE)
def test_gradients_equal_finite_differences(name: str) -> None:
    loss = make_loss(name, CLASSES, LABELS)
    gradient = np.array(mx.grad(lambda logits: loss(logits, mx.array(LABELS), 10**6))(mx.array(LOGITS)))
    at = LOGITS.astype(float)
    for row, column in ((0, 0), (1, 1), (7, 2), (31, 3)):
        step = np.zeros_like(at)
        step[row, column] = 1e-5
        high, low = (reference(name, at + way * step, LABELS, loss.parameters).mean() for way in (1, -1))
        assert gradient[row, column] == pytest.approx((high - low) / 2e-5, abs=1e-5)


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("z", [5.0, 20.0, 60.0])
def test_confident_mistakes_keep_their_gradient(name: str, z: float) -> None:
    weights = {key: dict.fromkeys(CLASSES, 1.0) for key in ("alpha", "weights") if key in LOSSES[name].defaults}
    loss = make_loss(name, CLASSES, **weights)
    gradient = np.array(mx.grad(lambda at: loss(at, mx.array([2]), 10**6))(mx.array([[0.0, z, 0.0, 0.0]])))
    assert np.isfinite(gradient).all()
    assert gradient[0, 1] > 0.5


@pytest.mark.parametrize("name", POINTWISE)
def test_two_classes_and_one_that_is_never_said_are_two(name: str) -> None:
    """Smoothing spreads over all classes, so it is left out here."""
    labels, two, three = LABELS % 2, ("a", "b"), ("a", "b", "c")
    given: dict[str, Any] = {"smoothing": 0.0} if "smoothing" in LOSSES[name].defaults else {}
    for key in ("alpha", "weights"):
        if key in LOSSES[name].defaults:
            given[key] = {"a": 0.3, "b": 0.7}
    padded = {key: {**value, "c": 1.0} if isinstance(value, dict) else value for key, value in given.items()}
    pair = mx.array(LOGITS[:, :2])
    never = mx.concatenate([pair, mx.full((len(LOGITS), 1), -60.0)], axis=1)
    ours = make_loss(name, three, **padded).per_row(never, mx.array(labels), 10**9)
    theirs = make_loss(name, two, **given).per_row(pair, mx.array(labels), 10**9)
    assert np.allclose(np.array(ours), np.array(theirs), rtol=1e-5, atol=1e-7)


def test_smoothed_targets_sum_to_one() -> None:
    targets = np.array(smoothed(mx.array([0, 3]), 0.2, 4))
    assert np.allclose(targets, [[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.05, 0.85]])


def test_weights_come_from_the_classes_counts() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    alpha = balanced_alpha(labels, ("a", "b", "c"))
    assert alpha == pytest.approx({"a": 1 / 9, "b": 2 / 9, "c": 6 / 9})
    assert balanced_weights(labels, ("a", "b", "c")) == pytest.approx({"a": 100 / 180, "b": 100 / 90, "c": 100 / 30})
    shares = 1 / np.bincount(LABELS % 2)
    assert list(balanced_alpha(LABELS % 2, ("a", "b")).values()) == pytest.approx(shares / shares.sum(), abs=1e-15)


def minimiser(name: str, eta: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    """Logits (K,) of least expected loss for a row of class k with probability ``eta`` (K,)."""
    every = np.arange(len(eta))

    def expected(free: np.ndarray) -> float:
        z = np.tile(np.append(free, 0.0), (len(eta), 1))
        return float(eta @ reference(name, z, every, parameters))

    found = minimize(expected, np.zeros(len(eta) - 1), method="BFGS", options={"gtol": 1e-10})
    return np.append(found.x, 0.0)


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("eta", [(0.4, 0.3, 0.2, 0.1), (0.85, 0.05, 0.06, 0.04), (0.25, 0.25, 0.25, 0.25)])
def test_the_inverse_gives_back_the_truth_that_the_minimiser_stands_for(name: str, eta: tuple[float, ...]) -> None:
    given = {key: ROUGH for key in ("alpha", "weights") if key in LOSSES[name].defaults}
    loss = make_loss(name, CLASSES, **given)
    inverse = loss.inverse()
    assert isinstance(inverse, ClasswiseInverse)
    z = minimiser(name, np.array(eta), loss.parameters)
    true = inverse(z)
    shares = np.exp(true) / np.exp(true).sum()
    assert shares == pytest.approx(eta, abs=2e-5)
    assert true.sum() == pytest.approx(0)


@pytest.mark.parametrize(("gamma", "smoothing"), [(0.0, 0.2), (0.7, 0.0), (2.0, 0.1), (3.0, 0.0)])
def test_of_two_classes_the_inverse_is_the_one_of_two(gamma: float, smoothing: float) -> None:
    z = np.linspace(-2, 2, 401)
    two = FocalInverse(gamma=gamma, smoothing=smoothing, alpha_negative=0.3, alpha_positive=0.7)
    many = ClasswiseInverse(gamma=gamma, smoothing=smoothing, alpha=(0.3, 0.7))
    pair = many(np.stack([np.zeros_like(z), z], axis=1))
    known = np.abs(two(z) + np.log(0.7 / 0.3)) < np.log(SATURATED / (1 - SATURATED))
    assert known.sum() > 100
    assert (pair[:, 1] - pair[:, 0])[known] == pytest.approx(two(z)[known], abs=1e-9)


@pytest.mark.parametrize("scale", [1.0, 30.0, 700.0])
def test_the_inverse_is_finite_and_keeps_the_order_of_a_rows_classes(scale: float) -> None:
    scores = np.random.default_rng(0).normal(size=(2000, 5)) * scale
    true = ClasswiseInverse(gamma=2.0, smoothing=0.1, alpha=(1.0,) * 5)(scores)
    assert np.isfinite(true).all()
    inside = np.abs(scores - scores.max(axis=1, keepdims=True)).max(axis=1) < 600
    order = np.argsort(scores, axis=1)
    assert (np.diff(np.take_along_axis(true, order, 1), axis=1)[inside] > 0).all()


@pytest.mark.parametrize("name", ["dice", "tversky"])
def test_losses_of_two_classes_say_so(name: str) -> None:
    with pytest.raises(LossError, match=f"{name} is a loss of the positive one of two classes, and there are 4"):
        make_loss(name, CLASSES, LABELS)


def test_the_notes_numbers_are_for_two_classes() -> None:
    with pytest.raises(LossError, match="the preset note has numbers for two classes, and there are 4"):
        make_loss("focal", CLASSES, LABELS, "note")
    assert make_loss("focal_smooth_note", CLASSES, LABELS).inverse() is None


def test_weights_must_name_each_class() -> None:
    with pytest.raises(LossError, match="must give each of red, green, blue, grey a positive number"):
        make_loss("focal", CLASSES, alpha={"red": 1.0, "green": 1.0})
