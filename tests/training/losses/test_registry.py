"""The losses against torch, against NumPy in float64, and against the defects that they must not have again."""

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from models.calibration.inverse import FocalInverse
from training.data.table import Table
from training.losses.functions import smoothed
from training.losses.registry import (
    LOSSES,
    Loss,
    LossError,
    balanced_alpha,
    balanced_weights,
    make_loss,
)

POINTWISE = [name for name, entry in LOSSES.items() if entry.pointwise]
CLASSES = ("died", "survived")
EVEN = dict.fromkeys(CLASSES, 1.0)
RNG = np.random.default_rng(0)
LOGITS, LABELS = RNG.normal(size=(64, 2)).astype(np.float32) * 3, RNG.integers(0, 2, 64)


def value(loss: Loss, logits: np.ndarray = LOGITS, labels: np.ndarray = LABELS, step: int = 10**6) -> float:
    return float(loss(mx.array(logits.astype(np.float32)), mx.array(labels), step).item())


def reference(name: str, z: np.ndarray, y: np.ndarray, parameters: dict[str, Any]) -> np.ndarray:
    """Each pointwise loss in float64, from its formula; z the logit of survived against died."""
    lp = np.stack([-np.logaddexp(0, z), -np.logaddexp(0, -z)], axis=1)
    p = np.exp(lp)
    gamma, smoothing = parameters.get("gamma", 0.0), parameters.get("smoothing", 0.0)
    by_class = parameters.get("alpha") or parameters.get("weights") or EVEN
    weight = np.where(y == 1, by_class["survived"], by_class["died"])
    s = np.full((len(y), 2), smoothing / 2)
    s[np.arange(len(y)), y] += 1 - smoothing
    if name == "focal_smooth_note":
        return weight * (1 - (p * s).sum(1)) ** gamma * -(s * lp).sum(1)
    return weight * -(s * (1 - p) ** gamma * lp).sum(1)


@pytest.mark.parametrize("name", POINTWISE)
def test_equal_to_the_formula_in_float64(name: str) -> None:
    loss = make_loss(name, CLASSES, LABELS)
    expected = reference(name, (LOGITS[:, 1] - LOGITS[:, 0]).astype(float), LABELS, loss.parameters)
    found = np.array(loss.per_row(mx.array(LOGITS), mx.array(LABELS), 10**6))
    assert np.allclose(found, expected, rtol=2e-5, atol=1e-6)
    assert value(loss) == pytest.approx(expected.mean(), rel=1e-5)


@pytest.mark.parametrize("name", list(LOSSES))
def test_its_value_is_that_of_all_rows_as_one_batch(name: str) -> None:
    loss = make_loss(name, CLASSES, LABELS)
    assert loss.value(LOGITS, LABELS, 300) == pytest.approx(value(loss, step=300), rel=1e-5)
    shifted = LOGITS + RNG.normal(size=(len(LOGITS), 1))
    assert loss.value(shifted, LABELS, 300) == pytest.approx(value(loss, step=300), rel=1e-4)


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradients_equal_finite_differences(name: str) -> None:
    loss = make_loss(name, CLASSES, LABELS)
    gradient = np.array(mx.grad(lambda logits: loss(logits, mx.array(LABELS), 300))(mx.array(LOGITS)))
    for row, column in ((0, 0), (1, 1), (7, 0), (31, 1)):
        step = np.zeros_like(LOGITS)
        step[row, column] = 0.05
        slope = (value(loss, LOGITS + step, step=300) - value(loss, LOGITS - step, step=300)) / 0.1
        assert gradient[row, column] == pytest.approx(slope, abs=2e-4)


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("z", [5.0, 20.0, 60.0])
def test_confident_mistakes_keep_their_gradient(name: str, z: float) -> None:
    loss = (
        make_loss(name, CLASSES, alpha=EVEN)
        if "alpha" in LOSSES[name].defaults
        else make_loss(name, CLASSES, np.array([0, 1]))
    )
    for label, logits in ((0, [[0.0, z]]), (1, [[z, 0.0]])):
        gradient = mx.grad(lambda at, label=label: loss(at, mx.array([label]), 10**6))(mx.array(logits))
        assert np.isfinite(np.array(gradient)).all()
        wrong = float(gradient[0, 1 - label].item())
        assert wrong > 0.5


def test_without_focus_or_smoothing_all_are_cross_entropy() -> None:
    plain = value(make_loss("cross_entropy", CLASSES))
    assert value(make_loss("focal", CLASSES, gamma=0.0, alpha=EVEN)) == pytest.approx(plain, rel=1e-6)
    assert value(make_loss("label_smooth", CLASSES, smoothing=0.0)) == pytest.approx(plain, rel=1e-6)
    assert value(make_loss("weighted_ce", CLASSES, weights=EVEN)) == pytest.approx(plain, rel=1e-6)
    for name in ("focal_smooth", "focal_smooth_note"):
        assert value(make_loss(name, CLASSES, gamma=0.0, smoothing=0.0, alpha=EVEN)) == pytest.approx(plain, rel=1e-6)


def test_equal_to_torch(transformers_classifier: type) -> None:
    import torch

    logits, labels = torch.tensor(LOGITS), torch.tensor(LABELS)
    smooth = torch.nn.functional.cross_entropy(logits, labels, label_smoothing=0.1).item()
    assert value(make_loss("label_smooth", CLASSES, smoothing=0.1)) == pytest.approx(smooth, rel=1e-5)
    weights = {"died": 0.8, "survived": 1.3}
    rows = torch.nn.functional.cross_entropy(logits, labels, torch.tensor([0.8, 1.3]), reduction="none")
    assert value(make_loss("weighted_ce", CLASSES, weights=weights)) == pytest.approx(rows.mean().item(), rel=1e-5)


def test_alpha_favours_the_rarer_class_by_name(table: Table) -> None:
    alpha = balanced_alpha(table.labels, CLASSES)
    assert alpha["survived"] == pytest.approx(0.616, abs=1e-3)
    assert alpha["died"] + alpha["survived"] == pytest.approx(1)
    weights = balanced_weights(table.labels, CLASSES)
    assert weights["survived"] / weights["died"] == pytest.approx(549 / 342)
    heavier = make_loss("focal", CLASSES, alpha={"died": 1.0, "survived": 3.0})
    even = make_loss("focal", CLASSES, alpha=EVEN)
    for label, factor in ((0, 1.0), (1, 3.0)):
        one = (LOGITS[:1], np.array([label]))
        assert value(heavier, *one) == pytest.approx(factor * value(even, *one), rel=1e-6)


def test_the_note_preset_is_the_notes_numbers() -> None:
    assert make_loss("focal_smooth", CLASSES, preset="note").parameters == {
        "gamma": 2.0, "smoothing": 0.1, "alpha": {"died": 0.61, "survived": 0.39},
    }  # fmt: skip
    assert make_loss("weighted_ce", CLASSES, preset="note").parameters == {"weights": {"died": 1.56, "survived": 1.0}}
    assert make_loss("focal", CLASSES, preset="note", gamma=1.0).parameters["gamma"] == 1.0


def test_smoothed_targets_sum_to_one() -> None:
    targets = np.array(smoothed(mx.array([0, 1]), 0.1, 2))
    assert np.allclose(targets, [[0.95, 0.05], [0.05, 0.95]])
    assert np.allclose(targets.sum(axis=1), 1)


# The research note's own code has .989 for its form: its targets sum to 1 − ε/2, ours to 1.
@pytest.mark.parametrize(("name", "expected"), [("focal_smooth_note", 0.995), ("focal_smooth", 0.750)])
def test_the_minimiser_at_certainty(name: str, expected: float) -> None:
    parameters = {"gamma": 2.0, "smoothing": 0.1, "alpha": EVEN}
    one = np.array([1])
    best = minimize_scalar(
        lambda z: reference(name, np.array([z]), one, parameters)[0], bounds=(0, 9), method="bounded"
    ).x
    assert 1 / (1 + np.exp(-best)) == pytest.approx(expected, abs=1e-3)
    loss = make_loss(name, CLASSES, **parameters)
    slope = mx.grad(lambda z: loss(mx.stack([mx.zeros(1), z], axis=1), mx.array([1])))(mx.array([best]))
    assert abs(float(slope.item())) < 1e-4


def test_adaptive_goes_by_the_step_it_is_given() -> None:
    loss = make_loss("adaptive", CLASSES, alpha={"died": 0.4, "survived": 0.6}, gamma=2.0)
    half_focal = make_loss("focal", CLASSES, gamma=0.0, alpha={"died": 0.5, "survived": 0.5})
    assert value(loss, step=0) == pytest.approx(value(half_focal), rel=1e-6)
    assert value(loss, step=0) == value(loss, step=0)
    middle = make_loss("focal", CLASSES, gamma=2.0, alpha={"died": 0.45, "survived": 0.55})
    assert value(loss, step=500) == pytest.approx(value(middle), rel=1e-6)
    final = make_loss("focal", CLASSES, gamma=2.0, alpha={"died": 0.4, "survived": 0.6})
    assert value(loss, step=10_000) == pytest.approx(value(final), rel=1e-6)
    compiled = mx.compile(lambda logits, step: loss(logits, mx.array(LABELS), step))
    for step in (0, 250, 2000):
        assert float(compiled(mx.array(LOGITS), mx.array(step)).item()) == pytest.approx(
            value(loss, step=step), rel=1e-5
        )


def test_overlap_losses_by_hand() -> None:
    logits = np.log(np.array([[0.2, 0.8], [0.6, 0.4], [0.9, 0.1]]))
    labels = np.array([1, 1, 0])
    assert value(make_loss("dice", CLASSES), logits, labels) == pytest.approx(
        1 - (2 * 1.2 + 1) / (1.3 + 2 + 1), rel=1e-5
    )
    expected = 1 - (1.2 + 1) / (1.2 + 0.7 * 0.8 + 0.3 * 0.1 + 1)
    assert value(make_loss("tversky", CLASSES), logits, labels) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("focul", {}, "there is no loss 'focul'"),
        ("cross_entropy", {"gamma": 2.0}, "cross_entropy has no parameter 'gamma'; its parameters: none"),
        ("focal", {"smoothing": 0.1, "alpha": EVEN}, "focal has no parameter 'smoothing'"),
        ("focal", {"gamma": 3.5, "alpha": EVEN}, "gamma is 3.5; it must be a number from 0 to 3"),
        ("focal", {"gamma": float("nan"), "alpha": EVEN}, "gamma is nan"),
        ("focal", {"alpha": {"survived": 0.4}}, "alpha is"),
        ("focal", {"alpha": {"died": 0.0, "survived": 1.0}}, "a positive number"),
        ("focal", {}, "focal needs alpha"),
        ("label_smooth", {"smoothing": "0.1"}, "smoothing is '0.1'"),
        ("focal_smooth", {"preset": "paper"}, "there is no preset 'paper'"),
    ],
)
def test_what_does_not_apply_is_refused(name: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(LossError, match=message):
        make_loss(name, CLASSES, **parameters)


@pytest.mark.parametrize("name", ["dice", "tversky"])
def test_batch_losses_have_neither_rows_nor_inverse(name: str) -> None:
    loss = make_loss(name, CLASSES)
    assert loss.inverse() is None
    with pytest.raises(LossError, match="whole batch"):
        loss.per_row(mx.array(LOGITS), mx.array(LABELS))


@pytest.mark.parametrize("name", list(LOSSES))
@pytest.mark.parametrize("preset", [None, "note"])
def test_classes_turned_round_are_the_same_loss(name: str, preset: str | None) -> None:
    """Values, weights and inverse follow the names: not alphabetical, and not by position."""
    classes = ("stays", "leaves")
    loss = make_loss(name, classes, LABELS, preset)
    if not LOSSES[name].pointwise:
        return
    turned = make_loss(name, classes[::-1], 1 - LABELS, **loss.parameters)
    assert turned.parameters == loss.parameters
    if preset is None:
        recomputed = make_loss(name, classes[::-1], 1 - LABELS).parameters
        for parameter in ("alpha", "weights"):
            assert recomputed.get(parameter) == pytest.approx(loss.parameters.get(parameter))
    assert value(turned, LOGITS[:, ::-1], 1 - LABELS, 300) == pytest.approx(value(loss, step=300), rel=1e-6)
    inverse, back = loss.inverse(300), turned.inverse(300)
    assert inverse is not None
    assert back is not None
    z = np.linspace(-3, 3, 61)
    assert back(-z) == pytest.approx(-inverse(z), abs=1e-4)


def test_the_inverse_carries_the_losss_own_parameters() -> None:
    inverse = make_loss("focal_smooth", CLASSES, preset="note").inverse()
    assert isinstance(inverse, FocalInverse)
    assert (inverse.gamma, inverse.smoothing, inverse.alpha_negative, inverse.alpha_positive) == (2.0, 0.1, 0.61, 0.39)
