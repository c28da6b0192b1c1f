"""Labelled rows and what was predicted of each: what every figure of an evaluation is worked out from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from msgspec import UnsetType

from models.schema import Schema
from training.data.table import Table
from training.evaluate.clusters.dependence import INDEPENDENT, Dependence
from training.evaluate.folds import find_units
from training.evaluate.groups import Members, members

if TYPE_CHECKING:  # MLX stays out of what needs only arrays.
    from models.prediction import Prediction


@dataclass(frozen=True)
class LabelledPredictions:
    """Labelled rows of a schema, and the prediction of each.

    ``labels`` (n,) are the numbers of the classes; ``calibrated``, ``raw`` probabilities in (0, 1), and ``low``,
    ``high`` the interval's ends: of two classes (n,) of the positive one, of more (n, K) of each. ``member`` (n, K)
    bool says whether the prediction set holds each class, ``dependence`` which rows depend on each other.
    """

    schema: Schema
    groups: Members
    labels: np.ndarray
    calibrated: np.ndarray
    raw: np.ndarray
    member: np.ndarray
    low: np.ndarray
    high: np.ndarray
    dependence: Dependence = INDEPENDENT

    @classmethod
    def of(cls, table: Table, predictions: "Sequence[Prediction]", known: Any) -> Self:
        """A predictor's predictions of a table's rows, in order; ``known`` is its bundle's."""
        classes, confidences = table.schema.classes, [prediction.confidence for prediction in predictions]
        ends = np.array([_by_class(each.intervals) or each.interval for each in confidences])
        return cls(
            table.schema, members(table.rows, table.schema, [known] * len(table)), table.labels,
            probabilities(predictions),
            np.array(
                [_by_class(each.uncalibrated_probabilities) or each.uncalibrated_probability for each in confidences]
            ),
            np.array([[name in each.prediction_set for name in classes] for each in confidences]),
            ends[..., 0], ends[..., 1],
            Dependence.of(find_units(table.rows, table.groups).of_row, [each.text for each in predictions]),
        )  # fmt: skip


def probabilities(predictions: "Sequence[Prediction]") -> np.ndarray:
    """What was served: of two classes (n,) of the positive one, of more (n, K) of each."""
    return np.array([
        prediction.probabilities if prediction.probability is None else prediction.probability
        for prediction in predictions
    ])  # fmt: skip


def _by_class(values: dict[str, Any] | UnsetType) -> list[Any]:
    """In the order of the classes; empty where two have one number for both."""
    return [] if isinstance(values, UnsetType) else list(values.values())
