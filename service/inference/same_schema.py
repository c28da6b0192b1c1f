"""Whether a bundle can take another's place: clients go on to send the same rows, and to read the same classes."""

from collections.abc import Iterator
from typing import Any

import msgspec

from models.cells import shorten
from models.schema import Schema
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
        *_fields(served, other),
    ):
        if ours != theirs:
            raise BundleRefused(
                f"schema.json: {place} is {_shown(theirs)}, not {_shown(ours)} as in the bundle that serves; "
                "a bundle of another table needs a service of its own"
            )


def _names(schema: Schema) -> tuple[str, ...]:
    return tuple(field.name for field in schema.fields)


def _fields(served: Schema, other: Schema) -> Iterator[tuple[str, Any, Any]]:
    for old, new in zip(served.fields, other.fields, strict=False):
        for key in WIRE:
            # How a table spells a boolean is not on the wire.
            if key != "levels" or old.type != "boolean":
                yield f"{old.name}.{key}", getattr(old, key), getattr(new, key)


def _shown(value: Any) -> str:
    return shorten(msgspec.json.encode(value).decode())
