"""Logits ↔ probabilities, in float64: of two classes by their log-odds, of more by all of them."""

from collections.abc import Sequence

import numpy as np

MAX_VALUE = 1e6
"""The largest parameter of a calibration map, and its inverse the least scale: no fit comes near it, and sixteen steps
with it leave a finite logit finite."""
MIN_PROBABILITY, MAX_PROBABILITY = 1e-300, 1 - 2.0**-52
"""Of a class among more than two: strictly inside (0, 1), as `sigmoid` keeps those of two."""


def calibration_scores(logits: np.ndarray) -> np.ndarray:
    """The model's logits (B, K) → what calibration works on.

    Of two classes the log-odds (B,) of the positive one; of more the logits (B, K) less their mean, as a model's logits
    say nothing by what is common to them.
    """
    if logits.shape[1] == 2:
        return np.asarray(logits[:, 1] - logits[:, 0])
    return centred(logits)


def centred(scores: np.ndarray) -> np.ndarray:
    """Scores (…, K) less each row's mean."""
    return np.asarray(scores - scores.mean(axis=-1, keepdims=True))


def score_probabilities(scores: np.ndarray) -> np.ndarray:
    """Log-odds (B,) → probabilities (B,) of the positive class; scores (B, K) → of each class (B, K)."""
    return sigmoid(scores) if scores.ndim == 1 else softmax(scores)


def class_probabilities(p: np.ndarray) -> np.ndarray:
    """Probabilities (B,) of the positive of two classes → of both (B, 2); those of all classes (B, K) as they are."""
    return np.stack([1 - p, p], axis=1) if p.ndim == 1 else p


def step_probabilities(steps: Sequence[tuple[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    """[(step's name, scores after it), …] → the same with `score_probabilities`, computed together."""
    scores = np.array([each for _, each in steps])
    probabilities = sigmoid(scores) if steps[0][1].ndim == 1 else softmax(scores)
    return [(name, p) for (name, _), p in zip(steps, probabilities, strict=True)]


def clipped(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """``values`` within [low, high], as `numpy.clip` has them: of few values that takes four times as long."""
    return np.asarray(np.minimum(np.maximum(values, low), high))


def softmax(scores: np.ndarray) -> np.ndarray:
    """exp(s_k) / Σ_j exp(s_j) over the last axis, strictly inside (0, 1) for any finite scores."""
    shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return clipped(shares / shares.sum(axis=-1, keepdims=True), MIN_PROBABILITY, MAX_PROBABILITY)


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """s_k − ln Σ_j exp(s_j) over the last axis."""
    below = scores - scores.max(axis=-1, keepdims=True)
    return np.asarray(below - np.log(np.exp(below).sum(axis=-1, keepdims=True)))


def one_vs_rest(scores: np.ndarray) -> np.ndarray:
    """Scores (B, K) → the log-odds (B, K) of each class against all others: s_k − ln Σ_{j≠k} exp(s_j)."""
    at = np.arange(len(scores)), scores.argmax(axis=1)
    shares = np.exp(scores - scores[at][:, None])
    rest = shares.sum(axis=1, keepdims=True) - shares
    # What is left without the greatest is summed by itself: a difference would be nothing but rounding.
    others = scores.copy()
    others[at] = -np.inf
    second = others.max(axis=1)
    rest[at] = np.exp(others - second[:, None]).sum(axis=1)
    base = np.repeat(scores[at][:, None], scores.shape[1], axis=1)
    base[at] = second
    return np.asarray(scores - base - np.log(rest))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−z), strictly inside (0, 1) for any finite z."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -clipped(logits, -700.0, 36.0))))


def logit(probabilities: np.ndarray) -> np.ndarray:
    """ln p − ln(1 − p) for p in (0, 1)."""
    return np.asarray(np.log(probabilities) - np.log1p(-probabilities))
