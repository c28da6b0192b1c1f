"""The loss-aware inverse: from the logit that minimises a loss back to the logit of the true probability.

For a pointwise loss with L₁(p), L₀(p) the minimiser at true probability η obeys η L₁′ + (1 − η) L₀′ = 0, so
η = L₀′ / (L₀′ − L₁′): each output says which probability it stands for (Charoenphakdee et al., 2021; Bartlett et al.,
2006). Where that has a closed form it is `FocalInverse`, of more than two classes `ClasswiseInverse`; where not,
training tabulates it into a `LossInverse`.
"""

import math
from functools import cached_property

import numpy as np
from msgspec import Struct

from models.calibration.logit import MAX_VALUE, clipped, logit, sigmoid

SATURATED = 0.99
"""Where a smoothed loss's inverse leaves its formula: near and beyond probability 1 it continues with slope 1."""


class FocalInverse(
    Struct, frozen=True, dict=True, kw_only=True, tag_field="step", tag="focal_inverse", forbid_unknown_fields=True
):
    """The inverse link of a focal, weighted or smoothed loss: logit of its minimiser → logit of the true probability.

    With h(v) = v/φ(v), φ(v) = (1−v)^γ − γ (1−v)^(γ−1) v ln v and q = h(p)/(h(p) + h(1−p)) (Charoenphakdee et al.,
    2021, theorem 11), then r = (q − ε/2)/(1 − ε) and η = r/α₁ against (1−r)/α₀. Where r passes
    `SATURATED`, or its mirror, the smoothed loss has no true probability to give back; the map goes on there with
    slope 1 in z, so that the order of rows is kept.
    """

    gamma: float
    smoothing: float
    alpha_negative: float
    alpha_positive: float

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 3:
            raise ValueError(f"gamma is {self.gamma}; the inverse is monotone from 0 to 3 only")
        if not 0 <= self.smoothing <= 0.99:
            raise ValueError(f"smoothing is {self.smoothing}; it must be from 0 to 0.99")
        for alpha in (self.alpha_negative, self.alpha_positive):
            if not 1 / MAX_VALUE <= alpha <= MAX_VALUE:
                raise ValueError(f"alpha is {alpha}; both must be from {1 / MAX_VALUE:g} to {MAX_VALUE:g}")

    @property
    def improper(self) -> bool:
        """Whether the minimiser is not the true probability; cross entropy is proper, and its inverse the identity."""
        return self.gamma > 0 or self.smoothing > 0 or self.alpha_negative != self.alpha_positive

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        shift = math.log(self.alpha_negative) - math.log(self.alpha_positive)
        if self.smoothing == 0:
            return self._unfocused(logits) + shift
        edge = self._edge
        inside = clipped(logits, -edge, edge)
        q = sigmoid(self._unfocused(inside))
        r = (q - self.smoothing / 2) / (1 - self.smoothing)
        return logit(r) + (logits - inside) + shift

    def _unfocused(self, logits: np.ndarray) -> np.ndarray:
        z = clipped(logits, -700.0, 700.0)
        log_v, log_w = -np.logaddexp(0.0, -z), -np.logaddexp(0.0, z)
        return logits - _log_phi(log_v, log_w, self.gamma) + _log_phi(log_w, log_v, self.gamma)

    @cached_property
    def _edge(self) -> float:
        """The logit at which r = `SATURATED`, by bisection: the map is monotone."""
        wanted = float(logit(np.array(SATURATED * (1 - self.smoothing) + self.smoothing / 2)))
        low, high = 0.0, wanted + 1.0
        while high - low > 1e-12:
            middle = (low + high) / 2
            low, high = (middle, high) if self._unfocused(np.array(middle)) < wanted else (low, middle)
        return low


class ClasswiseInverse(
    Struct, frozen=True, dict=True, kw_only=True, tag_field="step", tag="classwise_inverse", forbid_unknown_fields=True
):
    """`FocalInverse` of any number of classes: scores (…, K) of the loss's minimiser → those of the true probability.

    The expected loss is Σ_k w_k (1 − p_k)^γ (−ln p_k) with w_k = (1 − ε) η_k α_k + (ε/K) Σ_j η_j α_j. On the simplex it
    is least where h(p_k) is in proportion to w_k, for h of `FocalInverse`, which rises: q_k = h(p_k) / Σ_j h(p_j)
    (Charoenphakdee et al., 2021, theorem 11), r_k = (q_k − ε/K) / (1 − ε), and η_k is in proportion to r_k/α_k. Where
    r_k would fall below (1 − `SATURATED`) / (K − 1) the smoothed loss has no true probability to give back; ln r_k goes
    on there with slope 1 in ln q_k, so that the order of a row's classes is kept but for α. Scores sum to 0.
    """

    gamma: float
    smoothing: float
    alpha: tuple[float, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.gamma <= 3:
            raise ValueError(f"gamma is {self.gamma}; it must be from 0 to 3")
        if not 0 <= self.smoothing <= 0.99:
            raise ValueError(f"smoothing is {self.smoothing}; it must be from 0 to 0.99")
        if len(self.alpha) < 2 or not all(1 / MAX_VALUE <= alpha <= MAX_VALUE for alpha in self.alpha):
            raise ValueError(f"alpha is {self.alpha}; each must be from {1 / MAX_VALUE:g} to {MAX_VALUE:g}")

    @property
    def classes(self) -> int:
        """For how many classes it is."""
        return len(self.alpha)

    @property
    def improper(self) -> bool:
        """Whether the minimiser is not the true probability."""
        return self.gamma > 0 or self.smoothing > 0 or len(set(self.alpha)) > 1

    def __call__(self, scores: np.ndarray) -> np.ndarray:
        log_v, log_w = _log_shares(scores)
        log_h = log_v - _log_phi(log_v, log_w, self.gamma)
        log_q = log_h - np.logaddexp.reduce(log_h, axis=-1, keepdims=True)
        true = self._unsmoothed(log_q) - np.log(self.alpha)
        return np.asarray(true - true.mean(axis=-1, keepdims=True))

    def _unsmoothed(self, log_q: np.ndarray) -> np.ndarray:
        if self.smoothing == 0:
            return log_q
        classes = log_q.shape[-1]
        even, least = self.smoothing / classes, (1 - SATURATED) / (classes - 1)
        edge = np.log(least * (1 - self.smoothing) + even)
        inside = np.maximum(log_q, edge)
        return np.asarray(np.log(np.exp(inside) - even) - np.log1p(-self.smoothing) + (log_q - inside))


def _log_shares(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Scores (…, K) → ln p and ln(1 − p) of their softmax, both exact where p is next to 0 or to 1."""
    top = scores.argmax(axis=-1, keepdims=True)
    below = np.maximum(scores - np.take_along_axis(scores, top, -1), -700.0)
    shares = np.exp(below)
    np.put_along_axis(shares, top, 0.0, -1)
    rest = shares.sum(axis=-1, keepdims=True)
    log_p = below - np.log1p(rest)
    others = np.log1p(-np.minimum(np.exp(log_p), 0.5))
    np.put_along_axis(others, top, np.log(rest) - np.log1p(rest), -1)
    return log_p, others


def _log_phi(log_v: np.ndarray, log_w: np.ndarray, gamma: float) -> np.ndarray:
    """ln φ at v, with w = 1 − v, as (γ−1) ln w + ln(w − γ v ln v), free of cancellation."""
    return np.asarray((gamma - 1) * log_w + np.log(np.exp(log_w) - gamma * np.exp(log_v) * log_v))


class LossInverse(Struct, frozen=True, dict=True, tag_field="step", tag="loss_inverse", forbid_unknown_fields=True):
    """The inverse of a loss without a closed form, as a table: straight lines between knots, slope 1 beyond them.

    ``logits`` (k,) rise, and so do ``values`` (k,): at the model's logit ``logits[i]`` the loss is at its minimum if
    the true logit is ``values[i]``. Computed by training/losses/pointwise_inverse.py.
    """

    logits: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, knots in (("logits", np.array(self.logits)), ("values", np.array(self.values))):
            if len(knots) < 2 or not (abs(knots) <= MAX_VALUE).all() or (np.diff(knots) <= 0).any():
                raise ValueError(f"{name} must be within ±{MAX_VALUE:g} and rising, and at least two")
        if len(self.logits) != len(self.values):
            raise ValueError("logits and values must be of equal length")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        x, y = self._knots
        inside = np.clip(logits, x[0], x[-1])
        return np.asarray(np.interp(inside, x, y) + (logits - inside))

    @cached_property
    def _knots(self) -> tuple[np.ndarray, np.ndarray]:
        return np.array(self.logits), np.array(self.values)
