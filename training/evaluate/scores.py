"""Score probabilities: proper scores, calibration errors beside their noise floor, calibration tests, decisions."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from msgspec import Struct
from scipy.stats import chi2

from training.calibrate.maps import log_losses
from training.evaluate.calibration_errors import (
    MASS_BINS,
    debiased_squared_error,
    mass_cuts,
    murphy,
    smooth_error,
    sweep_error,
)  # fmt: skip
from training.evaluate.clusters.dependence import INDEPENDENT, Dependence
from training.evaluate.clusters.errors import cluster_sums, drawn_rows, picked
from training.evaluate.clusters.label_draws import LabelDraws
from training.evaluate.estimates import Estimate, mean, proportion, reflected, roc_auc

RESAMPLES, MIN_RESAMPLES = 1000, 200
"""Draws of a bootstrap; fewer of many rows, whose figures are sharp anyway: `DRAWN_ROWS` in all, if that is more."""
DRAWN_ROWS = 1_000_000
BLOCK = 4_000_000
"""Numbers in one block of draws: bounds memory, not results."""
POSITIVE = (0.0, math.inf)


class CalibrationError(Struct, frozen=True, kw_only=True):
    """A calibration error beside what a perfectly calibrated model with the same scores would show.

    ``noise_floor`` is the mean, ``noise_95`` the 95th percentile over labels drawn from the probabilities themselves;
    ``p_value`` the share of such draws with at least the error observed, the observed one counted among them.
    """

    value: Estimate
    noise_floor: float
    noise_95: float
    p_value: float


class IfCalibrated(Struct, frozen=True, kw_only=True):
    """What a proper score would be, were the probabilities true: mean and 95 % range over labels drawn from them.

    ``p_value`` is two-sided: how rarely such draws lie as far out as the score observed.
    """

    expected: float
    low: float
    high: float
    p_value: float


class BrierParts(Struct, frozen=True, kw_only=True):
    """Murphy's decomposition: Brier = reliability − resolution + uncertainty + within_bins, exactly.

    Over ten bins of equal width (`calibration_errors.murphy`). Chance alone gives reliability its noise floor and adds
    about as much to the resolution (Bröcker, 2012).
    """

    reliability: CalibrationError
    resolution: Estimate
    uncertainty: Estimate
    within_bins: Estimate


class HosmerLemeshow(Struct, frozen=True, kw_only=True):
    """Σ_b (O_b − E_b)² / Σ_{i∈b} p_i (1 − p_i) over tenths of the rows by p: a Hosmer–Lemeshow-type statistic.

    The rows are held out, so no degree of freedom went into the fit: df is the number of bins (Hosmer, Lemeshow &
    Sturdivant, 2013, section 5.2.2), not two fewer. ``p_value`` is of χ² with df, ``simulated_p_value`` of labels drawn
    from the probabilities, which needs no large bins.
    """

    statistic: float
    degrees_of_freedom: int
    p_value: float
    simulated_p_value: float


class Scores(Struct, frozen=True, kw_only=True):
    """Probabilities (n,) against labels (n,).

    ``calibration_error`` is the 10-bin ECE, ``debiased_squared_error`` a squared error that may be below 0;
    ``spiegelhalter_p`` is the two-sided p-value of Spiegelhalter's Z (1986), which tests the Brier score.
    """

    rows: int
    log_loss: Estimate
    brier: Estimate
    log_loss_if_calibrated: IfCalibrated
    brier_if_calibrated: IfCalibrated
    brier_parts: BrierParts
    calibration_error: CalibrationError
    debiased_squared_error: CalibrationError
    sweep_error: CalibrationError
    smooth_error: CalibrationError
    spiegelhalter_z: float
    spiegelhalter_p: float
    hosmer_lemeshow: HosmerLemeshow
    auc: Estimate
    accuracy: Estimate
    recall: dict[str, Estimate]


def score(
    probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str], rng: np.random.Generator,
    dependence: Dependence = INDEPENDENT,
) -> Scores:  # fmt: skip
    """All scores of probabilities (n,) in (0, 1) of the second of two classes, with standard errors over rows, or over
    clusters of them, or by bootstrap."""
    order = np.argsort(probabilities, kind="stable")
    p, y = probabilities[order], labels[order].astype(float)
    observed = {name: float(values[0]) for name, values in measures(p, y[None], np.ones((1, len(p)))).items()}
    dependence = dependence[order]
    clusters = dependence.errors
    null = draws_if_calibrated(measures, p, rng, LabelDraws(p, y, dependence.tests))
    again = resampled(_errors, p, y, rng, clusters)

    def error(name: str, bounds: tuple[float, float] = POSITIVE, truth: str | None = None) -> CalibrationError:
        estimate = reflected(observed[name], again[name], truth=observed[truth or name], bounds=bounds)
        return against_noise(estimate, null[name])

    right = (p >= 0.5) == (y == 1)
    z, z_p = spiegelhalter(p, y, dependence.tests)
    bins = len(mass_cuts(p, MASS_BINS)) - 1
    return Scores(
        rows=len(y), log_loss=mean(log_losses(p, y), clusters), brier=mean((p - y) ** 2, clusters),
        log_loss_if_calibrated=if_calibrated(observed["log_loss"], null["log_loss"]),
        brier_if_calibrated=if_calibrated(observed["brier"], null["brier"]),
        brier_parts=BrierParts(
            reliability=error("reliability"),
            resolution=reflected(observed["resolution"], again["resolution"], bounds=POSITIVE),
            uncertainty=reflected(observed["uncertainty"], again["uncertainty"], bounds=(0.0, 0.25)),
            within_bins=reflected(observed["within_bins"], again["within_bins"]),
        ),
        calibration_error=error("ece"), sweep_error=error("sweep"), smooth_error=error("smooth"),
        debiased_squared_error=error("debiased", (-np.inf, np.inf), "squared"), spiegelhalter_z=z, spiegelhalter_p=z_p,
        hosmer_lemeshow=HosmerLemeshow(
            statistic=observed["hosmer_lemeshow"], degrees_of_freedom=bins,
            p_value=_chi2_p(observed["hosmer_lemeshow"], bins, None if dependence.tests is None else null),
            simulated_p_value=_at_least(observed["hosmer_lemeshow"], null["hosmer_lemeshow"]),
        ),
        auc=roc_auc(p, y, clusters), accuracy=proportion(right, clusters),
        recall={
            name: proportion(right[y == index], picked(clusters, y == index))
            for index, name in enumerate(classes)
        },
    )  # fmt: skip


def _chi2_p(statistic: float, bins: int, dependent: dict[str, np.ndarray] | None) -> float:
    """The p-value of `HosmerLemeshow`; for rows in clusters the statistic is first divided by what clusters make of its
    expectation (Rao & Scott, 1984)."""
    inflation = 1.0 if dependent is None else max(1.0, float(dependent["hosmer_lemeshow"].mean()) / bins)
    return float(chi2.sf(statistic / inflation, bins))


def spiegelhalter(p: np.ndarray, y: np.ndarray, clusters: np.ndarray | None = None) -> tuple[float, float]:
    """Z = Σ(y − p)(1 − 2p) / √Σ(1 − 2p)² p(1 − p) and its two-sided p-value; 0 and 1 where the variance is 0.

    Spiegelhalter (1986): the Brier score less its expectation under calibration, in standard errors. Of rows in
    clusters (n,) the variance is that of the clusters' sums about 0, their expectation (Boos, 1992).
    """
    terms = (y - p) * (1 - 2 * p)
    variance = float(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    if clusters is not None:
        variance = float((cluster_sums(terms, clusters) ** 2).sum())
    z = float(terms.sum() / math.sqrt(variance)) if variance > 0 else 0.0
    return z, math.erfc(abs(z) / math.sqrt(2))


def hosmer_lemeshow(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The statistic (R,) of `HosmerLemeshow` for p (n,) rising and labels (R, n)."""
    starts = mass_cuts(p, MASS_BINS)[:-1]
    missed = np.add.reduceat(y - p, starts, axis=1)
    return np.asarray((missed**2 / np.add.reduceat(p * (1 - p), starts)).sum(axis=1))


def against_noise(value: Estimate, null: np.ndarray) -> CalibrationError:
    """An error beside the errors (R,) of labels drawn from the probabilities."""
    return CalibrationError(
        value=value, noise_floor=float(null.mean()), noise_95=float(np.quantile(null, 0.95)),
        p_value=_at_least(value.value, null),
    )  # fmt: skip


Measure = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, np.ndarray]]


def draws_if_calibrated(
    measure: Measure, p: np.ndarray, rng: np.random.Generator, uniform: LabelDraws | None = None
) -> dict[str, np.ndarray]:
    """Measures (R,) of labels drawn from p (n,), rising, themselves, independently or as ``uniform`` has them."""
    ones, uniform = np.ones((1, len(p))), uniform or LabelDraws(p)
    return _joined([measure(p, (uniform(rng, draws) < p).astype(float), ones) for draws in _blocks(len(p))])


def resampled(
    measure: Measure, p: np.ndarray, y: np.ndarray, rng: np.random.Generator, clusters: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Measures (R,) of rows, or of clusters (n,), drawn with replacement. Bins of equal count stay those of the rows
    themselves."""
    return _joined([measure(p, y[None], drawn_rows(clusters, len(p), draws, rng)) for draws in _blocks(len(p))])


def _errors(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
    debiased, squared = debiased_squared_error(p, y, w)
    return {
        **murphy(p, y, w), "debiased": debiased, "squared": squared, "sweep": sweep_error(p, y, w),
        "smooth": smooth_error(p, y, w),
    }  # fmt: skip


def measures(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that is compared with its noise; here each row counts once."""
    return {
        **_errors(p, y, w), "hosmer_lemeshow": hosmer_lemeshow(p, y), "brier": ((p - y) ** 2).mean(axis=1),
        "log_loss": -(y @ np.log(p) + (1 - y) @ np.log1p(-p)) / len(p),
    }  # fmt: skip


def if_calibrated(observed: float, null: np.ndarray) -> IfCalibrated:
    """A proper score beside the scores (R,) of labels drawn from the probabilities."""
    low, high = np.quantile(null, [0.025, 0.975])
    tail = min(_at_least(observed, null), _at_least(-observed, -null))
    return IfCalibrated(expected=float(null.mean()), low=float(low), high=float(high), p_value=min(1.0, 2 * tail))


def _at_least(observed: float, null: np.ndarray) -> float:
    """(1 + #{null ≥ found}) / (1 + R): never 0 and valid for any R (Davison & Hinkley, 1997, section 4.2)."""
    return float((1 + (null >= observed - 1e-12).sum()) / (1 + len(null)))


def draw_count(rows: int) -> int:
    """Draws of a bootstrap, or of labels, for so many rows."""
    return min(RESAMPLES, max(MIN_RESAMPLES, DRAWN_ROWS // rows))


def _blocks(rows: int) -> Iterator[int]:
    block, draws = max(1, BLOCK // rows), draw_count(rows)
    for start in range(0, draws, block):
        yield min(block, draws - start)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
