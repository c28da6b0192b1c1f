import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.reference import (
    PROBABILITY_BINS,
    InputBinner,
    PredictionBins,
    Reference,
    build_reference,
    probability_bins,
)
from models.rows import Rows
from models.schema import Field, schema_of
from tests.titanic import SCHEMA, Passenger
from training.data.table import Table

BINS = {bins.field: bins for bins in SCHEMA.input_bins}


@pytest.mark.parametrize(
    ("p", "name"),
    [(0.0, "0.0-0.1"), (0.1, "0.1-0.2"), (0.3, "0.3-0.4"), (0.29999, "0.2-0.3"), (0.6, "0.6-0.7"), (0.7, "0.7-0.8"),
     (0.9, "0.9-1.0"), (1.0, "0.9-1.0")],
)  # fmt: skip
def test_a_bin_holds_its_lower_edge_and_the_last_both(p: float, name: str) -> None:
    assert PROBABILITY_BINS[probability_bins(np.array([p]))[0]] == name


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [("age", None, "unknown"), ("age", 5.99, "0-6"), ("age", 6.0, "6-13"), ("age", 120.0, "65-120"),
     ("sibsp", 20, "4-20"),
     ("pclass", 2, "2"), ("embarked", None, "unknown"), ("cabin", "C85", "known"), ("cabin", "", "unknown"),
     ("fare", 1000.0, "60-1000")],
)  # fmt: skip
def test_input_bins(field: str, value: object, name: str) -> None:
    passenger = msgspec.structs.replace(Passenger(pclass=1, sex="male"), **{field: value})
    (row,) = InputBinner(SCHEMA).array([passenger]).tolist()
    assert BINS[field].names[row[list(BINS).index(field)]] == name
    assert InputBinner(SCHEMA).array([]).shape == (0, len(BINS))


def test_booleans_many_levels_and_numbers_beyond_their_bins() -> None:
    levels = [f"town {number}" for number in range(60)]
    schema = schema_of({
        "name": "any", "text": ["{town}"], "label": {"column": "y", "classes": [{"value": v, "name": v} for v in "ab"]},
        "fields": [{"name": "senior", "type": "boolean"}, {"name": "town", "type": "category", "levels": levels},
                   {"name": "whole", "type": "category", "levels": [0, 1]},
                   {"name": "tenure", "type": "integer", "bins": [1, 5, 9]}],
    })  # fmt: skip
    senior, town, _, tenure = schema.input_bins
    assert (senior.names, tenure.names) == (("false", "true", "unknown"), ("1-5", "5-9", "unknown"))
    assert town.names == (*levels[:50], "other", "unknown")
    rows = Rows(schema).check([
        {"senior": True, "town": "town 49", "whole": 1, "tenure": -7}, {"senior": False, "town": "town 50", "whole": 0},
        {"tenure": 9}, {"tenure": 5}, {"tenure": 99},
    ])  # fmt: skip
    assert InputBinner(schema).array(rows).tolist() == [
        [1, 49, 1, 0], [0, 50, 0, 2], [2, 51, 2, 1], [2, 51, 2, 1], [2, 51, 2, 1],
    ]  # fmt: skip
    reference = build_reference(np.full(5, 0.5), rows, schema)
    assert [field.counts["unknown"] for field in reference.inputs] == [3, 3, 3, 1]
    assert reference.warnings(Rows(schema).check([{"town": "town 59", "tenure": 100}])[0])[0].message == (
        "100 is outside the training range -7–99"
    )


def test_every_bin_has_a_name_of_its_own() -> None:
    levels = ("yes", "unknown", "other", *(f"l{number}" for number in range(60)))
    town = Field(name="town", type="category", levels=levels).input_bins.names
    assert town[-2:] == ("other_", "unknown_")
    amounts = Field(name="amount", type="number", bins=(1000001, 1000002, 1000003.25)).input_bins.names
    assert amounts == ("1000001-1000002", "1000002-1000003.25", "unknown")
    for names in (town, amounts):
        assert len(set(names)) == len(names)


def test_counts_and_ranges_come_from_the_rows(table: Table) -> None:
    reference = build_reference(np.linspace(0.001, 0.999, len(table)), table.rows, SCHEMA)
    assert sum(reference.probability_counts) == reference.rows == 891
    sex = next(field for field in reference.inputs if field.bins.field == "sex")
    assert sex.counts == {"male": 577, "female": 314, "unknown": 0}
    age = next(field for field in reference.inputs if field.bins.field == "age")
    assert (age.minimum, age.maximum, age.counts["unknown"]) == (0.42, 80.0, 177)
    assert msgspec.json.decode(msgspec.json.encode(reference), type=Reference) == reference


def test_values_outside_the_training_rows_are_told(table: Table) -> None:
    reference = build_reference(np.full(len(table), 0.5), table.rows, SCHEMA)
    odd = Passenger(pclass=1, sex="male", age=97, fare=900.5, sibsp=9, parch=None)
    assert {warning.field: warning.message for warning in reference.warnings(odd)} == {
        "age": "97 is outside the training range 0.42–80",
        "fare": "900.5 is outside the training range 0–512.329",
        "sibsp": "9 is outside the training range 0–8",
    }
    assert reference.warnings(table.rows[0]) == ()


def test_a_level_never_seen_is_told(table: Table) -> None:
    men = [passenger for passenger in table.rows if passenger.sex == "male"]
    reference = build_reference(np.full(len(men), 0.5), men, SCHEMA)
    assert (
        reference.warnings(Passenger(pclass=1, sex="female"))[0].message == "female does not occur in the training rows"
    )


def test_counts_that_do_not_add_up_are_refused(table: Table) -> None:
    reference = msgspec.to_builtins(build_reference(np.full(len(table), 0.5), table.rows, SCHEMA))
    reference["rows"] = 890
    with pytest.raises(msgspec.ValidationError, match="sum to rows"):
        msgspec.convert(reference, Reference)


def test_cells_of_two_classes_are_the_tenths_of_the_positive_one() -> None:
    cells, p = PredictionBins(("no", "yes")), np.append(np.linspace(0, 1, 1001), [0.3, 0.7, np.nextafter(0.7, 0)])
    assert cells.names == PROBABILITY_BINS
    assert cells.of(np.stack([1 - p, p], axis=1)).tolist() == probability_bins(p).tolist()


def test_cells_of_more_classes_are_the_top_class_with_its_tenth() -> None:
    cells = PredictionBins(("c", "a", "b"))
    tenths = ["0.3-0.4", "0.4-0.5", "0.5-0.6", "0.6-0.7", "0.7-0.8", "0.8-0.9", "0.9-1.0"]
    assert cells.names == tuple(f"{name} {tenth}" for name in "cab" for tenth in tenths)
    for p, name in {
        (1 / 3, 1 / 3, 1 / 3): "b 0.3-0.4", (0.5, 0.2, 0.3): "c 0.5-0.6", (0.45, 0.45, 0.1): "a 0.4-0.5",
        (0.0, 1.0, 0.0): "a 0.9-1.0", (0.333, 0.333, 0.334): "b 0.3-0.4",
    }.items():  # fmt: skip
        assert cells.names[cells.of_row(p)] == name


@given(st.integers(2, 100), st.integers(0, 2**32 - 1))
def test_cells_are_bounded_and_every_prediction_is_in_one(classes: int, seed: int) -> None:
    cells = PredictionBins([f"class {number}" for number in range(classes)])
    assert len(set(cells.names)) == len(cells.names) <= 200
    p = np.random.default_rng(seed).dirichlet(np.full(classes, 0.3), 20)
    found = cells.of(np.vstack([p, np.full(classes, 1 / classes)]))
    assert ((found >= 0) & (found < len(cells.names))).all()
    if classes > 2:
        assert [cells.names[at].rpartition(" ")[0] for at in found[:20]] == [f"class {k}" for k in p.argmax(axis=1)]
