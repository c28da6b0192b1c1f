"""Measures of miscalibration, each for many label vectors at once: observed, resampled, or drawn from the scores.

Everywhere p (n,) are probabilities in rising order, y labels 0/1 and w how often each row counts, either of them (R, n)
and the other (R, n) or (1, n).
Rows with one probability are never parted: a cut between bins moves up to the next distinct probability.
"""

import numpy as np

from models.reference import PROBABILITY_BINS, probability_bins

WIDTH_BINS = len(PROBABILITY_BINS)
MASS_BINS = 10
MAX_SWEEP_BINS = 100
"""Where the sweep stops even if the bins still rise: reached only when labels are all but sorted by score."""
MODES = 256
MIN_KERNEL_WIDTH = 0.004
"""The least kernel width of the smooth error, which 256 cosines still carry; it is about 0.03 at a thousand rows."""


def mass_cuts(p: np.ndarray, bins: int) -> np.ndarray:
    """Starts (k + 1,) of k ≤ ``bins`` bins of about equal count, with n at the end; ties stay together."""
    ends = np.append(np.flatnonzero(np.diff(p)) + 1, len(p))
    inner = ends[np.searchsorted(ends, np.arange(1, bins) * len(p) / bins - 1e-9)]
    return np.asarray(np.unique(np.concatenate([[0], inner, [len(p)]])))


def murphy(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
    """Ten-bin expected calibration error and the parts of the Brier score, each (R,).

    ``ece`` = Σ_b n_b |ȳ_b − p̄_b| / n (Naeini et al., 2015). ``reliability`` = Σ_b n_b (p̄_b − ȳ_b)² / n,
    ``resolution`` = Σ_b n_b (ȳ_b − ȳ)² / n, ``uncertainty`` = ȳ (1 − ȳ) (Murphy, 1973); ``within_bins`` =
    Σ_i (p_i − p̄_b)² / n − 2 Σ_i (p_i − p̄_b)(y_i − ȳ_b) / n is what bins hide (Stephenson, Coelho & Jolliffe,
    2008), so that exactly Brier = reliability − resolution + uncertainty + within_bins.
    """
    member = np.eye(WIDTH_BINS)[probability_bins(p)]
    n_b = w @ member
    y_b, p_b = ((w * values) @ member / np.maximum(n_b, 1) for values in (y, p))
    n = n_b.sum(axis=1)
    base = (n_b * y_b).sum(axis=1) / n
    squares = (w @ p**2 - (n_b * p_b**2).sum(axis=1)) / n
    products = ((w * y) @ p - (n_b * p_b * y_b).sum(axis=1)) / n
    return {
        "ece": (n_b * np.abs(y_b - p_b)).sum(axis=1) / n,
        "reliability": (n_b * (p_b - y_b) ** 2).sum(axis=1) / n,
        "resolution": (n_b * (y_b - base[:, None]) ** 2).sum(axis=1) / n,
        "uncertainty": base * (1 - base),
        "within_bins": squares - 2 * products,
    }


def debiased_squared_error(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared calibration error over ten bins of equal count, debiased and plain: (R,), (R,).

    Σ_b (n_b/n) (r̄_b² − s_b²/n_b) with r = y − p and s_b² its variance in the bin (Kumar, Liang & Ma, 2019, section 5).
    Where all scores of a bin are equal, s_b²/n_b is their ȳ_b(1 − ȳ_b)/(n_b − 1); where they are not, theirs would
    subtract too much. Unbiased for the squared error of the bins, so it is below 0 about as often as above when there
    is none. A bin of one row tells nothing and counts as 0.
    """
    starts, residuals = mass_cuts(p, MASS_BINS)[:-1], y - p
    summed = (w + 0 * residuals, w * residuals, w * residuals**2)
    n_b, sums, squares = (np.add.reduceat(values, starts, axis=1) for values in summed)
    r_b = sums / np.maximum(n_b, 1)
    variance_of_mean = np.maximum(squares / np.maximum(n_b, 1) - r_b**2, 0) / np.maximum(n_b - 1, 1)
    share = n_b / n_b.sum(axis=1, keepdims=True)
    gain = np.where(n_b > 1, r_b**2 - variance_of_mean, 0.0)
    return (share * gain).sum(axis=1), (share * r_b**2).sum(axis=1)


def sweep_error(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Expected calibration error (R,) with as many bins of equal count as keep the observed rates rising.

    Roelofs, Cain, Shlens & Mozer (2022), with the absolute error (their p = 1).
    """
    ones = w + 0 * y
    cumulated = [np.pad(np.cumsum(values, axis=1), ((0, 0), (1, 0))) for values in (ones, ones * y, w * (y - p))]
    errors: np.ndarray = np.abs(cumulated[2][:, -1]) / cumulated[0][:, -1]
    active = np.arange(len(ones))
    for bins in range(2, MAX_SWEEP_BINS + 1):
        cuts = mass_cuts(p, bins)
        n_b, ones_b, residual_b = (np.diff(sums[np.ix_(active, cuts)], axis=1) for sums in cumulated)
        rising = (np.diff(ones_b / np.maximum(n_b, 1), axis=1) >= 0).all(axis=1) & (n_b > 0).all(axis=1)
        active = active[rising]
        if not len(active):
            break
        errors[active] = np.abs(residual_b[rising]).sum(axis=1) / cumulated[0][active, -1]
    return errors


def smooth_error(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Smooth calibration error (R,): the width σ at which the smoothed residual's mean size is σ itself.

    smECE_σ = ∫₀¹ |Σ_i (y_i − p_i) K_σ(t, p_i) / n| dt with the Gaussian kernel reflected at 0 and 1 (Błasiok &
    Nakkiran, 2024); it falls with σ, so smECE_σ = σ has one solution, found by bisection. On [0, 1] the reflected
    kernel is diagonal in cosines, K_σ(t, u) = 1 + 2 Σ_k e^(−(πkσ)²/2) cos πkt cos πku: no row is binned.
    """
    k = np.arange(MODES)
    coefficients = (w * (y - p)) @ np.cos(np.pi * np.outer(p, k)) / (w + 0 * y).sum(axis=1, keepdims=True)
    coefficients[:, 1:] *= 2
    grid = np.cos(np.pi * np.outer(k, (k + 0.5) / MODES))

    def size(width: np.ndarray) -> np.ndarray:
        damped = coefficients * np.exp(-((np.pi * np.outer(width, k)) ** 2) / 2)
        return np.asarray(np.abs(damped @ grid).mean(axis=1))

    low, high = np.full(len(coefficients), MIN_KERNEL_WIDTH), np.ones(len(coefficients))
    narrow = size(low)
    for _ in range(14):
        middle = (low + high) / 2
        above = size(middle) > middle
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return np.where(narrow < MIN_KERNEL_WIDTH, narrow, (low + high) / 2)
