"""What decisions by the probabilities cost."""

import numpy as np
from msgspec import Struct

from models.calibration.logit import class_probabilities
from training.evaluate.estimates import Estimate, mean
from training.evaluate.predictions import LabelledPredictions
from training.evaluate.several_classes.scores import top_classes


class DecisionCosts(Struct, frozen=True, kw_only=True):
    """Mean cost of a row under ways to decide, with the costs of ``costs``: true class → decision → cost.

    ``decisions`` are those of least expected cost by the calibrated probabilities, as often for each class as ``taken``
    says; ``expected`` is what the probabilities themselves make of them. ``likeliest`` takes the outcome,
    ``always`` one class for every row. ``saved`` is ``likeliest`` less ``decisions``, row by row.
    """

    costs: dict[str, dict[str, float]]
    decisions: Estimate
    expected: float
    taken: dict[str, int]
    likeliest: Estimate
    saved: Estimate
    always: dict[str, Estimate]


def decision_costs(predictions: LabelledPredictions) -> DecisionCosts | None:
    """None where the schema has no costs."""
    schema, y, clusters = predictions.schema, predictions.labels, predictions.dependence.errors
    costs = schema.decision_costs
    if costs is None:
        return None
    p, classes = class_probabilities(predictions.calibrated), schema.classes
    taken = np.array([costs.decide(row) for row in p.tolist()])
    likeliest = top_classes(p)
    spent, usual = costs.matrix[y, taken], costs.matrix[y, likeliest]
    return DecisionCosts(
        costs={i: dict(zip(classes, row, strict=True)) for i, row in zip(classes, costs.matrix.tolist(), strict=True)},
        decisions=mean(spent, clusters), expected=float((p * costs.matrix[:, taken].T).sum(axis=1).mean()),
        taken={name: int((taken == k).sum()) for k, name in enumerate(classes)},
        likeliest=mean(usual, clusters), saved=mean(usual - spent, clusters),
        always={name: mean(costs.matrix[y, k], clusters) for k, name in enumerate(classes)},
    )  # fmt: skip
