"""Fit one calibration map of two classes on held-out log-odds (n,) and labels (n,): temperature, Platt, beta, isotonic,
Venn–Abers."""

from itertools import accumulate

import numpy as np
from scipy.optimize import isotonic_regression, minimize, minimize_scalar

from models.calibration.maps import Beta, Isotonic, Platt, Temperature
from models.calibration.venn_abers import MergedVennAbers, VennAbers

MAX_SLOPE = 50.0
"""Largest slope of a fitted map: where a logit separates the classes, log loss would drive it to infinity."""


def log_losses(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """−ln of the probability given to each row's own class, (n,); p (n,) of the positive of two, or (n, K)."""
    if p.ndim == 2:
        return np.asarray(-np.log(p[np.arange(len(labels)), labels]))
    return np.asarray(-np.where(labels == 1, np.log(p), np.log1p(-p)))


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """The temperature that minimises log loss, from 1/50 to 50; the loss is convex in 1/T."""
    sign = np.where(labels == 1, -1.0, 1.0)
    best = minimize_scalar(
        lambda inverse: np.logaddexp(0.0, sign * logits * inverse).mean(),
        bounds=(0.02, 50.0), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    return Temperature(float(1 / best.x))


def fit_platt(logits: np.ndarray, labels: np.ndarray) -> Platt:
    """Slope ≥ 0 and offset of least cross entropy against targets (N₊+1)/(N₊+2) and 1/(N₋+2) (Platt, 1999)."""
    low, high = platt_targets(labels)
    slope, offset = _logistic(logits[:, None], np.where(labels == 1, high, low))
    return Platt(slope=slope, offset=offset)


def platt_targets(labels: np.ndarray) -> tuple[float, float]:
    """1/(N₋+2) and (N₊+1)/(N₊+2): the rates that a uniform prior leaves of "none of N" and "all of N"."""
    ones = int(labels.sum())
    return 1 / (len(labels) - ones + 2), (ones + 1) / (ones + 2)


def fit_beta(logits: np.ndarray, labels: np.ndarray) -> Beta:
    """a, b ≥ 0 and c of least log loss: a logistic regression on ln s and −ln(1−s) (Kull et al., 2017, section 4)."""
    features = np.stack([-np.logaddexp(0.0, -logits), np.logaddexp(0.0, logits)], axis=1)
    a, b, c = _logistic(features, labels.astype(float))
    return Beta(a=a, b=b, c=c)


def _logistic(features: np.ndarray, targets: np.ndarray) -> list[float]:
    """Coefficients in [0, `MAX_SLOPE`] of features (n, k), then the intercept, of least cross entropy against targets
    (n,) in [0, 1]: a convex problem, so its one minimum is found, bounds included."""
    design = np.column_stack([features, np.ones(len(features))])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = design @ weights
        residual = np.exp(-np.logaddexp(0.0, -z)) - targets
        return float((np.logaddexp(0.0, z) - targets * z).mean()), design.T @ residual / len(z)

    start = np.append(np.ones(features.shape[1]), 0.0)
    bounds = [(0.0, MAX_SLOPE)] * features.shape[1] + [(-10 * MAX_SLOPE, 10 * MAX_SLOPE)]
    minimum = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    )
    return [float(weight) for weight in minimum.x]


def fit_isotonic(logits: np.ndarray, labels: np.ndarray) -> Isotonic:
    """Isotonic regression, its values kept within `platt_targets` so that no row gets probability 0 or 1."""
    scores, index = np.unique(logits, return_inverse=True)
    counts = np.bincount(index).astype(float)
    fitted = isotonic_regression(np.bincount(index, weights=labels) / counts, weights=counts).x
    fitted = np.clip(np.maximum.accumulate(fitted), *platt_targets(labels))
    # Inside a block of one value only its two ends are needed.
    kept = np.ones(len(fitted), bool)
    kept[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
    return Isotonic(tuple(scores[kept].tolist()), tuple(fitted[kept].tolist()))


def fit_merged_venn_abers(logits: np.ndarray, labels: np.ndarray) -> MergedVennAbers:
    """`fit_venn_abers` as a map to one probability."""
    return MergedVennAbers(fit_venn_abers(logits, labels))


def fit_half_venn_abers(logits: np.ndarray, labels: np.ndarray) -> MergedVennAbers:
    """Half of the way from the logits to `fit_merged_venn_abers`."""
    return MergedVennAbers(fit_venn_abers(logits, labels), weight=0.5)


def fit_venn_abers(logits: np.ndarray, labels: np.ndarray) -> VennAbers:
    """The isotonic regression's value of a new row at, and between, all distinct scores, labelled 0 and labelled 1."""
    scores, index = np.unique(logits, return_inverse=True)
    # Between two scores is a place without rows.
    rows, ones = np.zeros((2, 2 * len(scores) + 1), np.int64)
    rows[1::2], ones[1::2] = np.bincount(index), np.bincount(index[labels == 1], minlength=len(scores))
    pooled_ones, of_ones = _pools_of_new_one(rows.tolist(), ones.tolist())
    # Labelled 0 it is the one where zeros are counted, from above. Each quotient is rounded once, so that one of five
    # is 0.2 by either label.
    zeros, of_zeros = _pools_of_new_one(rows[::-1].tolist(), (rows - ones)[::-1].tolist())[:, ::-1]
    return VennAbers.checked(scores, (of_zeros - zeros) / of_zeros, pooled_ones / of_ones)


def _pools_of_new_one(rows: list[int], ones: list[int]) -> np.ndarray:
    """Ones and rows (2, m) that isotonic regression pools a new row labelled 1 with, at each of m places, in O(m).

    Their ratio is the slope, over the new row, of the greatest convex minorant of the cumulative sums. The sums left of
    the new row are one lower in both, so that they lie on one line with it: from place to place only its end moves.
    Vovk, Petej & Fedorova (2015, algorithms 1 and 2).
    """
    sums = list(zip(accumulate(rows, initial=0), accumulate(ones, initial=0), strict=True))
    corners: list[tuple[int, int]] = []
    for point in (*reversed(sums[1:]), (-1, -1)):
        _add_corner(corners, point)
    pools = np.empty((2, len(rows)))
    for place, (x, y) in enumerate(sums[1:]):
        (left, low), (right, high) = corners[-1], corners[-2]
        pools[:, place] = high - low, right - left
        moved = (x - 1, y - 1)
        if _turn(moved, corners[-1], corners[-2]) < 0:
            corners.pop()
            _add_corner(corners, moved)
    return pools


def _add_corner(corners: list[tuple[int, int]], point: tuple[int, int]) -> None:
    """Put a point left of all corners of a convex minorant, in place of those that are none any more."""
    while len(corners) > 1 and _turn(point, corners[-1], corners[-2]) <= 0:
        corners.pop()
    corners.append(point)


def _turn(a: tuple[int, int], b: tuple[int, int], c: tuple[int, int]) -> int:
    """Above 0 where the way from a over b to c turns left, below 0 where right."""
    return (b[0] - a[0]) * (c[1] - b[1]) - (b[1] - a[1]) * (c[0] - b[0])
