"""Descriptions of tables: what is read, and what is refused with its place."""

import re
from typing import Any

import msgspec
import pytest

from models.schema import TITANIC, FieldType, Schema, SchemaError, read_packaged, schema_of
from tests.titanic import SCHEMA


def document(**field: Any) -> dict[str, Any]:
    """A description of one field."""
    return {
        "name": "churn", "text": ["{tenure}"], "fields": [{"name": "tenure", **field}],
        "label": {"column": "Churn", "classes": [{"value": "No", "name": "stays"}, {"value": "Yes", "name": "leaves"}]},
    }  # fmt: skip


def test_the_titanics_description_is_read_and_kept() -> None:
    schema = read_packaged(TITANIC)
    assert (schema.name, schema.row, schema.plural, schema.positive) == (
        "titanic",
        "passenger",
        "passengers",
        "survived",
    )
    assert schema.classes == ("died", "survived")
    assert [field.in_table for field in schema.fields][:3] == ["Pclass", "Sex", "Name"]
    assert [field.name for field in schema.fields if field.required] == ["pclass", "sex"]
    assert schema.by_name["pclass"].levels == (1, 2, 3)
    assert len(schema.examples) == 11
    assert msgspec.json.decode(msgspec.json.encode(schema), type=Schema) == schema
    assert schema_of(msgspec.json.decode(msgspec.json.encode(schema))) == SCHEMA


def test_the_order_of_the_classes_is_the_descriptions() -> None:
    turned = document(type="text")
    turned["label"]["classes"].reverse()
    assert schema_of(document(type="text")).positive == "leaves"
    assert (schema_of(turned).classes, schema_of(turned).positive) == (("leaves", "stays"), "stays")


@pytest.mark.parametrize(
    ("field", "path", "reason"),
    [
        ({"type": "date"}, "fields[0].type", "Invalid enum value 'date'"),
        ({"type": "text", "colour": 1}, "fields[0]", "Object contains unknown field `colour`"),
        ({"type": "text", "minimum": 0}, "fields[0].minimum", "a field of the type text has none"),
        ({"type": "text", "words": {"a": "b"}}, "fields[0].words", "a text is its own words"),
        ({"type": "text", "max_length": 0}, "fields[0].max_length", "Expected `int` >= 1"),
        ({"type": "number"}, "fields[0].bins", "they must be at least two numbers, each above the one before"),
        ({"type": "number", "bins": [0, 2, 1]}, "fields[0].bins", "each above the one before"),
        ({"type": "number", "bins": [0, 1], "minimum": 3, "maximum": 2}, "fields[0].maximum",
         "it is 2, and the minimum 3"),
        ({"type": "number", "bins": [0, 1], "levels": [1]}, "fields[0].levels", "a field of the type number has none"),
        ({"type": "integer", "bins": [0, 1], "words": [{"word": "few"}, {"below": 9, "word": "many"}]},
         "fields[0].words", "below must rise from range to range, and only the last may lack it"),
        ({"type": "category"}, "fields[0].levels", "a category lists its values"),
        ({"type": "category", "levels": ["a", "a"]}, "fields[0].levels[1].value", "'a' is there twice"),
        ({"type": "category", "levels": ["a", 1]}, "fields[0].levels", "all texts, or all whole numbers"),
        ({"type": "category", "levels": ["a"], "words": {"b": "c"}}, "fields[0].words",
         "'b' is no value of the field: a"),
        ({"type": "category", "levels": ["a"], "words": [{"word": "c"}]}, "fields[0].words",
         "has a word for each value"),
        ({"type": "boolean", "levels": ["no"]}, "fields[0].levels", "a boolean has two spellings, false first"),
        ({"type": "boolean", "words": {"yes": "c"}}, "fields[0].words", "'yes' is no value of the field: false, true"),
        ({"type": "text", "required": True, "default": ""}, "fields[0].default", "a required field has none"),
        ({"type": "text", "column": "churn"}, "fields[0].column", "churn is the label's column"),
        ({"type": "text", "name": "class"}, "fields[0].name", "class is a word of Python; take another, as class_"),
        ({"type": "text", "name": "A b"}, "fields[0].name", "matching regex"),
    ],
)  # fmt: skip
def test_a_field_that_cannot_be_used_is_refused_with_its_place(field: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(reason)) as refused:
        schema_of(document(**field))
    assert refused.value.path == path
    assert str(refused.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("change", "path", "reason"),
    [
        ({"fields": []}, "fields", "length >= 1"),
        ({"fields": [{"name": "a", "type": "text"}] * 2}, "fields[1].name", "'a' is there twice"),
        ({"fields": [{"name": "a", "type": "text", "column": "B"}, {"name": "b", "type": "text"}]}, "fields[1].column",
         "'b' is there twice"),
        ({"fields": [{"name": f"f{i}", "type": "text"} for i in range(201)]}, "fields", "length <= 200"),
        ({"label": {"column": "y", "classes": [{"value": "0", "name": "no"}]}}, "label.classes", "length >= 2"),
        ({"label": {"column": "y", "classes": [{"value": v, "name": "no"} for v in "01"]}}, "label.classes[1].name",
         "'no' is there twice"),
        ({"label": {"column": "y", "classes": [{"value": "0", "name": n} for n in "ab"]}}, "label.classes[1].value",
         "'0' is there twice"),
        ({"examples": [{"label": "x", "row": {}, "outcome": "left"}]}, "examples[0].outcome", "one of stays, leaves"),
        ({"name": "../x"}, "name", "matching regex"),
        ({"colour": "red"}, "", "Object contains unknown field `colour`"),
    ],
)  # fmt: skip
def test_a_description_that_cannot_be_used_is_refused(change: dict[str, Any], path: str, reason: str) -> None:
    with pytest.raises(SchemaError, match=re.escape(reason)) as refused:
        schema_of(document(type="text") | change)
    assert refused.value.path == path


def test_every_type_of_field_is_known() -> None:
    assert set(FieldType.__args__) == {"number", "integer", "boolean", "category", "text"}  # type: ignore[attr-defined]


def test_sets_are_by_a_field_that_is_there_and_no_text() -> None:
    described = document(type="text")
    assert schema_of(described | {"sets_by": "none"}).sets_by == "none"
    for name, reason in (
        ("tenur", "sets_by: there is no field tenur; there are tenure, and none"),
        ("tenure", "sets_by: tenure is a text; sets are by a category, a boolean, a number or none"),
    ):
        with pytest.raises(SchemaError, match=re.escape(reason)):
            schema_of(described | {"sets_by": name})
    by_number = document(type="number", bins=[0, 1]) | {"sets_by": "tenure"}
    assert schema_of(by_number).sets_by == "tenure"
