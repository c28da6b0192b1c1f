"""What a second model reads of a row: its numbers, its categories by number, and its free text."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from models.features.registry import find_feature
from models.rows import Row
from models.schema import Schema, parts_of
from models.text import clean


class RowInputs(NamedTuple):
    """``numbers`` (N) as they are, None where unknown; ``categories`` (C) from 0 on, the last number of each for what
    is unknown; ``text``, what the row holds of free text."""

    numbers: tuple[float | None, ...]
    categories: tuple[int, ...]
    text: str


class RowReader:
    """Row → `RowInputs`; ``known`` is what the schema's feature learned of labelled rows.

    ``numbers`` and ``categories`` are the names of the columns, ``sizes`` how many values each category has with the
    unknown; what the feature derives are categories after the fields.
    """

    def __init__(self, schema: Schema, known: Any):
        self._feature, self._known = find_feature(schema), known
        self._free = free_texts(schema)
        self.numbers = tuple(field.name for field in schema.fields if field.type in ("number", "integer"))
        self._levels = _by_number(
            {field.name: field.values for field in schema.fields if field.type in ("category", "boolean")}
        )
        self._derived = _by_number({} if self._feature is None else self._feature.derived)
        self.categories = (*self._levels, *self._derived)
        self.sizes = tuple(len(levels) + 1 for levels in (*self._levels.values(), *self._derived.values()))

    def __call__(self, row: Row) -> RowInputs:
        categories = [levels.get(getattr(row, name), len(levels)) for name, levels in self._levels.items()]
        if self._feature is not None:
            words = self._feature.derive(row, self._known)
            categories += [levels.get(words[name], len(levels)) for name, levels in self._derived.items()]
        text = " ".join(clean(getattr(row, name) or "") for name in self._free) if self._free else ""
        return RowInputs(tuple(getattr(row, name) for name in self.numbers), tuple(categories), text)


def free_texts(schema: Schema) -> list[str]:
    """Fields of the type text that are said in the rows' texts as they stand."""
    said = {name for template in schema.text for _, name in parts_of(template)}
    return [field.name for field in schema.fields if field.type == "text" and field.name in said]


def _by_number(levels: Mapping[str, Sequence[Any]]) -> dict[str, dict[Any, int]]:
    return {name: {value: number for number, value in enumerate(of)} for name, of in levels.items()}
