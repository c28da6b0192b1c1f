"""Another bundle may take over if rows and classes on the wire stay what they are; else what differs is named."""

from typing import Any

import msgspec
import pytest

from models.schema import schema_of
from service.inference.errors import BundleRefused
from service.inference.same_schema import check_same_schema
from tests.churn import SCHEMA

DOCUMENT = msgspec.to_builtins(SCHEMA)


def changed(**changes: Any) -> Any:
    return schema_of({**DOCUMENT, **changes})


def field(place: int, **changes: Any) -> Any:
    fields = [{**each, **changes} if at == place else each for at, each in enumerate(DOCUMENT["fields"])]
    return changed(fields=fields)


@pytest.mark.parametrize(
    "other",
    [
        changed(),
        changed(question="Do they leave?", rows="people", examples=[{"label": "one", "row": {"city": "city 01"}}]),
        changed(text=["{city}", "{note}"]),
        changed(group="Household"),
        changed(label={**DOCUMENT["label"], "column": "gone"}),
        field(1, words={"2": "two"}, column="Tariff"),
        field(3, bins=[0, 12, 72], meaning="Months.", title="Months with us", unit="months"),
    ],
)
def test_words_bins_and_what_is_said_may_change(other: Any) -> None:
    check_same_schema(SCHEMA, other)


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        (changed(name="next"), 'name is "next", not "churn" as in the bundle that serves'),
        (changed(row="user"), 'row is "user", not "customer" as in the bundle that serves'),
        (
            changed(label={**DOCUMENT["label"], "classes": DOCUMENT["label"]["classes"][::-1]}),
            'label.classes is ["leaves","stays"], not ["stays","leaves"] as in the bundle that serves',
        ),
        (
            changed(
                label={**DOCUMENT["label"], "classes": [*DOCUMENT["label"]["classes"], {"value": "?", "name": "?"}]}
            ),
            'label.classes is ["stays","leaves","?"], not ["stays","leaves"] as in the bundle that serves',
        ),
        (
            changed(fields=DOCUMENT["fields"][:-1], text=["{city}"]),
            'fields is ["city","plan","senior","tenure","bill","probability"], not ["city"',
        ),
        (changed(fields=DOCUMENT["fields"][::-1]), 'fields is ["note","probability"'),
        (field(0, required=False), "city.required is false, not true as in the bundle that serves"),
        (field(1, levels=[2, 5], words={}), "plan.levels is [2,5], not [2,5,10] as in the bundle that serves"),
        (field(1, levels=["2", "5", "10"]), 'plan.levels is ["2","5","10"], not [2,5,10] as in the bundle that serves'),
        (field(3, type="number"), 'tenure.type is "number", not "integer" as in the bundle that serves'),
        (field(3, minimum=1), "tenure.minimum is 1.0, not 0.0 as in the bundle that serves"),
        (field(4, maximum=600), "bill.maximum is 600.0, not 500.0 as in the bundle that serves"),
        (field(5, default=0.5), "probability.default is 0.5, not null as in the bundle that serves"),
        (field(6, max_length=50), "note.max_length is 50, not 200 as in the bundle that serves"),
    ],
)
def test_what_differs_on_the_wire_is_named(other: Any, reason: str) -> None:
    with pytest.raises(BundleRefused) as refused:
        check_same_schema(SCHEMA, other)
    assert str(refused.value).startswith(f"schema.json: {reason}")


def test_a_booleans_spelling_in_the_table_is_not_on_the_wire() -> None:
    check_same_schema(SCHEMA, field(2, levels=["no", "yes"]))
