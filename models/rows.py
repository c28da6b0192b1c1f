"""The type of a table's rows, made from its schema, and how rows come in: cells of a table, or Python's values."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from models.cells import CellError, accepts, parse_cell, parse_value, shorten
from models.csv_table import clean_name
from models.schema import Field, Schema, SchemaError

MAX_INTEGER = 2**53
"""The largest whole number that a float64 tells from its neighbours: of an integer field without bounds."""
Row = Any
"""A Struct of the type `Rows.struct`, made from a schema at run time; its attributes are the schema's fields."""


class RowError(ValueError):
    """A table or row that does not fit the schema; the message names the column, or row, field and what is accepted."""


class Rows:
    """The rows of one table. ``struct`` is their type: frozen, keyword-only, with the schema's fields and bounds."""

    def __init__(self, schema: Schema):
        self.schema = schema
        self.struct = make_struct(schema)

    def find_columns(self, header: Sequence[object]) -> dict[str, int]:
        """Field → position of its column, by the field's or the column's name in any case.

        Raises RowError when a required column is missing, or one is there twice.
        """
        names = [clean_name(name).casefold() for name in header]
        positions: dict[str, int] = {}
        for field in self.schema.fields:
            matches = [at for at, name in enumerate(names) if name in (field.name, field.in_table.casefold())]
            if len(matches) > 1:
                raise RowError(f"the column {field.in_table} is there {len(matches)} times")
            if matches:
                positions[field.name] = matches[0]
        missing = [field.in_table for field in self.schema.fields if field.required and field.name not in positions]
        if missing:
            there = ", ".join(map(str, header)) or "none"
            verb = "column {} is" if len(missing) == 1 else "columns {} are"
            raise RowError(f"the {verb.format(' and '.join(missing))} missing; there are: {there:.500}")
        return positions

    def parse(self, cells: Mapping[str, str]) -> Row:
        """Cells by field, as text → the row. A field that is not among them has its default. Raises CellError."""
        return self._row({name: parse_cell(self.schema.by_name[name], cell) for name, cell in cells.items()})

    def convert(self, values: Mapping[str, Any]) -> Row:
        """`parse` of values that have a type, as data frames and tensors have them. Raises CellError."""
        return self._row({name: parse_value(self.schema.by_name[name], value) for name, value in values.items()})

    def check(self, rows: Iterable[Row | Mapping[str, Any]]) -> list[Row]:
        """Rows, or mappings of the same fields, → rows within their bounds.

        Strict as on the wire: "3" and 3.0 are not 3, NaN is no number, an unknown field is refused; ``None`` is
        unknown. Raises RowError.
        """
        return [self._checked(number, row) for number, row in enumerate(rows)]

    def typical(self) -> Row:
        """A row that is made up: the first example's, or of each field a value from the middle."""
        if self.schema.examples:
            return msgspec.convert(self.schema.examples[0].row, self.struct)
        return self.struct(**{field.name: _middle(field) for field in self.schema.fields})

    def _row(self, values: dict[str, Any]) -> Row:
        for name in self.struct.__struct_fields__:
            field = self.schema.by_name[name]
            if field.required and name not in values:
                raise CellError(field, None, "it is required")
            if values.get(name) is None and field.default is not None:
                # A table has no way to leave a single cell out but to leave it empty.
                values[name] = field.default
        return self.struct(**values)

    def _checked(self, number: int, row: Row | Mapping[str, Any]) -> Row:
        # A Struct is not checked when it is made in Python, only when it is decoded or converted. One that another
        # `Rows` of the same schema made is a type of its own.
        if isinstance(row, Struct):
            values = msgspec.structs.asdict(row)
        elif isinstance(row, Mapping):
            values = dict(row)
        else:
            kind, name = type(row).__name__, self.struct.__name__
            raise RowError(f"row {number} is a {kind}; it must be a {name} or a mapping of its fields")
        try:
            return msgspec.convert(values, self.struct)
        except msgspec.ValidationError as error:
            raise RowError(f"row {number}: {self.reason(str(error), values)}") from None

    def reason(self, error: str, values: Mapping[str, Any]) -> str:
        """msgspec's message about these values, with the value and what is accepted where it is a field's."""
        reason, _, name = error.partition(" - at `$.")
        name = name.rstrip("`")
        if name not in values or name not in self.schema.by_name:
            return reason
        return f"{name} is {shorten(repr(values[name]))}; it must be {accepts(self.schema.by_name[name])}"


def check_examples(schema: Schema) -> None:
    """Raises SchemaError for an example whose row does not fit the fields."""
    rows = Rows(schema)
    for number, example in enumerate(schema.examples):
        try:
            rows.check([example.row])
        except RowError as error:
            raise SchemaError(f"examples[{number}].row", str(error).removeprefix("row 0: ")) from None


def make_struct(schema: Schema) -> type[Struct]:
    """The type of a schema's rows: one and the same for schemas with the same fields, so that their rows are equal."""
    # Bins are no part of a row.
    fields = [msgspec.structs.replace(field, bins=(), rare_bins=()) for field in schema.fields]
    return _make_struct(msgspec.json.encode((schema.row, fields)))


@lru_cache(64)
def _make_struct(definition: bytes) -> type[Struct]:
    row, described_fields = msgspec.json.decode(definition, type=tuple[str, tuple[Field, ...]])
    fields: list[Any] = []
    for field in described_fields:
        kind: Any = _annotation(field) if field.required else _annotation(field) | None
        described = Annotated[kind, _description(field)]
        fields.append((field.name, described) if field.required else (field.name, described, field.default))
    name = "".join(part.capitalize() for part in row.split("_")) or "Row"
    return msgspec.defstruct(
        name, fields, namespace={"__doc__": f"One {row.replace('_', ' ')} of the table."}, module=__name__,
        frozen=True, kw_only=True, forbid_unknown_fields=True,
    )  # fmt: skip


def _description(field: Field) -> Meta:
    """What documents say of a field; ``extra["accepts"]`` is what a fault says that it accepts in JSON."""
    said = field.meaning or field.title
    unit = f" In {field.unit}." if field.unit and field.unit.casefold() not in said.casefold() else ""
    # Without a title: makers of clients name types after it.
    return Meta(description=f"{said}{unit}".strip() or None, extra={"accepts": accepts(field, in_json=True)})


def _annotation(field: Field) -> Any:
    if field.type == "boolean":
        return bool
    if field.type == "category":
        return Literal[field.levels]
    if field.type == "text":
        return Annotated[str, Meta(max_length=field.max_length)] if field.max_length else str
    kind = float if field.type == "number" else int
    low, high = (None if bound is None else kind(bound) for bound in (field.minimum, field.maximum))
    if kind is int:  # JSON's have no end, and what is made of them has.
        low, high = (-MAX_INTEGER if low is None else low), (MAX_INTEGER if high is None else high)
    return Annotated[kind, Meta(ge=low, le=high)] if low is not None or high is not None else kind


def _middle(field: Field) -> Any:
    if field.type == "category":
        return field.levels[0]
    if field.type == "boolean":
        return False
    if field.type == "text":
        return "text" if field.required else None
    value = field.bins[len(field.bins) // 2]
    return parse_value(field, value if field.type == "number" else round(value))
