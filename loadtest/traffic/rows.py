"""Rows to send: a table's own, varied, or made up by a bundle's reference; and shifts of them for drift tests."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from models.bins.input_bins import InputBins
from models.cells import CellError
from models.csv_table import CsvTable
from models.labels import LabelReader
from models.reference import InputReference, Reference
from models.rows import Rows
from models.schema import Field, Schema

DATA = Path(__file__).parents[2] / "data"
WORDS = (
    "the", "a", "no", "new", "old", "long", "late", "again", "line", "order", "price", "help", "call", "service",
    "never", "always", "please", "thanks",
)  # fmt: skip
MAX_WORDS = 12
FACTOR = 4

Row = dict[str, Any]
"""A row's known fields, as a body has them."""
Labelled = tuple[Row, str | None]
"""A row, and the name of its class where it is known."""


def own_data(schema: Schema) -> Path | None:
    """The file in data/ that is called as the table, if there is one."""
    path = DATA / f"{schema.name}.csv"
    return path if path.exists() else None


def read_labelled(schema: Schema, path: Path, count: int | None = None) -> list[Labelled]:
    """The rows of a CSV that the schema takes, the first ``count`` of them. Raises ValueError when there are none."""
    rows, reader, found = Rows(schema), LabelReader(schema.label), list[Labelled]()
    with path.open("rb") as file:
        table = CsvTable(file)
        places = rows.find_columns(table.header)
        label = table.header.index(schema.label.column) if schema.label.column in table.header else None
        for line in table:
            if len(found) == count:
                break
            try:
                row = None if line.fault else rows.parse({field: line.cells[at] for field, at in places.items()})
            except CellError:
                continue
            number = None if row is None or label is None else reader(line.cells[label])
            if row is not None:
                found.append((known(row), None if number is None else schema.classes[number]))
    if not found:
        raise ValueError(f"{path} has no row that the bundle's schema takes")
    return found


def known(row: Any) -> Row:
    """The fields of a row that are known."""
    return {name: value for name, value in msgspec.structs.asdict(row).items() if value is not None}


def vary(labelled: Sequence[Labelled], optional: Sequence[str], rng: random.Random) -> Labelled:
    """A row that takes some of the ``optional`` fields from another one; and its class."""
    row, outcome = rng.choice(labelled)
    other, _ = rng.choice(labelled)
    varied = dict(row)
    for field in rng.sample(optional, rng.randint(0, len(optional))):
        varied.pop(field, None)
        if field in other:
            varied[field] = other[field]
    return varied, outcome


def make_row(schema: Schema, reference: Reference, rng: random.Random) -> Row:
    """A row that is made up: each field by itself, its bin as often as in the training rows."""
    values = {
        field.name: _value(field, counts, rng) for field, counts in zip(schema.fields, reference.inputs, strict=True)
    }
    return {name: value for name, value in values.items() if value is not None}


def _value(field: Field, reference: InputReference, rng: random.Random) -> Any:
    """A value of a bin that is drawn by its count; bins are known by their place, for a level may be called as one."""
    bins, counts = reference.bins, list(reference.counts.values())
    unknown = len(counts) - 1
    if field.required:
        counts[unknown] = 0
    place = rng.choices(range(len(counts)), counts if any(counts) else [1] * unknown + [0])[0]
    if place == unknown:
        return None
    if field.type == "text":
        return " ".join(rng.choices(WORDS, k=_words(bins, place, rng)))[: field.max_length]
    if field.type == "boolean":
        return bool(place)
    if field.type == "category":
        named = len(bins.levels)
        return field.levels[place] if place < named else rng.choice(field.levels[named:])
    return _number(field, bins.edges[place], bins.edges[place + 1], rng)


def _words(bins: InputBins, place: int, rng: random.Random) -> int:
    """Of a made-up text, as many as its bin has tokens: each of `WORDS` is one."""
    if not bins.lengths:
        return rng.randint(1, MAX_WORDS)
    at = place % (len(bins.lengths) - 1)
    low, high = bins.lengths[at], bins.lengths[at + 1]
    return rng.randint(max(1, int(low)), max(1, int(high) - 1))


def _number(field: Field, low: float, high: float, rng: random.Random) -> float | int:
    """Within the bin and the bounds; of an integer, whole."""
    least = float("-inf") if field.minimum is None else field.minimum
    value = rng.uniform(*(min(max(edge, least), _most(field)) for edge in (low, high)))
    return round(value, 2) if field.type == "number" else int(value)


def _most(field: Field) -> float:
    return float("inf") if field.maximum is None else field.maximum


def commonest(schema: Schema, labelled: Sequence[Labelled]) -> list[Labelled]:
    """Only rows with the commonest level of the first two fields that have levels: another mix, each row as ever."""
    chosen = {}
    for field in _with_levels(schema)[:2]:
        chosen[field.name] = Counter(row[field.name] for row, _ in labelled if field.name in row).most_common(1)[0][0]
    return [
        (row, outcome) for row, outcome in labelled if all(row.get(name) == value for name, value in chosen.items())
    ]


def swapped(schema: Schema, labelled: Sequence[Labelled]) -> list[Labelled]:
    """A client that takes one code for another: the levels of the first field with the fewest, each for the next."""
    field = min(_with_levels(schema), key=lambda each: len(each.values))
    levels = field.values
    following = dict(zip(levels, (*levels[1:], levels[0]), strict=True))
    return [
        ({**row, field.name: following[row[field.name]]} if field.name in row else row, outcome)
        for row, outcome in labelled
    ]


def scaled(schema: Schema, labelled: Sequence[Labelled]) -> list[Labelled]:
    """A client that sends another unit: the last number is four times as large, up to what the schema takes."""
    numbers = [each for each in schema.fields if each.type == "number"] or [
        each for each in schema.fields if each.type == "integer"
    ]
    if not numbers:
        raise ValueError("the table has no number to scale; choose another --shift")
    field = numbers[-1]
    return [
        ({**row, field.name: min(_most(field), FACTOR * row[field.name])} if field.name in row else row, outcome)
        for row, outcome in labelled
    ]


def _with_levels(schema: Schema) -> list[Field]:
    found = [field for field in schema.fields if len(field.values) > 1]
    if not found:
        raise ValueError("the table has no field with levels to shift; choose another --shift")
    return found


SHIFTS: dict[str, Callable[[Schema, Sequence[Labelled]], list[Labelled]]] = {
    "commonest-levels": commonest,
    "swapped-levels": swapped,
    "scaled-number": scaled,
}
