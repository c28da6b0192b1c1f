"""What is on the wire of one table: the types of its requests, made from its schema, and examples of them."""

from functools import cached_property, lru_cache
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from models.rows import Rows
from models.schema import Field, Schema
from service.http.body.faults import ACCEPTS
from service.routes.schemas import MAX_BATCH

PREDICTION_ID = "0199c1f2-6a5e-7c3b-9d41-2f0b8c7e5a10"


class Table:
    """``row``, ``batch`` and ``outcomes`` are the types of what /v1/predict, its batch and /v1/outcomes read."""

    def __init__(self, rows: Rows):
        self.rows, self.schema = rows, rows.schema
        self.row = rows.struct
        self.batch = _list_of("BatchRequest", "Rows to predict.", "rows", self.row)
        self.outcomes = _outcomes(rows.schema)

    @cached_property
    def example(self) -> dict[str, Any]:
        """A row, as JSON."""
        row: dict[str, Any] = msgspec.to_builtins(self.rows.typical())
        return {name: value for name, value in row.items() if value is not None}

    @cached_property
    def short_example(self) -> dict[str, Any]:
        """A row of which no more is known than must be."""
        return {field.name: self.example[field.name] for field in self.schema.fields if field.required}

    @cached_property
    def refused(self) -> dict[str, Any]:
        """A row with two faults: a value that its field does not accept, and a name that is misspelt."""
        first, misspelt = self.schema.fields[0], self.schema.fields[-1].name
        while misspelt in self.schema.by_name:
            misspelt += misspelt[-1]
        return {**self.short_example, first.name: _unacceptable(first), misspelt: None}

    @cached_property
    def example_probabilities(self) -> dict[str, float]:
        """Of an example's prediction."""
        others = self.schema.classes[:-1]
        return {**{name: round(0.1268 / len(others), 4) for name in others}, self.schema.positive: 0.8732}


@lru_cache(4)
def table_of_rows(rows: Rows) -> Table:
    """The table of these rows, made once for each bundle that is loaded."""
    return Table(rows)


def _list_of(name: str, meaning: str, field: str, item: type[Struct]) -> type[Struct]:
    items = Annotated[list[item], Meta(min_length=1, max_length=MAX_BATCH)]  # type: ignore[valid-type]
    return msgspec.defstruct(
        name, [(field, items)], namespace={"__doc__": meaning}, module=__name__, frozen=True,
        forbid_unknown_fields=True,
    )  # fmt: skip


def _outcomes(schema: Schema) -> type[Struct]:
    names = ", ".join(f'"{name}"' for name in schema.classes)
    classes: Any = Literal[schema.classes]
    outcome = Annotated[classes, Meta(extra={ACCEPTS: f"one of {names}"})]
    item = msgspec.defstruct(
        "Outcome", [("id", Annotated[str, Meta(min_length=1, max_length=64)]), ("outcome", outcome)],
        namespace={"__doc__": "``id`` is that of the prediction's answer."}, module=__name__, frozen=True,
        forbid_unknown_fields=True,
    )  # fmt: skip
    return _list_of("OutcomesRequest", "What became of rows that were predicted.", "outcomes", item)


def _unacceptable(field: Field) -> Any:
    if field.type == "text":
        return 7
    if field.type != "category":
        return "many"
    return max(map(int, field.levels)) + 1 if field.whole else f"no {max(map(str, field.levels), key=len)}"
