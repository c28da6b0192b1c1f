"""All figures of predictions of three classes or more."""

import numpy as np
from msgspec import Struct

from training.evaluate.baselines import Baseline
from training.evaluate.clusters.dependence import ClusterCounts
from training.evaluate.decisions.costs import DecisionCosts, decision_costs
from training.evaluate.predictions import LabelledPredictions
from training.evaluate.seeds import Seeds
from training.evaluate.selective_risk import SetCoverage, set_coverage
from training.evaluate.sets.cells import ConditionalSets, SetCells, set_cells
from training.evaluate.several_classes.scores import ClassScores, score_classes, top_classes
from training.evaluate.several_classes.subgroups import ClassSubgroup, score_class_subgroups
from training.evaluate.stack import StackComparison
from training.evaluate.validity import (
    IntervalValidity,
    ReliabilityBin,
    RiskArea,
    interval_validity,
    reliability,
    risk_area,
)

Tenths = tuple[ReliabilityBin, ...]


class ClassEvaluation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`Evaluation` of more than two classes, as ``evaluation.json`` holds it.

    ``intervals`` and ``reliability`` are by class, each against all others; ``top_reliability`` is of the greatest
    probability against whether it named the right class.
    """

    how: str
    rows: int
    calibrated: ClassScores
    raw: ClassScores
    sets: SetCoverage
    set_cells: SetCells
    risk: RiskArea
    intervals: dict[str, IntervalValidity]
    subgroups: tuple[ClassSubgroup, ...]
    reliability: dict[str, dict[str, Tenths]]
    top_reliability: dict[str, Tenths]
    sets_at: tuple[SetCoverage, ...] | None = None
    sets_by: str | None = None
    conditional_sets: ConditionalSets | None = None
    maps_chosen: tuple[str, ...] | None = None
    baselines: dict[str, Baseline] | None = None
    clusters: ClusterCounts | None = None
    seeds: Seeds | None = None
    decision_costs: DecisionCosts | None = None
    stack: StackComparison | None = None


def evaluate_classes(
    predictions: LabelledPredictions, *, how: str, coverage: float, rng: np.random.Generator
) -> ClassEvaluation:
    """All figures of predictions whose sets were made for ``coverage``; ``how`` says how they were obtained."""
    y, classes, sides = predictions.labels, predictions.schema.classes, _sides(predictions)
    p, low, high = predictions.calibrated.T, predictions.low.T, predictions.high.T
    dependence, clusters = predictions.dependence, predictions.dependence.errors
    return ClassEvaluation(
        how=how, rows=len(y), calibrated=score_classes(predictions.calibrated, y, classes, rng, dependence),
        raw=score_classes(predictions.raw, y, classes, rng, dependence),
        sets=set_coverage(predictions.member, y, coverage, classes, clusters),
        set_cells=set_cells(predictions.member, y, predictions.groups, classes, clusters),
        risk=risk_area(predictions.calibrated, y),
        intervals={
            name: interval_validity(p[k], low[k], high[k], y == k, clusters, predictions.dependence.tests)
            for k, name in enumerate(classes)
        },
        subgroups=score_class_subgroups(
            predictions.groups, y, predictions.calibrated, predictions.raw, classes, rng, dependence
        ),
        reliability={
            side: {name: reliability(p[:, k], y == k, clusters) for k, name in enumerate(classes)}
            for side, p in sides.items()
        },
        top_reliability={side: reliability(p.max(axis=1), top_classes(p) == y, clusters) for side, p in sides.items()},
        clusters=dependence.counts(predictions.calibrated, y),
        decision_costs=decision_costs(predictions),
    )  # fmt: skip


def _sides(predictions: LabelledPredictions) -> dict[str, np.ndarray]:
    return {"calibrated": predictions.calibrated, "raw": predictions.raw}
