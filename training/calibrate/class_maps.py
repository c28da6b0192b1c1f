"""Fit one calibration map of more than two classes on held-out scores (n, K) and labels (n,)."""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from models.calibration.maps import Temperature


def fit_class_temperature(scores: np.ndarray, labels: np.ndarray) -> Temperature:
    """The temperature that minimises log loss, from 1/50 to 50; the loss is convex in 1/T."""
    own = scores[np.arange(len(labels)), labels]
    best = minimize_scalar(
        lambda inverse: (logsumexp(scores * inverse, axis=1) - own * inverse).mean(),
        bounds=(0.02, 50.0), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    return Temperature(float(1 / best.x))
