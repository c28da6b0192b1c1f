"""Probability ↔ logit, in float64."""

import numpy as np

MAX_VALUE = 1e6
"""The largest parameter of a calibration map, and its inverse the least scale: no fit comes near it, and sixteen steps
with it leave a finite logit finite."""


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−z), strictly inside (0, 1) for any finite z."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.clip(logits, -700.0, 36.0))))


def logit(probabilities: np.ndarray) -> np.ndarray:
    """ln p − ln(1 − p) for p in (0, 1)."""
    return np.asarray(np.log(probabilities) - np.log1p(-probabilities))
