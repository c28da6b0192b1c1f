"""Fit one calibration map of more than two classes on held-out scores (n, K) and labels (n,): temperature, vector and
matrix scaling.

All losses are convex and are minimised with their gradients in float64, so each has one minimum, which is found
whatever the start. A class without rows, or one that its score separates, leaves them finite: the penalties do.
"""

import numpy as np
from scipy.optimize import minimize, minimize_scalar

from models.calibration.class_maps import MatrixScaling, VectorScaling
from models.calibration.logit import log_softmax
from models.calibration.maps import Temperature
from training.calibrate.maps import MAX_SLOPE


def fit_class_temperature(scores: np.ndarray, labels: np.ndarray) -> Temperature:
    """The temperature of least cross entropy, from 1/50 to 50; the loss is convex in 1/T.

    Of each row 1/(n+2) is taken for the other classes, equally: the rate that a uniform prior leaves of "none of n"
    (Platt, 1999, for two classes), so that rows which the scores separate do not drive T to its bound.
    """
    n, classes = scores.shape
    targets = np.full(scores.shape, 1 / (n + 2) / (classes - 1))
    targets[np.arange(n), labels] = (n + 1) / (n + 2)
    best = minimize_scalar(
        lambda inverse: -(targets * log_softmax(scores * inverse)).sum(axis=1).mean(),
        bounds=(0.02, 50.0), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    return Temperature(float(1 / best.x))


def fit_vector_scaling(scores: np.ndarray, labels: np.ndarray) -> VectorScaling:
    """Weights in [0, 50] and offsets of least log loss plus (K/n) (Σ (weight_k − 1)² + Σ offset_k²).

    The structured vector scaling of Berta et al. (2026), for scores that had their temperature; with few rows it stays
    near the identity.
    """
    weights, offsets = _scaling(scores, labels, diagonal=True)
    return VectorScaling(weights=tuple(np.diag(weights).tolist()), offsets=tuple(offsets.tolist()))


def fit_matrix_scaling(scores: np.ndarray, labels: np.ndarray) -> MatrixScaling:
    """The same with weights between classes, and (K (K−1)/n) times the sum of their squares: structured matrix scaling
    (Berta et al., 2026)."""
    weights, offsets = _scaling(scores, labels, diagonal=False)
    return MatrixScaling(weights=tuple(map(tuple, weights.tolist())), offsets=tuple(offsets.tolist()))


def _scaling(scores: np.ndarray, labels: np.ndarray, *, diagonal: bool) -> tuple[np.ndarray, np.ndarray]:
    """Weights (K, K) and offsets (K,)."""
    n, classes = scores.shape
    log_p, own = log_softmax(scores), np.eye(classes)[labels]
    penalty = np.full((classes, classes + 1), classes * (classes - 1) / n)
    penalty[:, -1] = penalty[range(classes), range(classes)] = classes / n
    free = np.ones_like(penalty, dtype=bool)
    if diagonal:
        free = np.eye(classes, classes + 1, dtype=bool)
        free[:, -1] = True
    identity = np.eye(classes, classes + 1)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        change = np.zeros_like(identity)
        change[free] = parameters
        weights = identity + change
        fitted = log_softmax(log_p @ weights[:, :-1].T + weights[:, -1])
        residual = (np.exp(fitted) - own) / n
        gradient = np.column_stack([residual.T @ log_p, residual.sum(axis=0)]) + 2 * penalty * change
        return float(-(fitted * own).sum() / n + (penalty * change**2).sum()), gradient[free]

    bounds = np.full((*free.shape, 2), (-MAX_SLOPE, MAX_SLOPE))
    bounds[range(classes), range(classes), 0] = -1.0
    minimum = minimize(
        loss, np.zeros(int(free.sum())), jac=True, method="L-BFGS-B", bounds=bounds[free],
        options={"ftol": 1e-12, "gtol": 1e-7, "maxiter": 1000},
    )  # fmt: skip
    identity[free] += minimum.x
    return identity[:, :-1], identity[:, -1]
