"""The losses as formulas: each a function of log-probabilities (B, K) and labels (B,) → the loss of each row (B,).

Notation: p_k the model's probability of class k, y the row's class, s = (1 − ε) onehot(y) + ε/K the smoothed target,
γ the focusing, α_y the weight of the row's class, α and weights by position (K,). Everything is computed from log p,
so that confident mistakes keep their gradient, and 1 − p_k is the sum of the other classes' probabilities, exact where
p_k rounds to 1. ``step`` is the number of optimisation steps done; only `adaptive` looks at it.
"""

from collections.abc import Sequence
from typing import Any

import mlx.core as mx

Weights = Sequence[Any]
"""Of each class, in order: numbers, or scalar arrays."""


def log_probabilities(logits: mx.array) -> mx.array:
    """Logits (B, K) → ln p (B, K)."""
    return logits - mx.logsumexp(logits, axis=1, keepdims=True)


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
    return -mx.sum(smoothed(labels, smoothing, log_p.shape[1]) * log_p, axis=1)


def focal_smooth(
    log_p: mx.array, labels: mx.array, step: Any, gamma: float, smoothing: float, alpha: Weights
) -> mx.array:
    """−α_y Σ_k s_k (1 − p_k)^γ ln p_k: focal loss of each class with soft targets; its inverse is closed."""
    focused = mx.exp(gamma * _log_rest(log_p)) * log_p
    return -_of_class(alpha, labels) * mx.sum(smoothed(labels, smoothing, log_p.shape[1]) * focused, axis=1)


def focal_smooth_note(
    log_p: mx.array, labels: mx.array, step: Any, gamma: float, smoothing: float, alpha: Weights
) -> mx.array:
    """−α_y (1 − Σ_k p_k s_k)^γ Σ_k s_k ln p_k: the research note's reading of focal loss with smoothing."""
    targets = smoothed(labels, smoothing, log_p.shape[1])
    # 1 − Σ p s = Σ p (1 − s), a logarithm of a sum that cannot cancel.
    missed = mx.logsumexp(log_p + mx.log(1.0 - targets), axis=1)
    return -_of_class(alpha, labels) * mx.exp(gamma * missed) * mx.sum(targets * log_p, axis=1)


def adaptive(
    log_p: mx.array, labels: mx.array, step: Any, gamma: float, alpha: Weights, gamma_steps: int, alpha_steps: int
) -> mx.array:
    """Focal loss whose α goes from 1/K to ``alpha`` and γ from 0 to ``gamma`` linearly over the given steps."""
    progress = mx.minimum(mx.array(step) / alpha_steps, 1.0)
    return focal(log_p, labels, step, mx.minimum(mx.array(step) / gamma_steps, 1.0) * gamma, ramped(alpha, progress))


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


def smoothed(labels: mx.array, smoothing: float, classes: int) -> mx.array:
    """Targets (B, K) that sum to 1 (Szegedy et al., 2016, section 7)."""
    onehot = (labels[:, None] == mx.arange(classes)[None, :]).astype(mx.float32)
    return (1.0 - smoothing) * onehot + smoothing / classes


def ramped(alpha: Weights, progress: Any) -> Weights:
    """α on its way from 1/K of each class, at a progress of 0, to itself at 1."""
    even = 1 / len(alpha)
    return tuple(even + (value - even) * progress for value in alpha)


def _of_class(weights: Weights, labels: mx.array) -> mx.array:
    return mx.stack([mx.array(weight, mx.float32) for weight in weights])[labels]


def _log_rest(log_p: mx.array) -> mx.array:
    """ln(1 − p_k) (B, K), as the logarithm of the other classes' sum; of two classes it is the other one."""
    classes = log_p.shape[1]
    if classes == 2:
        return log_p[:, ::-1]
    others = mx.where(mx.eye(classes, dtype=mx.bool_), -mx.inf, 0.0).astype(log_p.dtype)
    return mx.logsumexp(log_p[:, None, :] + others[None], axis=2)
