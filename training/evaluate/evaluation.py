"""All figures of predictions of labelled rows."""

import numpy as np
from msgspec import Struct

from training.evaluate.baselines import Baseline
from training.evaluate.clusters.dependence import ClusterCounts
from training.evaluate.decisions.costs import DecisionCosts, decision_costs
from training.evaluate.decisions.net_benefit import NetBenefit, net_benefits
from training.evaluate.predictions import LabelledPredictions
from training.evaluate.scores import Scores, score
from training.evaluate.seeds import Seeds
from training.evaluate.selective_risk import SetCoverage, set_coverage
from training.evaluate.sets.cells import ConditionalSets, SetCells, set_cells
from training.evaluate.several_classes.evaluation import ClassEvaluation, evaluate_classes
from training.evaluate.stack import StackComparison
from training.evaluate.subgroups import Subgroup, score_subgroups
from training.evaluate.validity import (
    IntervalValidity,
    ReliabilityBin,
    RiskArea,
    interval_validity,
    reliability,
    risk_area,
)


class Evaluation(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``evaluation.json`` holds of two classes; what has a default is of the nested evaluation only.

    ``sets`` and ``set_cells`` are at the bundle's coverage, ``sets_at`` at `cross_fitted.COVERAGES`;
    ``sets_by`` is the field that the bundle's sets are by, None where they are of the class alone;
    ``clusters`` is there where rows depend on each other;
    ``reliability`` leaves out tenths without rows.
    """

    how: str
    rows: int
    calibrated: Scores
    raw: Scores
    sets: SetCoverage
    set_cells: SetCells
    risk: RiskArea
    interval: IntervalValidity
    subgroups: tuple[Subgroup, ...]
    reliability: dict[str, tuple[ReliabilityBin, ...]]
    sets_at: tuple[SetCoverage, ...] | None = None
    sets_by: str | None = None
    conditional_sets: ConditionalSets | None = None
    maps_chosen: tuple[str, ...] | None = None
    baselines: dict[str, Baseline] | None = None
    clusters: ClusterCounts | None = None
    seeds: Seeds | None = None
    net_benefit: tuple[NetBenefit, ...] = ()
    decision_costs: DecisionCosts | None = None
    stack: StackComparison | None = None


AnyEvaluation = Evaluation | ClassEvaluation


def evaluate_predictions(
    predictions: LabelledPredictions, *, how: str, coverage: float, rng: np.random.Generator
) -> AnyEvaluation:
    """All figures of predictions whose sets were made for ``coverage``; ``how`` says how they were obtained."""
    y, classes, dependence = predictions.labels, predictions.schema.classes, predictions.dependence
    clusters = dependence.errors
    if len(classes) > 2:
        return evaluate_classes(predictions, how=how, coverage=coverage, rng=rng)
    return Evaluation(
        how=how, rows=len(y), calibrated=score(predictions.calibrated, y, classes, rng, dependence),
        raw=score(predictions.raw, y, classes, rng, dependence),
        sets=set_coverage(predictions.member, y, coverage, classes, clusters),
        set_cells=set_cells(predictions.member, y, predictions.groups, classes, clusters),
        interval=interval_validity(
            predictions.calibrated, predictions.low, predictions.high, y, clusters, predictions.dependence.tests
        ),
        risk=risk_area(predictions.calibrated, y),
        subgroups=score_subgroups(predictions.groups, y, predictions.calibrated, predictions.raw, rng, dependence),
        reliability={
            "calibrated": reliability(predictions.calibrated, y, clusters),
            "raw": reliability(predictions.raw, y, clusters),
        },
        clusters=dependence.counts(predictions.calibrated, y),
        net_benefit=net_benefits(predictions.calibrated, y, clusters=clusters),
        decision_costs=decision_costs(predictions),
    )  # fmt: skip
