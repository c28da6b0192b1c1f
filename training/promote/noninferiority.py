"""One-sided bounds for "no worse than by a margin": means of paired differences, calibration errors, ratios of times.

Rows of one cluster depend on each other, as passengers on one ticket do: clusters are the independent units here.
"""

import numpy as np
from msgspec import Struct
from scipy.stats import binom, t

from training.evaluate.calibration_errors import debiased_squared_error
from training.evaluate.clusters.errors import cluster_sums, standard_error
from training.evaluate.comparisons.paired import one_by_one

MAX_BLOCKS = 200
"""Blocks of clusters that the jackknife leaves out in turn; more of them cost time and say no more of the spread."""
LEVEL_SHARE = 0.8
"""Of the risk, at which means are tested: simulated levels of the bound below are up to 1.2 times the nominal one."""


class Bound(Struct, frozen=True, kw_only=True):
    """An estimate, its standard error, and ``upper``, which the truth is above with a chance of about the risk asked.

    ``worse_p`` is the one-sided p-value of "the truth is not above 0"; NaN where that was not asked.
    """

    value: float
    standard_error: float
    upper: float
    worse_p: float = float("nan")


def mean_bound(differences: np.ndarray, clusters: np.ndarray, risk: float) -> Bound:
    """The mean of differences (n,) whose clusters (n,) are independent.

    The standard error is that of the clusters' sums. Log losses are skewed: a model that is rarely but badly wrong
    looks better in most samples than it is, and Student's bound, for an overconfident one and n = 200, is too low in
    7 % of samples, not 5. So t is transformed as Hall (1992, "On the removal of skewness by transformation", section 2)
    does, and the higher of the two bounds is taken. Infinite with fewer than two clusters.
    """
    value = float(differences.mean())
    sums = cluster_sums(differences - value, clusters)
    count, squares = len(sums), float((sums**2).mean())
    if count < 2:
        return Bound(value=value, standard_error=np.inf, upper=np.inf, worse_p=1.0)
    error = standard_error(differences - value, clusters)
    if error == 0:
        return Bound(value=value, standard_error=0.0, upper=value, worse_p=0.0 if value > 0 else 1.0)
    a = float((sums**3).mean() / squares**1.5 / (3 * np.sqrt(count)))
    low, studentized = float(t.ppf(LEVEL_SHARE * risk, count - 1)), value / error
    return Bound(
        value=value, standard_error=error, upper=value - error * min(low, _hall_inverse(low, a)),
        worse_p=float(t.sf(min(studentized, _hall(studentized, a)), count - 1)),
    )  # fmt: skip


def _hall(x: float, a: float) -> float:
    """Hall's transformation, x + ax² + a²x³/3 + a/2 with a the skewness over 3√n: it takes the skewness out of x."""
    return x + a * x**2 + a**2 * x**3 / 3 + a / 2


def _hall_inverse(x: float, a: float) -> float:
    return x if abs(a) < 1e-9 else float(np.cbrt(1 + 3 * a * (x - a / 2)) - 1) / a


def calibration_bound(
    probabilities: np.ndarray, labels: np.ndarray, clusters: np.ndarray, risk: float, rng: np.random.Generator,
    over: np.ndarray | None = None,
) -> Bound:  # fmt: skip
    """The squared calibration error of probabilities, (n,) of the positive of two classes, against labels (n,):
    Σ_b (n_b/n) (ȳ_b − p̄_b)². Of more classes (n, K) it is the mean of each one's against all others.

    Over ten bins of equal count; with ``over``, its excess over the error of those probabilities on the same rows.
    Chance alone makes an error too large; the jackknife over blocks of whole clusters takes that bias out and gives the
    standard error s (Shao & Tu, 1995, sections 1.3 and 2.3). The estimate may be below 0. A square varies the more the
    larger it truly is: by about 4 (u − estimate) V more at u, with V the variance of the mean residual. ``upper`` is
    the u at which the estimate is q deviations of u's own below it, as Wilson's bound of a proportion is:
    estimate + 2q²V + √((2q²V)² + (qs)²). Of several classes V is the mean of theirs: the variance of the mean of their
    squares grows by 4u/K times the largest eigenvalue of their residuals' covariance, which is at most the trace.
    """
    blocks = _blocks(clusters, rng)
    whole, left = _squared_errors(probabilities, labels, blocks)
    if over is not None:
        other, other_left = _squared_errors(over, labels, blocks)
        whole, left = whole - other, left - other_left
    count = len(left)
    value = count * whole - (count - 1) * float(left.mean())
    error = float(np.sqrt((count - 1) / count * ((left - left.mean()) ** 2).sum()))
    q = -float(t.ppf(risk, count - 1))
    variances = [mean_bound(y - p, clusters, risk).standard_error ** 2 for p, y in one_by_one(probabilities, labels)]
    shift = 2 * q**2 * float(np.mean(variances))
    return Bound(value=value, standard_error=error, upper=value + shift + float(np.hypot(shift, q * error)))


def _squared_errors(p: np.ndarray, labels: np.ndarray, blocks: np.ndarray) -> tuple[float, np.ndarray]:
    """Of all rows, and of those that are left without each block (B,)."""
    each = [_squared_error(of_class, y, blocks) for of_class, y in one_by_one(p, labels)]
    squared = np.mean(each, axis=0)
    return float(squared[0]), squared[1:]


def _squared_error(p: np.ndarray, labels: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    order = np.argsort(p, kind="stable")
    y = labels[order].astype(float)[None]
    kept = np.vstack([np.ones(len(p)), blocks[order] != np.arange(blocks.max() + 1)[:, None]])
    return debiased_squared_error(p[order], y, kept)[1]


def _blocks(clusters: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Block number (n,): whole clusters, drawn at random."""
    _, number = np.unique(clusters, return_inverse=True)
    count = int(number.max()) + 1
    return np.asarray((rng.permutation(count) % MAX_BLOCKS)[number])


def median_bound(values: np.ndarray, risk: float) -> Bound:
    """The median of values (n,): its bound is the k-th smallest with P(Binomial(n, ½) ≥ k) ≤ risk, whatever their law.

    The standard error given is that of the median of a normal law. Infinite where n is too small for the risk.
    """
    count = len(values)
    enough = [k for k in range(1, count + 1) if binom.sf(k - 1, count, 0.5) <= risk]
    spread = float(np.sqrt(np.pi / 2 * values.var(ddof=1) / count))
    upper = float(np.sort(values)[enough[0] - 1]) if enough else np.inf
    return Bound(value=float(np.median(values)), standard_error=spread, upper=upper)
