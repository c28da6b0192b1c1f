"""Maps from the model's logits to probabilities that hold: each a frozen Struct that evaluates in NumPy.

A map is a chain of steps: on the log-odds z = logit₁ − logit₀ of two classes, float64, of any shape, or on the scores
(B, K) of more, the logits less their mean (`calibration_scores`). Training fits the steps (training/calibrate/maps.py);
here they are only evaluated, so that the service needs nothing but NumPy.
"""

from functools import cached_property
from typing import Annotated, Self

import numpy as np
from msgspec import Meta, Struct

from models.calibration.class_maps import MatrixScaling, VectorScaling
from models.calibration.inverse import ClasswiseInverse, FocalInverse, LossInverse
from models.calibration.logit import MAX_VALUE, logit, step_probabilities
from models.calibration.prior_shift import PriorShift
from models.calibration.venn_abers import MergedVennAbers


class Identity(Struct, frozen=True, tag_field="step", tag="identity", forbid_unknown_fields=True):
    """The logits as they are."""

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return logits


class Temperature(Struct, frozen=True, tag_field="step", tag="temperature", forbid_unknown_fields=True):
    """z / T, of two classes or of more (Guo et al., 2017, section 4.2)."""

    temperature: float

    def __post_init__(self) -> None:
        if not 1 / MAX_VALUE <= self.temperature <= MAX_VALUE:
            raise ValueError(f"temperature is {self.temperature}; it must be from {1 / MAX_VALUE:g} to {MAX_VALUE:g}")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return logits / self.temperature


class Platt(Struct, frozen=True, kw_only=True, tag_field="step", tag="platt", forbid_unknown_fields=True):
    """slope · z + offset, slope ≥ 0 so that the order of rows is kept (Platt, 1999, section 2.1)."""

    slope: float
    offset: float

    def __post_init__(self) -> None:
        if not (0 <= self.slope <= MAX_VALUE and abs(self.offset) <= MAX_VALUE):
            raise ValueError(
                f"slope and offset are {self.slope}, {self.offset}; "
                f"slope must be at least 0, both at most {MAX_VALUE:g}"
            )

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return self.slope * logits + self.offset


class Beta(Struct, frozen=True, kw_only=True, tag_field="step", tag="beta", forbid_unknown_fields=True):
    """c + a ln s − b ln(1 − s), s = sigmoid(z), a, b ≥ 0 (Kull, Silva Filho & Flach, 2017).

    Where z is far below 0 its slope is a, far above 0 it is b: one end can be bent without the other. a = b is Platt's
    map, a = b = 1 and c = 0 the identity.
    """

    a: float
    b: float
    c: float

    def __post_init__(self) -> None:
        if not (0 <= self.a <= MAX_VALUE and 0 <= self.b <= MAX_VALUE and abs(self.c) <= MAX_VALUE):
            raise ValueError(
                f"a, b, c are {self.a}, {self.b}, {self.c}; a and b must be at least 0, all at most {MAX_VALUE:g}"
            )

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(self.c - self.a * np.logaddexp(0.0, -logits) + self.b * np.logaddexp(0.0, logits))


class Isotonic(Struct, frozen=True, dict=True, tag_field="step", tag="isotonic", forbid_unknown_fields=True):
    """Isotonic regression of the label on z, kept inside (0, 1) (Zadrozny & Elkan, 2002).

    ``logits`` (k,) rise strictly, ``probabilities`` (k,) never fall; between two knots the probability is on the
    straight line, beyond the outer ones it stays. Ties: rows whose logits fall into one pooled block, or beyond
    the outer knots, get one and the same probability, so their order is lost; that of all others is kept.
    """

    logits: tuple[float, ...]
    probabilities: tuple[float, ...]

    def __post_init__(self) -> None:
        x, p = np.array(self.logits), np.array(self.probabilities)
        if not len(x) or len(x) != len(p) or not (abs(x) <= MAX_VALUE).all() or (np.diff(x) <= 0).any():
            raise ValueError(f"logits must be within ±{MAX_VALUE:g} and rising, as many as probabilities, at least one")
        if not ((p > 0) & (p < 1)).all() or (np.diff(p) < 0).any():
            raise ValueError("probabilities must be inside (0, 1) and must not fall")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return logit(np.interp(logits, *self._knots))

    @cached_property
    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.logits), np.array(self.probabilities)


OF_ANY_NUMBER = (Identity, Temperature)
OF_CLASSES = (ClasswiseInverse, VectorScaling, MatrixScaling)
"""Steps for two classes and for more, and for more alone; all others are for two."""
Step = (
    Identity | FocalInverse | LossInverse | ClasswiseInverse | Temperature | Platt | Beta | Isotonic | MergedVennAbers
    | VectorScaling | MatrixScaling | PriorShift
)  # fmt: skip


class CalibrationMap(Struct, frozen=True, forbid_unknown_fields=True):
    """The chosen steps, in order. Of two classes none falls in z; a `PriorShift` can only be the last.

    Whatever their parameters, a finite logit stays finite: each is bounded, and so is their number.
    """

    steps: Annotated[tuple[Step, ...], Meta(max_length=16)]

    def __post_init__(self) -> None:
        if any(isinstance(step, PriorShift) for step in self.steps[:-1]):
            raise ValueError("prior_shift must be the last step")

    def check_classes(self, classes: int) -> None:
        """Raise ValueError for a step that is not for this number of classes."""
        for step in self.steps:
            if isinstance(step, OF_ANY_NUMBER):
                continue
            wanted = step.classes if isinstance(step, OF_CLASSES) else 2
            if wanted != classes:
                raise ValueError(f"the step {step.__struct_config__.tag} is for {wanted} classes; there are {classes}")

    @property
    def prior_shift(self) -> PriorShift | None:
        """The last step, if it is one."""
        last = self.steps[-1] if self.steps else None
        return last if isinstance(last, PriorShift) else None

    def shifted(self, shift: PriorShift | None) -> Self:
        """This map with ``shift`` as its last step in place of the one it may have; with None, without one."""
        steps = self.steps if self.prior_shift is None else self.steps[:-1]
        return type(self)(steps if shift is None else (*steps, shift))

    def trace(self, logits: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """`calibration_scores` → [("model", raw probabilities), (step's name, probabilities after it), …].

        Log-odds (B,) → probabilities (B,) of the positive class; scores (B, K) → of each class (B, K).
        """
        return step_probabilities([("model", logits), *self.scores(logits)])

    def scores(self, logits: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """`calibration_scores` → [(step's name, scores after it), …]."""
        steps = []
        for step in self.steps:
            logits = step(logits)
            steps.append((str(step.__struct_config__.tag), logits))
        return steps

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """`calibration_scores` (B,) or (B, K) → calibrated probabilities of that shape, strictly inside (0, 1)."""
        return self.trace(logits)[-1][1]


class Candidate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A map that was tried: its cross-validated log loss, and the difference to the best with its standard error.

    ``parameters`` counts what was fitted on the calibration rows; of a step function, its levels.
    """

    name: str
    parameters: int
    log_loss: float
    worse_by: float
    standard_error: float
    chosen: bool
