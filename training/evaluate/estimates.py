"""Figures with their spread: means over rows, proportions, the area under the ROC curve, and resampled statistics."""

import numpy as np
from msgspec import Struct
from scipy.stats import beta, rankdata

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


def mean(values: np.ndarray) -> Estimate:
    """Mean of values (n,) over independent rows, with the normal interval."""
    if not len(values):
        return absent(NO_ROWS)
    value = float(values.mean())
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return Estimate(value, error, value - Z_95 * error, value + Z_95 * error)


def proportion(held: np.ndarray) -> Estimate:
    """`share` of True among (n,)."""
    return share(int(np.sum(held)), len(held))


def share(count: int, n: int) -> Estimate:
    """``count`` of n, with Wilson's interval (1927), which holds near 0 and 1 where the normal one fails."""
    if not n:
        return absent(NO_ROWS)
    p, z2 = count / n, Z_95**2
    middle = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * np.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    # At 0 and at 1 one end is exact; rounding must not pass it.
    low, high = min(p, float(middle - half)), max(p, float(middle + half))
    return Estimate(p, float(np.sqrt(p * (1 - p) / n)), max(low, 0.0), min(high, 1.0))


def exact_share(count: int, n: int) -> Estimate:
    """``count`` of n, with Clopper & Pearson's interval (1934): it holds the true share of 95 % of samples or more,
    however few rows there are."""
    if not n:
        return absent(NO_ROWS)
    p = count / n
    low = beta.ppf(0.025, count, n - count + 1) if count else 0.0
    high = beta.ppf(0.975, count + 1, n - count) if count < n else 1.0
    return Estimate(p, float(np.sqrt(p * (1 - p) / n)), float(low), float(high))


def roc_auc(p: np.ndarray, y: np.ndarray) -> Estimate:
    """Area under the ROC curve of scores p (n,) for labels y (n,) 0/1; ties count half.

    The variance is DeLong, DeLong & Clarke-Pearson's (1988); the interval is cut to [0, 1]. NaN when a class is absent.
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
