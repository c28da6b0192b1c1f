"""Rows that are made up are taken by the schema and spread as its reference; shifts are of the schema's fields."""

import random
from collections import Counter

import msgspec
import numpy as np
import pytest

from loadtest.traffic.rows import SHIFTS, make_row, own_data, read_labelled
from models.bundle.read import Bundle
from models.reference import build_reference
from models.rows import Rows
from models.schema import schema_of
from tests import churn
from tests.conftest import TITANIC
from tests.titanic import SCHEMA

TEXTS = schema_of({
    "name": "notes", "label": {"column": "y", "classes": [{"value": "0", "name": "no"}, {"value": "1", "name": "yes"}]},
    "fields": [{"name": "note", "type": "text"}], "text": ["{note}"],
})  # fmt: skip


def test_made_up_rows_are_taken_and_spread_as_the_reference(churn_bundle: Bundle) -> None:
    rng = random.Random(1)
    made = [make_row(churn.SCHEMA, churn_bundle.reference, rng) for _ in range(3000)]
    churn.ROWS.check(made)
    assert all(None not in row.values() for row in made)
    for counts in churn_bundle.reference.inputs:
        if counts.bins.field == "senior":
            found = Counter({True: "true", False: "false", None: "unknown"}[row.get("senior")] for row in made)
            for name, count in counts.counts.items():
                assert found[name] / 3000 == pytest.approx(count / 60, abs=0.03)
    others = [row["city"] for row in made if row["city"] in churn.CITIES[50:]]
    assert len(set(others)) == 10


def test_a_tables_own_rows_are_those_that_the_schema_takes() -> None:
    assert own_data(SCHEMA) == TITANIC
    assert own_data(churn.SCHEMA) is None
    labelled = read_labelled(SCHEMA, TITANIC)
    assert len(labelled) == 891
    row, outcome = labelled[0]
    assert (row["name"], row["pclass"], outcome) == ("Braund, Mr. Owen Harris", 3, "died")
    assert "cabin" not in row
    assert len(read_labelled(SCHEMA, TITANIC, 7)) == 7
    with pytest.raises(ValueError, match="city"):
        read_labelled(churn.SCHEMA, TITANIC)


def test_shifts_are_of_the_schemas_fields() -> None:
    labelled = read_labelled(SCHEMA, TITANIC)
    before = [row for row, _ in labelled]
    men = [row for row, _ in SHIFTS["commonest-levels"](SCHEMA, labelled)]
    assert men == [row for row in before if row["pclass"] == 3 and row["sex"] == "male"]
    swapped = [row for row, _ in SHIFTS["swapped-levels"](SCHEMA, labelled)]
    other = {"male": "female", "female": "male"}
    assert swapped == [{**row, "sex": other[row["sex"]]} for row in before]
    scaled = [row for row, _ in SHIFTS["scaled-number"](SCHEMA, labelled)]
    assert [row["fare"] for row in scaled] == [min(1000, 4 * row["fare"]) for row in before]
    assert [outcome for _, outcome in SHIFTS["scaled-number"](SCHEMA, labelled)] == [name for _, name in labelled]


@pytest.mark.parametrize("shift", sorted(SHIFTS))
def test_a_table_without_such_fields_cannot_be_shifted_so(shift: str) -> None:
    with pytest.raises(ValueError, match="choose another --shift"):
        SHIFTS[shift](TEXTS, [({"note": "x"}, None)])


def test_levels_that_are_called_as_bins_are_levels() -> None:
    schema = schema_of({
        "name": "odd", "label": msgspec.to_builtins(TEXTS.label),
        "fields": [{"name": "answer", "type": "category", "levels": ["unknown", "other", "yes"], "required": True}],
        "text": ["{answer}"],
    })  # fmt: skip
    rows = Rows(schema)
    given = [rows.struct(answer=level) for level in ("unknown", "other", "other", "yes")]
    reference = build_reference(np.full(4, 0.5), given, schema)
    made = Counter(make_row(schema, reference, random.Random(seed))["answer"] for seed in range(400))
    assert set(made) == {"unknown", "other", "yes"}
    assert made["other"] / 400 == pytest.approx(0.5, abs=0.1)
