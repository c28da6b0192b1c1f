"""Evaluate a recipe on rows that it did not see, or a finished bundle on labelled rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct, field, structs

from models.calibration.logit import sigmoid
from models.calibration.maps import CalibrationMap
from models.features.titanic import Companions
from models.passenger import LABELS, Passenger
from training.calibrate.choice import Inverse, MapRule, chosen_map
from training.calibrate.maps import fit_venn_abers
from training.calibrate.record import fit_sets
from training.data.table import Table
from training.evaluate.baselines import WORDS, Baseline, compare_baselines, held_out_probabilities
from training.evaluate.calibration_errors import width_bins
from training.evaluate.estimates import Estimate, proportion
from training.evaluate.scores import Scores, score
from training.evaluate.selective_risk import SetCoverage, risk_coverage, set_coverage
from training.evaluate.subgroups import Members, Subgroup, members, score_subgroups

if TYPE_CHECKING:  # MLX stays out of what needs only arrays.
    from models.prediction import Prediction


@dataclass(frozen=True)
class LabelledPredictions:
    """Labelled rows and the prediction of each.

    ``labels`` (n,) 0/1; ``calibrated``, ``raw`` (n,) probabilities of survival in (0, 1); ``member`` (n, 2) bool,
    whether the prediction set holds died, survived; ``low``, ``high`` (n,) the interval's ends.
    """

    groups: Members
    labels: np.ndarray
    calibrated: np.ndarray
    raw: np.ndarray
    member: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, table: Table, predictions: "Sequence[Prediction]", companions: Companions) -> "LabelledPredictions":
        """A predictor's predictions of a table's passengers, in order; ``companions`` are its bundle's."""
        confidences = [prediction.confidence for prediction in predictions]
        return cls(
            members(table.passengers, [companions] * len(table)), table.labels,
            np.array([prediction.probability for prediction in predictions]),
            np.array([confidence.uncalibrated_probability for confidence in confidences]),
            np.array([[name in confidence.prediction_set for name in LABELS] for confidence in confidences]),
            *np.array([confidence.interval for confidence in confidences]).T,
        )  # fmt: skip


COVERAGES = (0.8, 0.9, 0.95)
"""Nominal coverages that the nested evaluation reports, whatever the bundle's own."""


class RiskArea(Struct, frozen=True, kw_only=True):
    """Mean error over all shares of rows answered, most certain first; the other two as in `RiskCoverage`."""

    area: float
    random: float
    oracle: float


class IntervalValidity(Struct, frozen=True, kw_only=True):
    """Venn–Abers intervals: calibrated ones hold the observed rate between the mean p0 and the mean p1."""

    mean_low: float
    mean_high: float
    observed: Estimate
    average_width: float
    outside_by: float


class BaselineScores(Struct, frozen=True, kw_only=True):
    """All scores of one baseline, and our log loss minus its (paired, over rows)."""

    scores: Scores
    log_loss_difference: Estimate


class ReliabilityBin(Struct, frozen=True, kw_only=True):
    """The rows whose probability is in one tenth: how many, their mean probability, and the share that survived."""

    rows: int
    probability: float
    observed: Estimate


class Evaluation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``evaluation.json`` holds; what has a default is of the nested evaluation only.

    ``baselines`` is "peers" in the file. ``sets`` are at the bundle's coverage, ``sets_at`` at `COVERAGES`;
    ``reliability`` leaves out tenths without rows.
    """

    how: str
    rows: int
    calibrated: Scores
    raw: Scores
    sets: SetCoverage
    risk: RiskArea
    interval: IntervalValidity
    subgroups: tuple[Subgroup, ...]
    reliability: dict[str, tuple[ReliabilityBin, ...]]
    sets_at: tuple[SetCoverage, ...] | None = None
    maps_chosen: tuple[str, ...] | None = None
    logistic_regression: BaselineScores | None = None
    baselines: dict[str, Baseline] | None = field(default=None, name="peers")


def evaluate_predictions(
    predictions: LabelledPredictions, *, how: str, coverage: float, rng: np.random.Generator
) -> Evaluation:
    """All figures of predictions whose sets were made for ``coverage``; ``how`` says how they were obtained."""
    y, curve = predictions.labels, risk_coverage(predictions.calibrated, predictions.labels)
    return Evaluation(
        how=how, rows=len(y), calibrated=score(predictions.calibrated, y, rng), raw=score(predictions.raw, y, rng),
        sets=set_coverage(predictions.member, y, coverage), interval=_interval(predictions.low, predictions.high, y),
        risk=RiskArea(area=curve.area, random=curve.random, oracle=curve.oracle),
        subgroups=score_subgroups(predictions.groups, y, predictions.calibrated, predictions.raw, rng),
        reliability={"calibrated": reliability(predictions.calibrated, y), "raw": reliability(predictions.raw, y)},
    )  # fmt: skip


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Probabilities (n,) and labels (n,) 0/1 by tenth of probability, those with rows: a reliability diagram's data."""
    bins = width_bins(probabilities)
    return tuple(
        ReliabilityBin(
            rows=int(held.sum()), probability=float(probabilities[held].mean()), observed=proportion(labels[held] == 1)
        )
        for held in (bins == number for number in np.unique(bins))
    )


def nested_evaluation(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, passengers: Sequence[Passenger], *,
    companions: Sequence[Companions], inverse: Inverse | None, coverage: float, seed: int,
    map_rule: MapRule = "least", with_baselines: bool = True,
) -> tuple[Evaluation, LabelledPredictions]:  # fmt: skip
    """Evaluate the recipe on out-of-fold logits (n,), by default beside baselines on the same folds (n,).

    ``companions`` are those known to each fold's model and baselines: none of the fold's own rows.
    For each fold, map, Venn–Abers and sets are fitted on the other folds' logits and scored on this fold, so no row
    is scored by a model or a calibration that saw its label — with one remainder: the *models* that gave the other
    folds' logits had this fold's rows among their training rows and companions. That is what cross-fitting leaves
    (Barber et al., 2021); what it does is not in the standard errors.
    """

    def choose(rows: np.ndarray) -> tuple[str, CalibrationMap]:
        return chosen_map(logits[rows], labels[rows], inverse, seed, map_rule)

    groups = members(passengers, [companions[fold] for fold in folds.tolist()])
    predictions, sets_at, chosen = _cross_calibrated(logits, labels, folds, groups, coverage, choose)
    rng = np.random.default_rng(seed)
    how = f"{len(np.unique(folds))}-fold cross-fitting; each fold calibrated on the other folds' held-out logits"
    beside: dict[str, Any] = {}
    if with_baselines:
        probabilities = held_out_probabilities(passengers, labels, folds, companions, seed)
        baselines = compare_baselines(predictions.calibrated, probabilities, labels, groups)
        words = score(probabilities[WORDS], labels, rng)
        beside = {
            "logistic_regression": BaselineScores(
                scores=words, log_loss_difference=baselines[WORDS].log_loss_difference
            ), "baselines": baselines,
        }  # fmt: skip
    evaluation = evaluate_predictions(predictions, how=how, coverage=coverage, rng=rng)
    return structs.replace(evaluation, sets_at=sets_at, maps_chosen=chosen, **beside), predictions


def _cross_calibrated(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, groups: Members, coverage: float,
    choose: Callable[[np.ndarray], tuple[str, CalibrationMap]],
) -> tuple[LabelledPredictions, tuple[SetCoverage, ...], tuple[str, ...]]:  # fmt: skip
    """Predictions of each fold's rows by a calibration fitted on the other folds, its sets at `COVERAGES`, its map."""
    p, p0, p1 = np.empty(len(labels)), np.empty(len(labels)), np.empty(len(labels))
    nominals = (coverage, *COVERAGES)
    member = np.empty((len(nominals), len(labels), 2), bool)
    chosen = []
    for fold in np.unique(folds):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        name, fitted = choose(rest)
        chosen.append(name)
        p[here], known = fitted.probabilities(logits[here]), fitted.probabilities(logits[rest])
        p0[here], p1[here] = fit_venn_abers(logits[rest], labels[rest]).interval(logits[here])
        for sets, nominal in zip(member, nominals, strict=True):
            sets[here] = fit_sets(known, labels[rest], nominal).sets(p[here])
    predictions = LabelledPredictions(
        groups, labels, p, sigmoid(logits), member[0], np.minimum(p0, p), np.maximum(p1, p)
    )
    sets_at = tuple(set_coverage(sets, labels, nominal) for sets, nominal in zip(member[1:], COVERAGES, strict=True))
    return predictions, sets_at, tuple(chosen)


def _interval(low: np.ndarray, high: np.ndarray, labels: np.ndarray) -> IntervalValidity:
    observed = float(labels.mean())
    return IntervalValidity(
        mean_low=float(low.mean()), mean_high=float(high.mean()), observed=proportion(labels == 1),
        average_width=float((high - low).mean()),
        outside_by=max(0.0, float(low.mean()) - observed, observed - float(high.mean())),
    )  # fmt: skip
