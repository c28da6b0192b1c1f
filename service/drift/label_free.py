"""What can be said without labels: expected accuracy and prevalence, prevalence under a prior shift, stability index.

Everything here but the stability index is right only while the probabilities are calibrated.
"""

import math
from collections.abc import Callable

import numpy as np
from msgspec import Struct

from models.reference import probability_bins

FINE_BINS, FINE_LOGIT, FINE_PER_LOGIT = 200, 8.0, 12.5
"""Bins of probability, equally wide in logits from −8 to 8, the outer ones open; one edge is ½."""
Z = 1.959964
"""The normal distribution's 97.5 % point."""
LIKELIHOOD_DROP = Z**2 / 2


class Estimate(Struct, frozen=True):
    """A value and its 95 % interval."""

    value: float
    interval: tuple[float, float]


def fine_bin(probability: float) -> int:
    """Bin 0 … 199 of a probability in (0, 1)."""
    place = int((math.log(probability / (1 - probability)) + FINE_LOGIT) * FINE_PER_LOGIT)
    return min(max(place, 0), FINE_BINS - 1)


def expected_prevalence(counts: np.ndarray, sums: np.ndarray) -> Estimate:
    """Σp / n: the share of the positive class to expect among n rows, and where theirs lies with 95 % if calibrated.

    ``counts``, ``sums`` (200,): rows per fine bin and the sums of their probabilities. The interval is the normal
    one of a sum of independent outcomes, variance Σ p (1 − p).
    """
    return _share(sums.sum(), counts, sums)


def expected_accuracy(counts: np.ndarray, sums: np.ndarray) -> Estimate:
    """Σ max(p, 1 − p) / n: the share of right answers to expect, and where it lies with 95 % if calibrated.

    NannyML calls it CBPE. Rows and sums as in `expected_prevalence`.
    """
    return _share(np.maximum(sums, counts - sums).sum(), counts, sums)


def _share(expected: float, counts: np.ndarray, sums: np.ndarray) -> Estimate:
    n = float(counts.sum())
    variance = float((sums * (1 - sums / np.maximum(counts, 1))).sum())
    value, half = float(expected / n), Z * math.sqrt(variance) / n
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))


def shifted_prevalence(counts: np.ndarray, sums: np.ndarray, training: float) -> Estimate:
    """The share π of the positive class here if only it differs from ``training``'s, with its 95 % interval.

    Probabilities calibrated at the training prevalence π₀ make a row's likelihood (π/π₀) p + ((1−π)/(1−π₀)) (1−p), up
    to a factor. Its maximum, the estimate, is the fixed point of the EM of Saerens, Latinne & Decaestecker (2002,
    section 2.2); the log-likelihood is concave, so it is found by bisection, where EM may need thousands of steps. The
    interval holds the π whose log-likelihood is within 1.92 of it. Rows and sums as in `expected_prevalence`.
    """
    held = counts > 0
    n, p = counts[held], sums[held] / counts[held]
    slope = p / training - (1 - p) / (1 - training)
    level = (1 - p) / (1 - training)

    def score(prevalence: float) -> float:
        return float((n * slope / (level + prevalence * slope)).sum())

    def likelihood(prevalence: float) -> float:
        return float((n * np.log(level + prevalence * slope)).sum())

    low, high = 1e-9, 1 - 1e-9
    best = _root(score, low, high)
    least = likelihood(best) - LIKELIHOOD_DROP
    return Estimate(
        best,
        (
            _root(lambda prevalence: least - likelihood(prevalence), low, best),
            _root(lambda prevalence: likelihood(prevalence) - least, best, high),
        ),
    )


def _root(falling: Callable[[float], float], low: float, high: float) -> float:
    """Where a function falls through 0; the end nearest to it, if it does so outside [low, high]."""
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > 0 else (low, middle)
    return (low + high) / 2


def prevalence_differs(live: Estimate, training: float, training_rows: int) -> bool:
    """Whether ``live`` is farther from the training prevalence than both their sampling errors explain, at 95 %.

    Without the training rows' own error, any prevalence would differ once the service has seen enough.
    """
    low, high = live.interval
    toward = live.value - low if training < live.value else high - live.value
    error = Z * math.sqrt(training * (1 - training) / training_rows)
    return abs(training - live.value) > math.hypot(toward, error)


def shift_fit(live: np.ndarray, reference: np.ndarray, means: np.ndarray, training: float, prevalence: float) -> float:
    """P-value of "the live probabilities are the reference's after a prior shift", by χ² over tenths of probability.

    ``live``, ``reference`` (10,) counts; ``means`` (10,) the mean probability in each. A shift from the training
    prevalence to ``prevalence`` multiplies a tenth's share by w = (π/π₀) p + ((1−π)/(1−π₀)) (1−p). The variance of the
    difference of shares is that of both samples; one degree of freedom is spent on π.
    """
    weights = prevalence / training * means + (1 - prevalence) / (1 - training) * (1 - means)
    shares = (reference + 0.5) / (reference + 0.5).sum() * weights
    total = shares.sum()
    shares = shares / total
    variance = shares / live.sum() + shares * (weights / total) / reference.sum()
    statistic = ((live / live.sum() - shares) ** 2 / variance).sum()
    return chi_square_tail(float(statistic), len(live) - 2)


def chi_square_tail(x: float, degrees: int) -> float:
    """P(χ² > x): a Poisson sum; of an odd number of degrees of freedom from erfc on (Abramowitz & Stegun, 26.4.4–5)."""
    odd = degrees % 2
    total = math.erfc(math.sqrt(x / 2)) if odd else 0.0
    term = math.exp(-x / 2) * (math.sqrt(2 * x / math.pi) if odd else 1.0)
    for k in range(degrees // 2):
        total += term
        term *= x / (2 * k + 2 + odd)
    return min(1.0, total)


def stability_index(live: np.ndarray, reference: np.ndarray) -> tuple[float, float]:
    """Population stability index of two vectors of counts (B,), and its mean while nothing has changed.

    Σ (q − r) ln(q / r) over shares with half a count added; (B − 1)(1/n + 1/N) over the bins that occur at all
    (Yurdakul & Naranjo, 2020). To be compared with each other, not with 0.1 or 0.2.
    """
    held = (live > 0) | (reference > 0)
    n, N = live.sum(), reference.sum()
    if n == 0:
        return 0.0, 0.0
    q, r = live[held] + 0.5, reference[held] + 0.5
    q, r = q / q.sum(), r / r.sum()
    return float(((q - r) * np.log(q / r)).sum()), float((held.sum() - 1) * (1 / n + 1 / N))


def tenth_means(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Mean probability in each tenth (10,), from the fine bins; a tenth without rows has its midpoint."""
    held = counts > 0
    tenth = probability_bins(sums[held] / counts[held])
    n, total = np.bincount(tenth, counts[held], 10), np.bincount(tenth, sums[held], 10)
    return np.where(n > 0, total / np.maximum(n, 1), np.arange(0.05, 1, 0.1))
