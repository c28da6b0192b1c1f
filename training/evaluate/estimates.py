"""Figures with their spread: means over rows, proportions, the area under the ROC curve, and resampled statistics."""

import numpy as np
from msgspec import Struct
from scipy.stats import beta, rankdata, t

from training.evaluate.clusters.errors import effective_rows, standard_error

Z_95 = 1.959963984540054
"""The normal distribution's 97.5 % point."""

NO_ROWS, ONE_CLASS = "no rows", "the rows are all of one class"


class Estimate(Struct, frozen=True, omit_defaults=True):
    """A figure with its standard error and 95 % interval; NaN (null in JSON) where the rows are too few for one.

    Where there is no figure at all, ``reason`` says why.
    """

    value: float
    standard_error: float
    low: float
    high: float
    reason: str | None = None


def absent(reason: str) -> Estimate:
    """What stands where there is no figure."""
    nothing = float("nan")
    return Estimate(nothing, nothing, nothing, nothing, reason)


def mean(values: np.ndarray, clusters: np.ndarray | None = None) -> Estimate:
    """Mean of values (n,) over independent rows, with the normal interval; of rows in clusters (n,) with the
    cluster-robust error (`standard_error`) and Student's interval with one degree of freedom less than there are
    clusters (Cameron & Miller, 2015, section VI)."""
    if not len(values):
        return absent(NO_ROWS)
    value = float(values.mean())
    if clusters is not None:
        error, half = standard_error(values - value, clusters), t_95(len(np.unique(clusters)))
        return Estimate(value, error, value - half * error, value + half * error)
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return Estimate(value, error, value - Z_95 * error, value + Z_95 * error)


def t_95(clusters: int) -> float:
    """The 97.5 % point of Student's t with one degree of freedom less than there are clusters."""
    return float(t.ppf(0.975, clusters - 1)) if clusters > 1 else float("nan")


def proportion(held: np.ndarray, clusters: np.ndarray | None = None) -> Estimate:
    """`share` of True among (n,); of rows in clusters (n,) as of their effective number."""
    if clusters is None or not len(held):
        return share(int(np.sum(held)), len(held))
    rows = effective_rows(held, clusters)
    return share(float(held.mean()) * rows, rows)


def share(count: float, n: float) -> Estimate:
    """``count`` of n, with Wilson's interval (1927), which holds near 0 and 1 where the normal one fails."""
    if not n:
        return absent(NO_ROWS)
    p, z2 = count / n, Z_95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At 0 and at 1 one end is exact; rounding must not pass it.
    low, high = min(p, float(middle - half)), max(p, float(middle + half))
    return Estimate(p, float(np.sqrt(p * (1 - p) / n)), max(low, 0.0), min(high, 1.0))


def exact_proportion(held: np.ndarray, clusters: np.ndarray | None = None) -> Estimate:
    """The share of True among (n,), with Clopper & Pearson's interval (1934), which holds the true share in 95 % of
    samples or more, however few rows there are. Of rows in clusters (n,) it is that of their effective number (Korn &
    Graubard, 1998)."""
    if not len(held):
        return absent(NO_ROWS)
    p, n = float(held.mean()), float(len(held))
    if clusters is not None and (groups := len(np.unique(clusters))) > 1:
        n = effective_rows(held, clusters) * (t_95(len(held)) / t_95(groups)) ** 2
    count = p * n
    low = beta.ppf(0.025, count, n - count + 1) if p > 0 else 0.0
    high = beta.ppf(0.975, count + 1, n - count) if p < 1 else 1.0
    return Estimate(p, float(np.sqrt(p * (1 - p) / n)), float(low), float(high))


def roc_auc(p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None) -> Estimate:
    """Area under the ROC curve of scores p (n,) for labels y (n,) 0/1; ties count half.

    The variance is DeLong, DeLong & Clarke-Pearson's (1988), of rows in clusters that of the sums of its components
    (Obuchowski, 1997); the interval is cut to [0, 1]. NaN when a class is absent.
    """
    one, zero = p[y == 1], p[y == 0]
    if not len(one) or not len(zero):
        return absent(ONE_CLASS)
    ranks = rankdata(p)
    above = (ranks[y == 1] - rankdata(one)) / len(zero)
    below = 1 - (ranks[y == 0] - rankdata(zero)) / len(one)
    value, error = float(above.mean()), float("nan")
    if min(len(one), len(zero)) > 1:
        error = float(np.sqrt(above.var(ddof=1) / len(one) + below.var(ddof=1) / len(zero)))
    if clusters is not None:
        components = np.zeros(len(y))
        components[y == 1], components[y == 0] = (above - value) / len(one), (below - value) / len(zero)
        error = standard_error(len(y) * components, clusters)
    return Estimate(value, error, max(0.0, value - Z_95 * error), min(1.0, value + Z_95 * error))


def reflected(
    value: float, resampled: np.ndarray, *, truth: float | None = None, bounds: tuple[float, float] = (-np.inf, np.inf)
) -> Estimate:
    """An estimate with the basic ("reflected") bootstrap interval (Davison & Hinkley, 1997, section 5.2).

    ``resampled`` (R,) are the statistic on resamples, ``truth`` the quantity's value on the rows themselves, which is
    what a resample estimates (default: ``value``). Estimates of calibration error are too large by chance alone, and
    resamples once more so; percentiles would add that bias to the interval, reflection takes it out. The interval is
    cut to ``bounds`` and widened, where need be, to hold the estimate.
    """
    low, high = np.quantile(resampled, [0.025, 0.975])
    centre = value if truth is None else truth
    low, high = (float(np.clip(value - (end - centre), *bounds)) for end in (high, low))
    return Estimate(value, float(resampled.std(ddof=1)), min(low, value), max(high, value))
