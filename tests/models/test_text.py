"""Passengers as texts: known phrases, and what holds of any."""

import re
from typing import Any

import msgspec
import pytest
from hypothesis import given

from models.features.titanic import Companions
from models.rows import Rows
from models.schema import Schema, SchemaError, schema_of
from models.text import Renderer
from tests.models.strategies import PASSENGERS
from tests.titanic import SCHEMA, Passenger
from training.data.table import Table

render = Renderer(SCHEMA)


def test_a_known_passenger_in_words() -> None:
    rice = Passenger(
        pclass=3, sex="male", name="Rice, Master. Eugene", age=2, sibsp=4, parch=1, fare=29.125, embarked="Q"
    )
    assert render(rice) == "third class boy, Master, small child, large family, moderate fare, no cabin, Queenstown"


@pytest.mark.parametrize(
    ("name", "title"),
    [("Oliva y Ocana, Dona. Fermina", "noble"), ("Rothes, the Countess. of (Lucy)", "noble"), ("Sage, Mlle. X", "Miss"),
     ("Crosby, Capt. Edward", "officer"), ("Brown, Mrs. James", "Mrs")],
)  # fmt: skip
def test_titles_are_understood(name: str, title: str) -> None:
    assert f", {title}, " in render(Passenger(pclass=1, sex="female", name=name))


@given(PASSENGERS)
def test_any_valid_passenger_has_a_short_text(passenger: Any) -> None:
    text = render(passenger)
    assert text.startswith(("first class", "second class", "third class"))
    assert len(text) < 150
    assert "None" not in text


@given(PASSENGERS)
def test_unknown_equals_absent(passenger: Any) -> None:
    known = {k: v for k, v in msgspec.to_builtins(passenger).items() if v is not None}
    assert render(msgspec.convert(known, Passenger)) == render(passenger)


@given(PASSENGERS)
def test_every_word_of_any_text_is_listed(passenger: Any) -> None:
    assert set(render(passenger).replace(",", "").split()) <= set(
        " ".join(render.every_word()).replace(",", "").split()
    )


def test_every_word_of_the_tables_texts_is_listed(table: Table) -> None:
    known = Companions.of(table.rows, table.labels.tolist())
    told = {word for one in table.rows for word in render(one, known).replace(",", "").split()}
    assert told <= set(" ".join(render.every_word()).replace(",", "").split())
    assert {"divided", "noble", "deck"} <= told


# Any schema


def schema(text: tuple[str, ...], **fields: dict[str, Any]) -> Schema:
    return schema_of({
        "name": "churn", "text": text, "fields": [{"name": name, **field} for name, field in fields.items()],
        "label": {"column": "Churn", "classes": [{"value": "No", "name": "stays"}, {"value": "Yes", "name": "leaves"}]},
    })  # fmt: skip


CHURN = schema(
    ("{contract} contract", "tenure {tenure}", "charges {charges}", "{senior}", "{paperless}", "{comment}"),
    contract={"type": "category", "levels": ["Month-to-month", "One year"], "words": {"Month-to-month": "monthly"}},
    tenure={"type": "integer", "bins": [0, 12, 72], "words": [{"below": 12, "word": "short"}, {"word": "long"}]},
    charges={"type": "number", "bins": [0, 50, 100]},
    senior={"type": "boolean", "words": {"true": "senior", "false": ""}},
    paperless={"type": "boolean"},
    comment={"type": "text", "max_length": 100},
)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({}, ""),
        ({"contract": "Month-to-month", "tenure": 11}, "monthly contract, tenure short"),
        ({"charges": 12345.67}, "charges 12350"),
        ({"contract": "One year", "tenure": 12, "charges": 20.0}, "One year contract, tenure long, charges 20"),
        ({"senior": False, "paperless": False}, "false"),
        ({"senior": True, "paperless": True}, "senior, true"),
        ({"comment": " cafe\u0301\n at  noon "}, "café at noon"),
        ({"charges": 0.0, "comment": ""}, "charges 0"),
    ],
)  # fmt: skip
def test_phrases_of_any_table(row: dict[str, Any], text: str) -> None:
    rows = Rows(CHURN)
    assert Renderer(CHURN)(rows.check([row])[0]) == text


def test_what_is_unknown_may_keep_its_place() -> None:
    placed = msgspec.structs.replace(CHURN, between=" ", unknown="unknown", text=("{contract}", "{tenure}", "{senior}"))
    say, rows = Renderer(placed), Rows(CHURN)
    assert say(rows.check([{"tenure": 20}])[0]) == "unknown long unknown"
    assert say(rows.check([{"tenure": 20, "senior": False}])[0]) == "unknown long"
    assert say(rows.check([{"contract": "One year", "senior": True}])[0]) == "One year unknown senior"
    assert "unknown" in " ".join(say.every_word()).split()


def test_every_word_of_any_table_is_listed() -> None:
    words = ", ".join(Renderer(CHURN).every_word())
    for phrase in ("monthly contract", "One year contract", "tenure short", "tenure long", "charges 50", "senior"):
        assert phrase in words


@pytest.mark.parametrize(
    ("template", "reason"),
    [("{cabin}", "{cabin} is no field; there are: contract"), ("{tenure:d}", "must hold plain names in braces"),
     ("{tenure!r}", "must hold plain names"), ("{0}", "must hold plain names"), ("{tenure", "expected '}'")],
)  # fmt: skip
def test_templates_that_say_nothing_are_refused(template: str, reason: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(reason)) as refused:
        Renderer(schema(("a", template), contract={"type": "text"}, tenure={"type": "integer", "bins": [0, 1]}))
    assert refused.value.path == "text[1]"
