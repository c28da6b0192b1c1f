"""The numeric inverse against the closed forms, and both against training to convergence where the truth is known."""

from typing import Any

import mlx.core as mx
import mlx.optimizers as optim
import numpy as np
import pytest

from models.calibration.inverse import SATURATED, FocalInverse
from models.calibration.logit import logit, sigmoid
from training.losses.pointwise_inverse import InverseError, numeric_inverse, true_logit
from training.losses.registry import LOSSES, Loss, make_loss

POINTWISE = [name for name, entry in LOSSES.items() if entry.pointwise]
CLOSED = [name for name in POINTWISE if name != "focal_smooth_note"]
LABELS = np.repeat([0, 1], [549, 342])
PRESETS = [None, "note"]
CLASSES = ("died", "survived")


@pytest.mark.parametrize("name", CLOSED)
@pytest.mark.parametrize("preset", PRESETS)
def test_the_closed_form_equals_the_numeric_one(name: str, preset: str | None) -> None:
    loss = make_loss(name, CLASSES, LABELS, preset)
    closed = loss.inverse()
    assert isinstance(closed, FocalInverse)
    reached = SATURATED if closed.smoothing == 0 else 0.95
    table = numeric_inverse(loss.slopes)
    grid = np.linspace(table.logits[0], table.logits[-1], 3001)
    grid = grid[np.abs(table(grid)) <= logit(np.array(reached))]
    assert len(grid) > 1000
    assert np.abs(closed(grid) - true_logit(loss.slopes, grid)).max() < 1e-5
    assert np.abs(closed(grid) - table(grid)).max() < 1e-4


@pytest.mark.parametrize(("gamma", "smoothing"), [(0.0, 0.2), (0.7, 0.0), (1.0, 0.05), (3.0, 0.1)])
def test_the_closed_form_equals_the_numeric_one_at_other_parameters(gamma: float, smoothing: float) -> None:
    loss = make_loss("focal_smooth", CLASSES, gamma=gamma, smoothing=smoothing, alpha={"died": 0.2, "survived": 0.8})
    closed = loss.inverse()
    assert closed is not None
    table = numeric_inverse(loss.slopes)
    eta = np.linspace(0.1, 0.9, 200)
    z = np.interp(logit(eta), table.values, table.logits)
    assert sigmoid(closed(z)) == pytest.approx(eta, abs=2e-5)


def converged(loss: Loss, survived: np.ndarray, died: np.ndarray) -> np.ndarray:
    """Logits (K,) of K groups that share one each, after full-batch training on the counts of their rows."""
    groups = len(survived)
    labels, counts = mx.array([1] * groups + [0] * groups), mx.array(np.append(survived, died).astype(np.float32))
    counts = counts / counts.sum()

    def total(z: mx.array) -> mx.array:
        both = mx.concatenate([z, z])
        return mx.sum(counts * loss.per_row(mx.stack([mx.zeros_like(both), both], axis=1), labels, 10**9))

    gradient = mx.grad(total)
    optimizer = optim.Adam(optim.cosine_decay(0.05, 1500))
    parameters = {"z": mx.zeros(groups)}
    for _ in range(1500):
        parameters = optimizer.apply_gradients({"z": gradient(parameters["z"])}, parameters)
        mx.eval(parameters, optimizer.state)
    assert float(mx.abs(gradient(parameters["z"])).max()) < 1e-5
    return np.array(parameters["z"]).astype(np.float64)


@pytest.mark.parametrize("name", POINTWISE)
@pytest.mark.parametrize("preset", PRESETS)
def test_training_to_convergence_on_a_known_truth_gives_it_back(name: str, preset: str | None) -> None:
    eta, rows = np.array([0.05, 0.2, 0.384, 0.5, 0.7, 0.95]), 100_000
    survived = np.random.default_rng(0).binomial(rows, eta)
    loss = make_loss(name, CLASSES, LABELS, preset)
    inverse = loss.inverse()
    assert inverse is not None
    z = converged(loss, survived, rows - survived)
    recovered = sigmoid(inverse(z))
    assert recovered == pytest.approx(survived / rows, abs=1e-3)
    assert (np.abs(recovered - eta) < 4 * np.sqrt(eta * (1 - eta) / rows) + 1e-3).all()
    if name not in ("cross_entropy",):
        assert np.abs(sigmoid(z) - eta).max() > 0.02, "the loss bends, so the inverse had something to do"


@pytest.mark.parametrize("gamma", [0.5, 2.0, 3.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
@pytest.mark.parametrize("survived", [0.1, 0.39, 0.95])
def test_the_notes_loss_has_an_inverse_over_all_its_parameters(gamma: float, smoothing: float, survived: float) -> None:
    alpha = {"died": 1 - survived, "survived": survived}
    inverse = make_loss("focal_smooth_note", CLASSES, gamma=gamma, smoothing=smoothing, alpha=alpha).inverse()
    assert inverse is not None
    z = np.linspace(-700, 700, 5001)
    assert (np.diff(inverse(z)) > 0).all()
    far = inverse(np.array([30.0, 31.0, -30.0, -31.0]))
    assert far[1] - far[0] == pytest.approx(1)
    assert far[2] - far[3] == pytest.approx(1)


def test_adaptive_is_undone_as_far_as_its_ramps_went() -> None:
    loss = make_loss("adaptive", CLASSES, LABELS)
    for step in (0, 100, 700, 5000):
        closed = loss.inverse(step)
        assert closed is not None
        table = numeric_inverse(lambda z, step=step: loss.slopes(z, step))
        z = np.linspace(table.logits[0], table.logits[-1], 500)
        assert np.abs(closed(z) - table(z)).max() < 1e-4
    start = loss.inverse(0)
    assert start is not None
    assert start(np.array([-2.0, 1.5])) == pytest.approx([-2.0, 1.5])


def hinge(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (z > -1).astype(float), -(z < 1).astype(float)


def bending_back(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Stationary at the true logit z − 1.5 sin 2z, which falls around 0."""
    return np.ones_like(z), -np.exp(1.5 * np.sin(2 * z) - z)


@pytest.mark.parametrize(
    ("slopes", "message"),
    [
        (lambda z: (-np.ones_like(z), np.ones_like(z)), "even chance"),
        (lambda z: (np.full_like(z, 3.0), -np.ones_like(z)), "do not reach"),
        (hinge, "share one minimiser"),
        (bending_back, "share one minimiser"),
    ],
)
def test_a_loss_that_does_not_tell_the_probability_is_refused(slopes: Any, message: str) -> None:
    with pytest.raises(InverseError, match=message):
        numeric_inverse(slopes)
