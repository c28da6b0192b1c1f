"""The losses: one registry, each a function of (logits, targets), with its parameters checked by name.

Notation: p_k the model's probability of class k, y the row's class, s = (1 − ε) onehot(y) + ε/2 the smoothed target,
γ the focusing, α_y the weight of the row's class. Everything is computed from log p, so that confident mistakes
keep their gradient, and 1 − p_k is the other class's probability, exact where p_k rounds to 1. Classes are those of a
table's schema, in its order; α and weights are by name, and by position (K,) inside the formulas.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from msgspec import Struct

from models.calibration.inverse import FocalInverse, LossInverse
from training.losses.pointwise_inverse import numeric_inverse

ByClass = dict[str, float]
Weights = Sequence[Any]
"""Of each class, in order: numbers, or scalar arrays."""

NOTE: dict[str, Any] = {"gamma": 2.0, "smoothing": 0.1, "alpha": (0.61, 0.39), "weights": (1.56, 1.0)}
"""The numbers of the research note that started this project, for comparison only: it takes the positive class for the
majority, where it is the rarer, so its α and weights, here in the order of the classes, favour the wrong one."""

PRESETS = {"note": NOTE}

RAMPED = 10**9
"""A number of steps after which `adaptive` has reached its end."""


class LossError(ValueError):
    """A loss or parameter that does not exist, does not apply, or is out of range."""


class Loss(Struct, frozen=True):
    """A loss with its parameters: ``loss(logits (B, K), labels (B,), step)`` → scalar, the mean over rows.

    ``parameters`` that differ by class are by the names of ``classes``, which are in the order of the logits. ``step``
    is the number of optimisation steps done; only `adaptive` looks at it, and it may be an mx.array.
    """

    name: str
    classes: tuple[str, ...]
    parameters: dict[str, Any]

    def __call__(self, logits: mx.array, labels: mx.array, step: int | mx.array = 0) -> mx.array:
        return mx.mean(LOSSES[self.name].function(_log_p(logits), labels, step, **self._positional))

    def per_row(self, logits: mx.array, labels: mx.array, step: int | mx.array = 0) -> mx.array:
        """Loss of each row (B,); raises LossError for dice and tversky, which are losses of a whole batch."""
        if not LOSSES[self.name].pointwise:
            raise LossError(f"{self.name} is a loss of a whole batch, not of single rows")
        return LOSSES[self.name].function(_log_p(logits), labels, step, **self._positional)

    @property
    def _positional(self) -> dict[str, Any]:
        return {
            name: tuple(value[each] for each in self.classes) if isinstance(value, Mapping) else value
            for name, value in self.parameters.items()
        }

    def value(self, logits: np.ndarray, labels: np.ndarray, step: int = RAMPED) -> float:
        """The loss of logits (n, K), in its own scale, all rows as one batch."""
        return float(np.array(self(mx.array(logits.astype(np.float32)), mx.array(labels), step)))

    def slopes(self, logits: np.ndarray, step: int = RAMPED) -> tuple[np.ndarray, np.ndarray]:
        """z (n,) → (dL₀/dz, dL₁/dz), both (n,) float64, of the losses of a row of either of two classes, by autodiff.

        z is the second logit less the first; the loss sees the pair (0, z). Raises LossError as `per_row`.
        """

        def total(z: mx.array, label: int) -> mx.array:
            pair = mx.stack([mx.zeros_like(z), z], axis=1)
            return mx.sum(self.per_row(pair, mx.full(z.shape, label, mx.int32), step))

        # In double precision, which MLX has on the CPU only.
        with mx.stream(mx.cpu):
            z = mx.array(np.asarray(logits, np.float64), mx.float64)
            down, up = (np.array(mx.grad(lambda z, label=label: total(z, label))(z)) for label in (0, 1))
        return down.astype(np.float64), up.astype(np.float64)

    def inverse(self, step: int = RAMPED) -> FocalInverse | LossInverse | None:
        """The map from the loss's minimiser back to the true probability: closed where it is known, else a table.

        None for dice and tversky: each row's part in them depends on the others in its batch, so that their minimiser
        says nothing about a row's probability; only empirical maps can calibrate them. ``step`` is the number of
        steps that training takes, for `adaptive`, whose minimiser depends on it. Raises InverseError where an output
        stands for no probability, or for two.
        """
        if not LOSSES[self.name].pointwise:
            return None
        if self.name == "focal_smooth_note":
            return numeric_inverse(lambda z: self.slopes(z, step))
        alpha = self._positional.get("alpha") or self._positional.get("weights") or (1.0, 1.0)
        gamma = self.parameters.get("gamma", 0.0)
        if self.name == "adaptive":
            gamma *= min(step / self.parameters["gamma_steps"], 1.0)
            progress = min(step / self.parameters["alpha_steps"], 1.0)
            alpha = _ramped(alpha, progress)
        return FocalInverse(
            gamma=gamma, smoothing=self.parameters.get("smoothing", 0.0), alpha_negative=alpha[0],
            alpha_positive=alpha[1],
        )  # fmt: skip


class LossChoice(Struct, frozen=True, kw_only=True):
    """A loss as asked for; its α and weights come from the rows that it is made for."""

    name: str = "focal_smooth"
    preset: str | None = None
    parameters: dict[str, Any] = {}

    @classmethod
    def parse(cls, text: str) -> "LossChoice":
        """NAME, or NAME:PRESET. Raises LossError naming what there is."""
        name, colon, preset = text.partition(":")
        if name not in LOSSES or (colon and preset not in PRESETS):
            presets = " or ".join(f"NAME:{preset}" for preset in PRESETS)
            raise LossError(f"there is no loss {text!r}; there are {', '.join(LOSSES)}, and each as {presets}")
        return cls(name=name, preset=preset or None)

    def make(self, classes: Sequence[str], labels: np.ndarray) -> Loss:
        """`make_loss` on the classes' numbers (n,) of the rows trained on."""
        return make_loss(self.name, classes, labels, self.preset, **self.parameters)


def balanced_alpha(labels: np.ndarray, classes: Sequence[str]) -> ByClass:
    """α of two classes by name, summing to 1, each weighted by the other's share: the rarer class gets the larger."""
    positive = float(np.mean(labels))
    return dict(zip(classes, (positive, 1.0 - positive), strict=True))


def balanced_weights(labels: np.ndarray, classes: Sequence[str]) -> ByClass:
    """Class weights n / (K n_class) by name, whose mean over the rows is 1."""
    return {
        name: len(labels) / (float(len(classes)) * int(np.sum(labels == index))) for index, name in enumerate(classes)
    }


def _log_p(logits: mx.array) -> mx.array:
    return logits - mx.logsumexp(logits, axis=1, keepdims=True)


def _smoothed(labels: mx.array, smoothing: float) -> mx.array:
    """Targets (B, 2) that sum to 1 (Szegedy et al., 2016, section 7)."""
    onehot = (labels[:, None] == mx.arange(2)[None, :]).astype(mx.float32)
    return (1.0 - smoothing) * onehot + smoothing / 2


def _of_class(weights: Weights, labels: mx.array) -> mx.array:
    return mx.where(labels == 1, weights[1], weights[0])


def _ramped(alpha: Weights, progress: Any) -> Weights:
    return tuple(0.5 + (value - 0.5) * progress for value in alpha)


def cross_entropy(log_p: mx.array, labels: mx.array, step: Any) -> mx.array:
    """−ln p_y."""
    return label_smooth(log_p, labels, step, 0.0)


def weighted_ce(log_p: mx.array, labels: mx.array, step: Any, weights: Weights) -> mx.array:
    """−w_y ln p_y, averaged over rows (not over weights)."""
    return _of_class(weights, labels) * cross_entropy(log_p, labels, step)


def focal(log_p: mx.array, labels: mx.array, step: Any, gamma: Any, alpha: Any) -> mx.array:
    """−α_y (1 − p_y)^γ ln p_y (Lin et al., 2017, equation 5)."""
    return focal_smooth(log_p, labels, step, gamma, 0.0, alpha)


def label_smooth(log_p: mx.array, labels: mx.array, step: Any, smoothing: float) -> mx.array:
    """−Σ_k s_k ln p_k."""
    return -mx.sum(_smoothed(labels, smoothing) * log_p, axis=1)


def focal_smooth(
    log_p: mx.array, labels: mx.array, step: Any, gamma: float, smoothing: float, alpha: Weights
) -> mx.array:
    """−α_y Σ_k s_k (1 − p_k)^γ ln p_k: focal loss of each class with soft targets; its inverse is closed."""
    focused = mx.exp(gamma * log_p[:, ::-1]) * log_p
    return -_of_class(alpha, labels) * mx.sum(_smoothed(labels, smoothing) * focused, axis=1)


def focal_smooth_note(
    log_p: mx.array, labels: mx.array, step: Any, gamma: float, smoothing: float, alpha: Weights
) -> mx.array:
    """−α_y (1 − Σ_k p_k s_k)^γ Σ_k s_k ln p_k: the research note's reading of focal loss with smoothing."""
    targets = _smoothed(labels, smoothing)
    # 1 − Σ p s = Σ p (1 − s), a logarithm of a sum that cannot cancel.
    missed = mx.logsumexp(log_p + mx.log(1.0 - targets), axis=1)
    return -_of_class(alpha, labels) * mx.exp(gamma * missed) * mx.sum(targets * log_p, axis=1)


def adaptive(
    log_p: mx.array, labels: mx.array, step: Any, gamma: float, alpha: Weights, gamma_steps: int, alpha_steps: int
) -> mx.array:
    """Focal loss whose α goes from ½ to ``alpha`` and γ from 0 to ``gamma`` linearly over the given steps."""
    progress = mx.minimum(mx.array(step) / alpha_steps, 1.0)
    return focal(log_p, labels, step, mx.minimum(mx.array(step) / gamma_steps, 1.0) * gamma, _ramped(alpha, progress))


def dice(log_p: mx.array, labels: mx.array, step: Any) -> mx.array:
    """1 − (2 Σ p y + 1) / (Σ p + Σ y + 1) over the batch, p and y of the positive class (Milletari et al., 2016)."""
    return _overlap_loss(log_p, labels, 0.5, 0.5, added=0.5)


def tversky(log_p: mx.array, labels: mx.array, step: Any, false_negative: float, false_positive: float) -> mx.array:
    """1 − (TP + 1) / (TP + a FN + b FP + 1) over the batch, of the positive class (Salehi et al., 2017)."""
    return _overlap_loss(log_p, labels, false_negative, false_positive, added=1.0)


def _overlap_loss(log_p: mx.array, labels: mx.array, missed: float, wrong: float, added: float) -> mx.array:
    p, y = mx.exp(log_p[:, 1]), labels.astype(mx.float32)
    overlap = mx.sum(p * y)
    return 1.0 - (overlap + added) / (overlap + missed * mx.sum((1 - p) * y) + wrong * mx.sum(p * (1 - y)) + added)


class Entry(Struct, frozen=True):
    """A row of the registry. ``defaults`` None for a by-class parameter means: computed from the labels."""

    function: Callable[..., mx.array]
    defaults: dict[str, Any] = {}
    pointwise: bool = True


FOCAL: dict[str, Any] = {"gamma": 2.0, "alpha": None}
LOSSES: dict[str, Entry] = {
    "cross_entropy": Entry(cross_entropy),
    "weighted_ce": Entry(weighted_ce, {"weights": None}),
    "focal": Entry(focal, FOCAL),
    "label_smooth": Entry(label_smooth, {"smoothing": 0.1}),
    "focal_smooth": Entry(focal_smooth, {**FOCAL, "smoothing": 0.1}),
    "dice": Entry(dice, pointwise=False),
    "tversky": Entry(tversky, {"false_negative": 0.7, "false_positive": 0.3}, pointwise=False),
    "adaptive": Entry(adaptive, {**FOCAL, "gamma_steps": 500, "alpha_steps": 1000}),
    "focal_smooth_note": Entry(focal_smooth_note, {**FOCAL, "smoothing": 0.1}),
}

RANGES: dict[str, tuple[float, float]] = {
    "gamma": (0.0, 3.0),
    "smoothing": (0.0, 0.99),
    "false_negative": (0.0, 10.0),
    "false_positive": (0.0, 10.0),
    "gamma_steps": (1, 1e9),
    "alpha_steps": (1, 1e9),
}
"""Accepted values, both ends included. Above γ = 3 the minimiser is no longer monotone in the true probability."""

BY_CLASS = {"alpha": balanced_alpha, "weights": balanced_weights}


def make_loss(
    name: str, classes: Sequence[str], labels: np.ndarray | None = None, preset: str | None = None, **parameters: Any
) -> Loss:
    """A loss by name for rows of two ``classes``. What is not given comes from ``preset``, else from the defaults; α
    and weights are then computed from ``labels`` (n,), the training rows' classes.

    Raises LossError naming what is unknown, does not apply, or is out of range, and what is accepted.
    """
    if len(classes) != 2:
        raise LossError(f"there are {len(classes)} classes, {', '.join(classes)}: models of two classes are trained")
    if name not in LOSSES:
        raise LossError(f"there is no loss {name!r}; there are {', '.join(LOSSES)}")
    if preset is not None and preset not in PRESETS:
        raise LossError(f"there is no preset {preset!r}; there is {', '.join(PRESETS)}")
    defaults = LOSSES[name].defaults
    for parameter in parameters:
        if parameter not in defaults:
            accepted = ", ".join(defaults) or "none"
            raise LossError(f"{name} has no parameter {parameter!r}; its parameters: {accepted}")
    from_preset = {
        parameter: dict(zip(classes, value, strict=True)) if parameter in BY_CLASS else value
        for parameter, value in PRESETS.get(preset or "", {}).items()
        if parameter in defaults
    }
    chosen = {**defaults, **from_preset, **parameters}
    for parameter, value in chosen.items():
        if value is None:
            if labels is None:
                raise LossError(f"{name} needs {parameter}, or the labels to compute it from")
            chosen[parameter] = BY_CLASS[parameter](labels, classes)
        _check(name, parameter, chosen[parameter], classes)
    return Loss(name, tuple(classes), chosen)


def _check(name: str, parameter: str, value: Any, classes: Sequence[str]) -> None:
    if parameter in BY_CLASS:
        if not isinstance(value, Mapping) or set(value) != set(classes) or not all(0 < v < 1e6 for v in value.values()):
            raise LossError(f"{name}: {parameter} is {value!r}; it must give {' and '.join(classes)} a positive number")
        return
    low, high = RANGES[parameter]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise LossError(f"{name}: {parameter} is {value!r}; it must be a number from {low:g} to {high:g}")
