"""What decisions cost, against values worked out by hand."""

import msgspec
import numpy as np
import pytest

from models.schema import Schema
from tests import churn, penguins
from training.evaluate.decisions.costs import decision_costs
from training.evaluate.predictions import LabelledPredictions

P = np.array([0.1, 0.2, 0.6, 0.7, 0.9])
Y = np.array([0, 1, 0, 1, 1])


def predictions(schema: Schema, p: np.ndarray, y: np.ndarray) -> LabelledPredictions:
    empty = np.empty(0)
    return LabelledPredictions(schema, (), y, p, p, empty, empty, empty)  # type: ignore[arg-type]


def test_costs_of_decisions_by_hand() -> None:
    """To take a stays for a leaves costs 3, a leaves for a stays 1: rows are taken for leaves from 3/4 on."""
    schema = msgspec.structs.replace(churn.SCHEMA, costs={"stays": {"leaves": 3.0}})
    found = decision_costs(predictions(schema, P, Y))
    assert found is not None
    assert found.costs == {"stays": {"stays": 0, "leaves": 3}, "leaves": {"stays": 1, "leaves": 0}}
    assert found.taken == {"stays": 4, "leaves": 1}
    # Missed: the leaves at .2 and .7. By the outcome the stays at .6 is a false alarm, and only .2 is missed.
    assert found.decisions.value == pytest.approx(2 / 5)
    assert found.likeliest.value == pytest.approx(4 / 5)
    assert found.saved.value == pytest.approx(2 / 5)
    assert (found.always["stays"].value, found.always["leaves"].value) == pytest.approx((3 / 5, 6 / 5))
    assert found.expected == pytest.approx((0.1 + 0.2 + 0.6 + 0.7 + 3 * 0.1) / 5)


def test_costs_of_three_classes_by_hand() -> None:
    schema = msgspec.structs.replace(penguins.SCHEMA, costs={"Gentoo": {"Adelie": 10.0}})
    p = np.array([[0.2, 0.5, 0.3], [0.7, 0.2, 0.1], [0.01, 0.9, 0.09]])
    found = decision_costs(predictions(schema, p, np.array([0, 0, 1])))
    assert found is not None
    assert found.taken == {"Gentoo": 1, "Adelie": 1, "Chinstrap": 1}
    assert found.decisions.value == pytest.approx(1 / 3)
    assert found.likeliest.value == pytest.approx(10 / 3)
    assert found.expected == pytest.approx((0.7 + 0.3 + 10 * 0.01 + 0.09) / 3)
    assert [found.always[name].value for name in penguins.SPECIES] == pytest.approx([1 / 3, 20 / 3, 1])


def test_without_costs_there_are_none() -> None:
    assert decision_costs(predictions(churn.SCHEMA, P, Y)) is None
