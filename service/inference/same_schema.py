"""Whether a bundle can take another's place: clients go on to send the same rows, and to read the same classes."""

from typing import Any

from models.schema import Field, Schema
from service.inference.errors import BundleRefused

WIRE = ("name", "type", "required", "default", "levels", "minimum", "maximum", "max_length")
"""What of a field is on the wire; words, bins and what is said of it may change."""


def check_same_schema(served: Schema, other: Schema) -> None:
    """Raise BundleRefused, naming what differs on the wire, if anything does."""
    for place, ours, theirs in (
        ("name", served.name, other.name),
        ("row", served.row, other.row),
        ("label.classes", served.classes, other.classes),
        ("fields", _names(served), _names(other)),
        *((f"{old.name}.{key}", *_values(old, new, key)) for old, new in _pairs(served, other) for key in WIRE),
    ):
        if ours != theirs:
            raise BundleRefused(
                f"schema.json: {place} is {_shown(theirs)}, and {_shown(ours)} where it serves; "
                "a bundle of another table needs a service of its own"
            )


def _names(schema: Schema) -> tuple[str, ...]:
    return tuple(field.name for field in schema.fields)


def _pairs(served: Schema, other: Schema) -> list[tuple[Field, Field]]:
    return list(zip(served.fields, other.fields, strict=False))


def _values(old: Field, new: Field, key: str) -> tuple[Any, Any]:
    return getattr(old, key), getattr(new, key)


def _shown(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f"{text:.200}" or "empty"
