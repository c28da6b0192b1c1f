"""Score probabilities: proper scores, calibration error beside its noise floor, coverage, with their spread."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from rich.console import Console
from rich.table import Table as TextTable
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from models.passenger import LABELS, Passenger, describe
from training.calibrate import Inverse, MapRule, fit_record, log_losses

RESAMPLES = 1000


class Estimate(Struct, frozen=True):
    """A figure with its standard error and 95 % interval."""

    value: float
    standard_error: float
    low: float
    high: float


class CalibrationError(Struct, frozen=True, kw_only=True):
    """10-bin expected calibration error beside what a perfectly calibrated model with the same scores would show.

    ``noise_floor`` is the mean, ``noise_95`` the 95th percentile over labels drawn from the probabilities themselves;
    ``p_value`` the share of such draws with at least the error observed.
    """

    value: Estimate
    noise_floor: float
    noise_95: float
    p_value: float


class Scores(Struct, frozen=True, kw_only=True):
    """Probabilities (n,) against labels (n,). ``spiegelhalter_p``: two-sided p-value of Spiegelhalter's Z (1986)."""

    rows: int
    log_loss: Estimate
    brier: Estimate
    calibration_error: CalibrationError
    spiegelhalter_z: float
    spiegelhalter_p: float
    auc: Estimate
    accuracy: Estimate
    recall: dict[str, Estimate]


class SetCoverage(Struct, frozen=True, kw_only=True):
    """Conformal sets: nominal and found coverage, over all rows and per class, average size, share that abstains."""

    nominal: float
    overall: Estimate
    by_class: dict[str, Estimate]
    average_size: float
    abstained: float


class IntervalValidity(Struct, frozen=True, kw_only=True):
    """Venn–Abers intervals: calibrated ones hold the observed rate between the mean p0 and the mean p1."""

    mean_low: float
    mean_high: float
    observed: Estimate
    average_width: float
    outside_by: float


def score(probabilities: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> Scores:
    """All scores of probabilities (n,) in (0, 1), with standard errors over rows or by bootstrap."""
    p, y = probabilities, labels
    z = ((y - p) * (1 - 2 * p)).sum() / np.sqrt(((1 - 2 * p) ** 2 * p * (1 - p)).sum())
    right = ((p >= 0.5) == (y == 1)).astype(float)
    return Scores(
        rows=len(y), log_loss=_mean(log_losses(p, y)), brier=_mean((p - y) ** 2),
        calibration_error=_calibration_error(p, y, rng), spiegelhalter_z=float(z),
        spiegelhalter_p=math.erfc(abs(z) / math.sqrt(2)), auc=_bootstrap(roc_auc, p, y, rng),
        accuracy=_mean(right), recall={name: _mean(right[y == index]) for index, name in enumerate(LABELS)},
    )  # fmt: skip


def ece(p: np.ndarray, y: np.ndarray) -> float:
    """Expected calibration error over ten bins of equal width: Σ_b |Σ_{i∈b} (y_i − p_i)| / n (Naeini et al., 2015)."""
    bins = np.minimum((p * 10).astype(int), 9)
    return float(np.abs(np.bincount(bins, weights=y - p, minlength=10)).sum() / len(p))


def roc_auc(p: np.ndarray, y: np.ndarray) -> float:
    """Area under the receiver operating characteristic; NaN when only one class is there."""
    return float(roc_auc_score(y, p)) if 0 < y.sum() < len(y) else float("nan")


def _calibration_error(p: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> CalibrationError:
    found = ece(p, y)
    null = np.array([ece(p, (rng.random(len(p)) < p).astype(float)) for _ in range(RESAMPLES)])
    return CalibrationError(
        value=_bootstrap(ece, p, y, rng), noise_floor=float(null.mean()), noise_95=float(np.quantile(null, 0.95)),
        p_value=float((1 + (null >= found).sum()) / (1 + RESAMPLES)),
    )  # fmt: skip


def _mean(values: np.ndarray) -> Estimate:
    value = float(values.mean())
    error = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")
    return Estimate(value, error, value - 1.96 * error, value + 1.96 * error)


def _bootstrap(
    statistic: Callable[[np.ndarray, np.ndarray], float], p: np.ndarray, y: np.ndarray, rng: np.random.Generator
) -> Estimate:
    draws = rng.integers(0, len(y), (RESAMPLES, len(y)))
    found = np.array([statistic(p[rows], y[rows]) for rows in draws])
    low, high = np.nanquantile(found, [0.025, 0.975])
    return Estimate(statistic(p, y), float(np.nanstd(found, ddof=1)), float(low), float(high))


def nested_evaluation(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, passengers: Sequence[Passenger], *,
    inverse: Inverse | None, coverage: float, seed: int, map_rule: MapRule = "least",
) -> tuple[dict[str, Any], np.ndarray]:  # fmt: skip
    """Evaluate the recipe on out-of-fold logits (n,): the dictionary of evaluation.json, and calibrated p (n,).

    For each fold, map, Venn–Abers and sets are fitted on the other folds' logits and judged on this fold, so no row
    is judged by a model or a calibration that saw its label — with one remainder: the *models* that gave the other
    folds' logits had this fold's rows among their training rows. That is what cross-fitting leaves (Barber et al.,
    2021), and with one or no fitted parameter in the map it is far below the standard errors quoted.
    """
    p, p0, p1 = np.empty(len(labels)), np.empty(len(labels)), np.empty(len(labels))
    member = np.empty((len(labels), 2), bool)
    chosen = []
    for fold in np.unique(folds):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        record = fit_record(
            logits[rest],
            labels[rest],
            [passengers[i] for i in rest.tolist()],
            inverse=inverse,
            coverage=coverage,
            seed=seed,
            map_rule=map_rule,
        )
        chosen.append(next(candidate.name for candidate in record.candidates if candidate.chosen))
        p[here], (p0[here], p1[here]) = record.map.probabilities(logits[here]), record.venn_abers.interval(logits[here])
        member[here] = record.conformal.sets(p[here])
    rng = np.random.default_rng(seed)
    peer = logistic_regression(passengers, labels, folds)
    difference = _mean(log_losses(p, labels) - log_losses(peer, labels))
    raw = 1 / (1 + np.exp(-logits))
    evaluation = {
        "how": f"{len(np.unique(folds))}-fold cross-fitting; each fold calibrated on the other folds' held-out logits",
        "rows": len(labels),
        "maps_chosen": chosen,
        "calibrated": score(p, labels, rng),
        "raw": score(raw, labels, rng),
        "sets": _coverage(member, labels, coverage),
        "interval": _interval(np.minimum(p0, p), np.maximum(p1, p), labels),
        "logistic_regression": {"scores": score(peer, labels, rng), "log_loss_difference": difference},
    }
    return evaluation, p


def _coverage(member: np.ndarray, labels: np.ndarray, nominal: float) -> SetCoverage:
    held = member[np.arange(len(labels)), labels].astype(float)
    size = member.sum(axis=1)
    return SetCoverage(
        nominal=nominal, overall=_mean(held), average_size=float(size.mean()), abstained=float((size != 1).mean()),
        by_class={name: _mean(held[labels == index]) for index, name in enumerate(LABELS)},
    )  # fmt: skip


def _interval(low: np.ndarray, high: np.ndarray, labels: np.ndarray) -> IntervalValidity:
    observed = float(labels.mean())
    return IntervalValidity(
        mean_low=float(low.mean()), mean_high=float(high.mean()), observed=_mean(labels.astype(float)),
        average_width=float((high - low).mean()),
        outside_by=max(0.0, float(low.mean()) - observed, observed - float(high.mean())),
    )  # fmt: skip


def evaluate_rows(
    probabilities: np.ndarray, raw: np.ndarray, member: np.ndarray, low: np.ndarray, high: np.ndarray,
    labels: np.ndarray, coverage: float, seed: int,
) -> dict[str, Any]:  # fmt: skip
    """Evaluate a finished bundle's answers on labelled rows, arrays (n,), ``member`` (n, 2)."""
    rng = np.random.default_rng(seed)
    return {
        "how": "the bundle's own predictions on the rows given",
        "rows": len(labels),
        "calibrated": score(probabilities, labels, rng),
        "raw": score(raw, labels, rng),
        "sets": _coverage(member, labels, coverage),
        "interval": _interval(low, high, labels),
    }


def logistic_regression(passengers: Sequence[Passenger], labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Held-out probabilities (n,) of the peer: logistic regression on the numbers and on the phrases of the text."""
    # None becomes NaN, which is imputed below.
    numbers = np.array([[p.age, p.sibsp or 0, p.parch or 0, p.fare] for p in passengers], float)
    texts = np.array([describe(p) for p in passengers], object)
    columns = np.concatenate([numbers.astype(object), texts[:, None]], axis=1)
    found = np.empty(len(labels))
    for fold in np.unique(folds):
        impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
        model = make_pipeline(
            make_column_transformer(
                (make_pipeline(impute, StandardScaler()), [0, 1, 2, 3]),
                (CountVectorizer(analyzer=_phrases), 4),
            ),
            LogisticRegression(max_iter=1000),
        )
        model.fit(columns[folds != fold], labels[folds != fold])
        found[folds == fold] = model.predict_proba(columns[folds == fold])[:, 1]
    return found


def _phrases(text: str) -> list[str]:
    return text.split(", ")


def print_evaluation(evaluation: dict[str, Any], console: Console) -> None:
    """The evaluation as a table for a terminal."""
    table = TextTable(title=f"{evaluation['rows']} rows: {evaluation['how']}", title_justify="left")
    for column in ("", "calibrated", "raw"):
        table.add_column(column, justify="left" if not column else "right")
    both = [evaluation["calibrated"], evaluation["raw"]]
    for name in ("log_loss", "brier", "auc", "accuracy"):
        table.add_row(name.replace("_", " "), *(_plus_minus(getattr(scores, name)) for scores in both))
    for name in LABELS:
        table.add_row(f"recall, {name}", *(_plus_minus(scores.recall[name]) for scores in both))
    errors = [scores.calibration_error for scores in both]
    table.add_row("calibration error (10 bins)", *(_plus_minus(error.value) for error in errors))
    table.add_row("  of a perfect model", *(f"{e.noise_floor:.4f} (95 %: {e.noise_95:.4f})" for e in errors))
    table.add_row("  p-value", *(f"{error.p_value:.3f}" for error in errors))
    console.print(table)
    sets, interval = evaluation["sets"], evaluation["interval"]
    console.print(
        f"prediction sets: nominal {sets.nominal:.2f}, found {_plus_minus(sets.overall)}, average size "
        f"{sets.average_size:.2f}; intervals: mean {interval.mean_low:.3f}–{interval.mean_high:.3f}, "
        f"survived {_plus_minus(interval.observed)}"
    )
    if "logistic_regression" in evaluation:
        peer = evaluation["logistic_regression"]
        console.print(
            "logistic regression on the numbers and the same words, same folds: log loss "
            f"{_plus_minus(peer['scores'].log_loss)}; ours minus its {_plus_minus(peer['log_loss_difference'])}"
        )


def _plus_minus(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} ± {estimate.standard_error:.4f}"
