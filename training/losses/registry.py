"""The losses: one registry, each a function of (logits, targets), with its parameters checked by name.

Classes are those of a table's schema, in its order; α and weights are by name, and by position (K,) inside the
formulas (training/losses/functions.py).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
from msgspec import Struct

from models.calibration.inverse import ClasswiseInverse, FocalInverse, LossInverse
from training.losses.functions import (
    adaptive,
    cross_entropy,
    dice,
    focal,
    focal_smooth,
    focal_smooth_note,
    label_smooth,
    log_probabilities,
    ramped,
    tversky,
    weighted_ce,
)
from training.losses.pointwise_inverse import numeric_inverse

ByClass = dict[str, float]

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
        return mx.mean(LOSSES[self.name].function(log_probabilities(logits), labels, step, **self._positional))

    def per_row(self, logits: mx.array, labels: mx.array, step: int | mx.array = 0) -> mx.array:
        """Loss of each row (B,); raises LossError for dice and tversky, which are losses of a whole batch."""
        if not LOSSES[self.name].pointwise:
            raise LossError(f"{self.name} is a loss of a whole batch, not of single rows")
        return LOSSES[self.name].function(log_probabilities(logits), labels, step, **self._positional)

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

    def inverse(self, step: int = RAMPED) -> FocalInverse | LossInverse | ClasswiseInverse | None:
        """The map from the loss's minimiser back to the true probability: closed where it is known, else a table.

        None for dice and tversky: each row's part in them depends on the others in its batch, so that their minimiser
        says nothing about a row's probability; only empirical maps can calibrate them. None too for
        `focal_smooth_note` of more than two classes: it mixes them inside the power, and nothing closed is known.
        ``step`` is the number of steps that training takes, for `adaptive`, whose minimiser depends on it. Raises
        InverseError where an output stands for no probability, or for two.
        """
        if not LOSSES[self.name].pointwise:
            return None
        if self.name == "focal_smooth_note":
            return numeric_inverse(lambda z: self.slopes(z, step)) if len(self.classes) == 2 else None
        alpha = self._positional.get("alpha") or self._positional.get("weights") or (1.0,) * len(self.classes)
        gamma, smoothing = self.parameters.get("gamma", 0.0), self.parameters.get("smoothing", 0.0)
        if self.name == "adaptive":
            gamma *= min(step / self.parameters["gamma_steps"], 1.0)
            progress = min(step / self.parameters["alpha_steps"], 1.0)
            alpha = ramped(alpha, progress)
        if len(self.classes) > 2:
            return ClasswiseInverse(gamma=gamma, smoothing=smoothing, alpha=tuple(alpha))
        return FocalInverse(gamma=gamma, smoothing=smoothing, alpha_negative=alpha[0], alpha_positive=alpha[1])


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
    """α by name, summing to 1: α_k = (1/n_k) / Σ_j (1/n_j), so that the rarer class gets the larger.

    Of two classes that is the other's share, and is computed so.
    """
    if len(classes) == 2:
        positive = float(np.mean(labels))
        return dict(zip(classes, (positive, 1.0 - positive), strict=True))
    inverse = 1 / np.bincount(labels, minlength=len(classes))
    return dict(zip(classes, (inverse / inverse.sum()).tolist(), strict=True))


def balanced_weights(labels: np.ndarray, classes: Sequence[str]) -> ByClass:
    """Class weights n / (K n_class) by name, whose mean over the rows is 1."""
    return {
        name: len(labels) / (float(len(classes)) * int(np.sum(labels == index))) for index, name in enumerate(classes)
    }


class Entry(Struct, frozen=True):
    """A row of the registry. ``defaults`` None for a by-class parameter means: computed from the labels.

    What is not ``pointwise`` is a loss of a whole batch, and one of the positive class of two.
    """

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
    """A loss by name for rows of ``classes``. What is not given comes from ``preset``, else from the defaults; α
    and weights are then computed from ``labels`` (n,), the training rows' classes.

    Raises LossError naming what is unknown, does not apply, or is out of range, and what is accepted.
    """
    if name not in LOSSES:
        raise LossError(f"there is no loss {name!r}; there are {', '.join(LOSSES)}")
    if preset is not None and preset not in PRESETS:
        raise LossError(f"there is no preset {preset!r}; there is {', '.join(PRESETS)}")
    if len(classes) > 2:
        _check_for_several(name, classes, preset)
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


def _check_for_several(name: str, classes: Sequence[str], preset: str | None) -> None:
    several = [entry for entry, of in LOSSES.items() if of.pointwise]
    if name not in several:
        raise LossError(
            f"{name} is a loss of the positive one of two classes, and there are {len(classes)}; take one of "
            f"{', '.join(several)}"
        )
    if preset is not None:
        raise LossError(
            f"the preset {preset} has numbers for two classes, and there are {len(classes)}; leave it out, or give "
            "them by class"
        )


def _check(name: str, parameter: str, value: Any, classes: Sequence[str]) -> None:
    if parameter in BY_CLASS:
        if not isinstance(value, Mapping) or set(value) != set(classes) or not all(0 < v < 1e6 for v in value.values()):
            named = f"{' and '.join(classes)}" if len(classes) == 2 else f"each of {', '.join(classes):.300}"
            raise LossError(f"{name}: {parameter} is {value!r}; it must give {named} a positive number")
        return
    low, high = RANGES[parameter]
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise LossError(f"{name}: {parameter} is {value!r}; it must be a number from {low:g} to {high:g}")
