"""The stack: the model's score and those of second models, joined into the one that is calibrated."""

from collections.abc import Mapping

import numpy as np
from msgspec import Struct

from models.calibration.inverse import ClasswiseInverse, FocalInverse, LossInverse
from models.calibration.logit import MAX_VALUE

STACK = "stack"
"""The step's name in a prediction's calibration."""


class Stack(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """own · z + Σ others_i · z_i + offset, z the model's `calibration_scores`, z_i those of each second model by its
    name, all weights ≥ 0.

    ``inverse``, where the model's loss has one, is taken of z first: it is about the model alone. ``offsets`` are one
    number for two classes and K for more. The weights were fitted on scores of rows that no model had seen (Wolpert,
    1992; at least 0: Breiman, 1996, "Stacked regressions").
    """

    own: float
    others: dict[str, float]
    offsets: tuple[float, ...]
    inverse: FocalInverse | LossInverse | ClasswiseInverse | None = None

    def __post_init__(self) -> None:
        if not self.others:
            raise ValueError("the stack has no second model")
        if not all(0 <= weight <= MAX_VALUE for weight in (self.own, *self.others.values())):
            raise ValueError(f"the weights of the stack must be from 0 to {MAX_VALUE:g}")
        if not self.offsets or not all(abs(offset) <= MAX_VALUE for offset in self.offsets):
            raise ValueError(f"the offsets of the stack must be within ±{MAX_VALUE:g}, one or one for each class")

    def check_classes(self, classes: int) -> None:
        """Raise ValueError unless it is for this number of classes."""
        wanted = 1 if classes == 2 else classes
        if len(self.offsets) != wanted:
            raise ValueError(f"the stack has {len(self.offsets)} offsets; of {classes} classes it must have {wanted}")
        if self.inverse is not None:
            of = self.inverse.classes if isinstance(self.inverse, ClasswiseInverse) else 2
            if of != classes:
                raise ValueError(f"the stack's inverse is for {of} classes; there are {classes}")

    def trace(self, scores: np.ndarray, seconds: Mapping[str, np.ndarray]) -> list[tuple[str, np.ndarray]]:
        """All models' scores (B,) or (B, K) → [(step's name, scores after it), …], the stacked scores last."""
        steps = []
        if self.inverse is not None:
            scores = self.inverse(scores)
            steps.append((str(self.inverse.__struct_config__.tag), scores))
        stacked = self.own * scores + (self.offsets[0] if scores.ndim == 1 else np.array(self.offsets))
        for name, weight in self.others.items():
            stacked = stacked + weight * seconds[name]
        return [*steps, (STACK, np.asarray(stacked))]

    def __call__(self, scores: np.ndarray, seconds: Mapping[str, np.ndarray]) -> np.ndarray:
        return self.trace(scores, seconds)[-1][1]
