"""Maps from the model's logit to a probability that holds: each a frozen Struct that evaluates in NumPy.

A map is a chain of steps on the logit z = logit_survived − logit_died. Training fits the steps
(training/calibrate.py); here they are only evaluated, so that the service needs nothing but NumPy.
"""

from functools import cached_property
from typing import Self

import numpy as np
from msgspec import Struct

SATURATED = 0.99
"""Where a smoothed loss's inverse leaves its closed form: near and beyond probability 1 it continues with slope 1."""


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−z), strictly inside (0, 1) for any finite z."""
    return np.exp(-np.logaddexp(0.0, -np.clip(logits, -700.0, 36.0)))


def logit(probabilities: np.ndarray) -> np.ndarray:
    """ln p − ln(1 − p) for p in (0, 1)."""
    return np.log(probabilities) - np.log1p(-probabilities)


class Identity(Struct, frozen=True, tag_field="step", tag="identity", forbid_unknown_fields=True):
    """The logit as it is."""

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return logits


class FocalInverse(
    Struct, frozen=True, dict=True, kw_only=True, tag_field="step", tag="focal_inverse", forbid_unknown_fields=True
):
    """Undo the bend of a focal, weighted or smoothed loss: logit of its minimiser → logit of the true probability.

    With h(v) = v/φ(v), φ(v) = (1−v)^γ − γ (1−v)^(γ−1) v ln v and q = h(p)/(h(p) + h(1−p)) (Charoenphakdee et al.,
    2021, theorem 11), then r = (q − ε/2)/(1 − ε) and η = r/α_survived against (1−r)/α_died. Where r passes
    `SATURATED`, or its mirror, the smoothed loss has no true probability to give back; the map goes on there with
    slope 1 in z, so that the order of passengers is kept.
    """

    gamma: float
    smoothing: float
    alpha_died: float
    alpha_survived: float

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 3:
            raise ValueError(f"gamma is {self.gamma}; the inverse is monotone from 0 to 3 only")
        if not 0 <= self.smoothing < 1:
            raise ValueError(f"smoothing is {self.smoothing}; it must be at least 0 and below 1")
        if not (0 < self.alpha_died < np.inf and 0 < self.alpha_survived < np.inf):
            raise ValueError(f"alpha is {self.alpha_died}, {self.alpha_survived}; both must be positive and finite")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        shift = np.log(self.alpha_died) - np.log(self.alpha_survived)
        if self.smoothing == 0:
            return self._unfocused(logits) + shift
        edge = self._edge
        inside = np.clip(logits, -edge, edge)
        q = sigmoid(self._unfocused(inside))
        r = (q - self.smoothing / 2) / (1 - self.smoothing)
        return logit(r) + (logits - inside) + shift

    def _unfocused(self, logits: np.ndarray) -> np.ndarray:
        z = np.clip(logits, -700.0, 700.0)
        return logits - self._log_phi(z) + self._log_phi(-z)

    def _log_phi(self, z: np.ndarray) -> np.ndarray:
        """ln φ at v = sigmoid(z), as (γ−1) ln(1−v) + ln((1−v) − γ v ln v), free of cancellation."""
        log_v, log_w = -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z)
        return (self.gamma - 1) * log_w + np.log(np.exp(log_w) - self.gamma * np.exp(log_v) * log_v)

    @cached_property
    def _edge(self) -> float:
        """The logit at which r = `SATURATED`, by bisection: the map is monotone."""
        wanted = float(logit(np.array(SATURATED * (1 - self.smoothing) + self.smoothing / 2)))
        low, high = 0.0, wanted + 1.0
        while high - low > 1e-12:
            middle = (low + high) / 2
            low, high = (middle, high) if self._unfocused(np.array(middle)) < wanted else (low, middle)
        return low


class Temperature(Struct, frozen=True, tag_field="step", tag="temperature", forbid_unknown_fields=True):
    """z / T (Guo et al., 2017, section 4.2)."""

    temperature: float

    def __post_init__(self) -> None:
        if not 0 < self.temperature < np.inf:
            raise ValueError(f"temperature is {self.temperature}; it must be positive and finite")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        return logits / self.temperature


Step = Identity | FocalInverse | Temperature


class CalibrationMap(Struct, frozen=True, forbid_unknown_fields=True):
    """The chosen steps, in order."""

    steps: tuple[Step, ...]

    def trace(self, logits: np.ndarray) -> list[tuple[str, np.ndarray]]:
        """logits (B,) → [("model", raw probabilities (B,)), (step's name, probabilities after it), …]."""
        found = [("model", sigmoid(logits))]
        for step in self.steps:
            logits = step(logits)
            found.append((str(step.__struct_config__.tag), sigmoid(logits)))
        return found

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """logits (B,) → calibrated probabilities (B,) strictly inside (0, 1)."""
        return self.trace(logits)[-1][1]


class Candidate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A map that was tried: its cross-validated log loss, and the difference to the best with its standard error."""

    name: str
    parameters: int
    log_loss: float
    worse_by: float
    standard_error: float
    chosen: bool


class VennAbers(Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """Inductive Venn–Abers predictor (Vovk & Petej, 2014) with both isotonic fits computed beforehand.

    ``scores`` (k,) are the distinct calibration logits, rising. ``p0`` and ``p1`` (2k + 1,) hold the probability when
    the new row is labelled 0 or 1: entry 2i + 1 for a row that ties scores[i], entry 2i for one just below it.
    One of the two is calibrated, if rows are exchangeable: which one depends on the label that is not known yet.
    """

    scores: tuple[float, ...]
    p0: tuple[float, ...]
    p1: tuple[float, ...]

    def __post_init__(self) -> None:
        scores = np.array(self.scores)
        if not len(scores) or not np.isfinite(scores).all() or (np.diff(scores) <= 0).any():
            raise ValueError("scores must be finite and rising, and at least one")
        for name, values in (("p0", np.array(self.p0)), ("p1", np.array(self.p1))):
            if len(values) != 2 * len(scores) + 1 or not ((values >= 0) & (values <= 1)).all():
                raise ValueError(f"{name} must hold {2 * len(scores) + 1} probabilities")
            if (np.diff(values) < 0).any():
                raise ValueError(f"{name} must not fall")

    def interval(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """logits (B,) → p0 (B,), p1 (B,), p0 ≤ p1."""
        scores, p0, p1 = self._arrays
        entry = np.searchsorted(scores, logits, "left") + np.searchsorted(scores, logits, "right")
        return p0[entry], p1[entry]

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.array(self.scores), np.array(self.p0), np.array(self.p1)

    @classmethod
    def checked(cls, scores: np.ndarray, p0: np.ndarray, p1: np.ndarray) -> Self:
        """From arrays; rounding of the isotonic fits is taken out of their order."""
        return cls(
            tuple(scores.tolist()),
            tuple(np.clip(np.maximum.accumulate(p0), 0, 1).tolist()),
            tuple(np.clip(np.maximum.accumulate(p1), 0, 1).tolist()),
        )
