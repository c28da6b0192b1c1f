"""Evaluate a recipe on rows that it did not see, or a finished bundle on labelled rows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from msgspec import Struct, structs

from models.calibration.logit import class_probabilities, sigmoid
from models.calibration.maps import CalibrationMap
from models.prediction import positive_logits
from models.reference import probability_bins
from models.rows import Row
from models.schema import Schema
from training.calibrate.choice import Inverse, MapRule, chosen_map
from training.calibrate.maps import fit_venn_abers
from training.calibrate.record import fit_sets
from training.data.table import Table
from training.evaluate.baselines import Baseline, compare_baselines, held_out_probabilities
from training.evaluate.estimates import Estimate, proportion
from training.evaluate.folds import FOLDS, make_folds
from training.evaluate.groups import Members, members
from training.evaluate.scores import Scores, score
from training.evaluate.selective_risk import SetCoverage, risk_coverage, set_coverage
from training.evaluate.subgroups import Subgroup, score_subgroups

if TYPE_CHECKING:  # MLX stays out of what needs only arrays.
    from models.prediction import Prediction


@dataclass(frozen=True)
class LabelledPredictions:
    """Labelled rows of a schema, and the prediction of each.

    ``labels`` (n,) 0/1; ``calibrated``, ``raw`` (n,) probabilities of the positive class in (0, 1); ``member`` (n, K)
    bool, whether the prediction set holds each class; ``low``, ``high`` (n,) the interval's ends.
    """

    schema: Schema
    groups: Members
    labels: np.ndarray
    calibrated: np.ndarray
    raw: np.ndarray
    member: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, table: Table, predictions: "Sequence[Prediction]", known: Any) -> Self:
        """A predictor's predictions of a table's rows, in order; ``known`` is its bundle's."""
        confidences = [prediction.confidence for prediction in predictions]
        return cls(
            table.schema, members(table.rows, table.schema, [known] * len(table)), table.labels,
            np.array([prediction.probability for prediction in predictions]),
            np.array([confidence.uncalibrated_probability for confidence in confidences]),
            np.array([[name in each.prediction_set for name in table.schema.classes] for each in confidences]),
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


class ReliabilityBin(Struct, frozen=True, kw_only=True):
    """The rows whose probability is in one tenth: how many, their mean probability, the share of the positive class."""

    rows: int
    probability: float
    observed: Estimate


class Evaluation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``evaluation.json`` holds; what has a default is of the nested evaluation only.

    ``sets`` are at the bundle's coverage, ``sets_at`` at `COVERAGES`;
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
    baselines: dict[str, Baseline] | None = None


def evaluate_predictions(
    predictions: LabelledPredictions, *, how: str, coverage: float, rng: np.random.Generator
) -> Evaluation:
    """All figures of predictions whose sets were made for ``coverage``; ``how`` says how they were obtained."""
    y, classes = predictions.labels, predictions.schema.classes
    curve = risk_coverage(predictions.calibrated, y)
    return Evaluation(
        how=how, rows=len(y), calibrated=score(predictions.calibrated, y, classes, rng),
        raw=score(predictions.raw, y, classes, rng),
        sets=set_coverage(predictions.member, y, coverage, classes),
        interval=_interval(predictions.low, predictions.high, y),
        risk=RiskArea(area=curve.area, random=curve.random, oracle=curve.oracle),
        subgroups=score_subgroups(predictions.groups, y, predictions.calibrated, predictions.raw, rng),
        reliability={"calibrated": reliability(predictions.calibrated, y), "raw": reliability(predictions.raw, y)},
    )  # fmt: skip


def reliability(probabilities: np.ndarray, labels: np.ndarray) -> tuple[ReliabilityBin, ...]:
    """Probabilities (n,) and labels (n,) 0/1 by tenth of probability, those with rows: a reliability diagram's data."""
    bins = probability_bins(probabilities)
    return tuple(
        ReliabilityBin(
            rows=int(held.sum()), probability=float(probabilities[held].mean()), observed=proportion(labels[held] == 1)
        )
        for held in (bins == number for number in np.unique(bins))
    )


def nested_evaluation(
    logits: np.ndarray, labels: np.ndarray, folds: np.ndarray, rows: Sequence[Row], schema: Schema,
    known: Sequence[Any], *, inverse: Inverse | None, coverage: float, seed: int, map_rule: MapRule = "least",
    with_baselines: bool = True,
) -> tuple[Evaluation, LabelledPredictions]:  # fmt: skip
    """Evaluate the recipe on out-of-fold logits (n, K), by default beside baselines on the same folds (n,).

    Rows whose fold is `folds.TRAINED_ON` are scored by nobody; a single fold is a part that was held out, and its rows
    are divided once more, for the calibration alone.

    ``known`` is what the schema's feature knows for each fold's model and baselines: none of the fold's own rows.
    For each fold, map, Venn–Abers and sets are fitted on the other folds' logits and scored on this fold, so no row
    is scored by a model or a calibration that saw its label — with one remainder: the *models* that gave the other
    folds' logits had this fold's rows among their training rows. That is what cross-fitting leaves
    (Barber et al., 2021); what it does is not in the standard errors.
    """

    held = np.flatnonzero(folds >= 0)
    z, y, parts = positive_logits(logits[held]), labels[held], folds[held]
    groups = members([rows[at] for at in held.tolist()], schema, [known[fold] for fold in parts.tolist()])
    how = f"{int(folds.max()) + 1}-fold cross-fitting; each fold calibrated on the other folds' held-out logits"
    if not parts.any():
        parts = make_folds(y, min(FOLDS, int(np.bincount(y).min())), seed)
        how = (
            f"{len(held)} of {len(labels)} rows held out, each of {int(parts.max()) + 1} parts calibrated on the others"
        )

    def choose(places: np.ndarray) -> tuple[str, CalibrationMap]:
        return chosen_map(z[places], y[places], inverse, seed, map_rule)

    predictions, sets_at, chosen = _cross_calibrated(z, y, parts, schema, groups, coverage, choose)
    rng = np.random.default_rng(seed)
    baselines = None
    if with_baselines:
        probabilities = held_out_probabilities(rows, labels, folds, schema, known, seed)
        compared = {name: p[held] for name, p in probabilities.items()}
        baselines = compare_baselines(predictions.calibrated, compared, y, groups)
    evaluation = evaluate_predictions(predictions, how=how, coverage=coverage, rng=rng)
    return structs.replace(evaluation, sets_at=sets_at, maps_chosen=chosen, baselines=baselines), predictions


def _cross_calibrated(
    z: np.ndarray, labels: np.ndarray, folds: np.ndarray, schema: Schema, groups: Members, coverage: float,
    choose: Callable[[np.ndarray], tuple[str, CalibrationMap]],
) -> tuple[LabelledPredictions, tuple[SetCoverage, ...], tuple[str, ...]]:  # fmt: skip
    """Predictions of each fold's rows by a calibration fitted on the other folds, its sets at `COVERAGES`, its map."""
    p, p0, p1 = np.empty(len(labels)), np.empty(len(labels)), np.empty(len(labels))
    nominals = (coverage, *COVERAGES)
    member = np.empty((len(nominals), len(labels), len(schema.classes)), bool)
    chosen = []
    for fold in np.unique(folds):
        rest, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        name, fitted = choose(rest)
        chosen.append(name)
        p[here], p_rest = fitted.probabilities(z[here]), fitted.probabilities(z[rest])
        p0[here], p1[here] = fit_venn_abers(z[rest], labels[rest]).interval(z[here])
        for sets, nominal in zip(member, nominals, strict=True):
            thresholds = fit_sets(class_probabilities(p_rest), labels[rest], nominal)
            sets[here] = thresholds.sets(class_probabilities(p[here]))
    predictions = LabelledPredictions(
        schema, groups, labels, p, sigmoid(z), member[0], np.minimum(p0, p), np.maximum(p1, p)
    )
    sets_at = tuple(
        set_coverage(sets, labels, nominal, schema.classes) for sets, nominal in zip(member[1:], COVERAGES, strict=True)
    )
    return predictions, sets_at, tuple(chosen)


def _interval(low: np.ndarray, high: np.ndarray, labels: np.ndarray) -> IntervalValidity:
    observed = float(labels.mean())
    return IntervalValidity(
        mean_low=float(low.mean()), mean_high=float(high.mean()), observed=proportion(labels == 1),
        average_width=float((high - low).mean()),
        outside_by=max(0.0, float(low.mean()) - observed, observed - float(high.mean())),
    )  # fmt: skip
