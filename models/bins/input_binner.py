"""Rows → the numbers of their fields' bins."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from models.bins.input_bins import InputBins
from models.rows import Row
from models.schema import Field, Schema
from models.text import clean

if TYPE_CHECKING:
    from models.bert.tokenizer import TextMeasure, Tokenizer


class InputBinner:
    """Row → the number of each field's bin among its ``names``, in the order of the schema's fields.

    The bins of a text are cut by what ``tokenizer`` makes of it; ValueError where the schema has such and it is None.
    """

    def __init__(self, schema: Schema, tokenizer: "Tokenizer | None" = None):
        self._columns = [(field.name, _bin_numbers(field, tokenizer)) for field in schema.fields]

    def __call__(self, row: Row) -> tuple[int, ...]:
        return self.of([row])[0]

    def of(self, rows: Sequence[Row]) -> list[tuple[int, ...]]:
        """Bin numbers of each row (F,); texts of many rows are tokenized together."""
        return list(zip(*self.columns(rows), strict=True))

    def columns(self, rows: Sequence[Row]) -> list[list[int]]:
        """Bin numbers of rows by field (F, B)."""
        return [numbers([getattr(row, name) for row in rows]) for name, numbers in self._columns]

    def array(self, rows: Sequence[Row]) -> np.ndarray:
        """Bin numbers (B, F) int64 of rows."""
        return np.array(self.of(rows), np.int64).reshape(-1, len(self._columns))


BinNumbers = Callable[[Sequence[Any]], list[int]]
"""A field's values → the numbers of their bins."""


def _bin_numbers(field: Field, tokenizer: "Tokenizer | None") -> BinNumbers:
    if field.input_bins.lengths:
        if tokenizer is None:
            raise ValueError(f"the bins of {field.name} are cut by tokens, and there is no tokenizer")
        return _text_bins(field.input_bins, tokenizer)
    number_of = bin_number(field)
    return lambda values: list(map(number_of, values))


def _text_bins(bins: InputBins, tokenizer: "Tokenizer") -> BinNumbers:
    unknown, lengths, shares = len(bins.names) - 1, bins.lengths, bins.rare

    def number(measure: "TextMeasure") -> int:
        share = measure.rare / max(1, measure.tokens)
        return _place(shares, share) * (len(lengths) - 1) + _place(lengths, measure.tokens)

    def numbers(values: Sequence[Any]) -> list[int]:
        texts = [clean(value) if value else "" for value in values]
        measures = iter(tokenizer.measure([text for text in texts if text]))
        return [number(next(measures)) if text else unknown for text in texts]

    return numbers


def _place(edges: Sequence[float], value: float) -> int:
    """The range between two edges that holds a value; the outer ones also hold what lies beyond them."""
    return bisect_right(edges, value, 1, len(edges) - 1) - 1


def bin_number(field: Field) -> Callable[[Any], int]:
    """A value of the field → the number of its bin; not of a text that is cut by its tokens."""
    bins = field.input_bins
    unknown = len(bins.names) - 1
    if bins.edges:
        edges = bins.edges
        return lambda value: unknown if value is None else _place(edges, value)
    if field.type == "text":
        return lambda value: unknown if not value else 0
    numbers = {value: min(number, unknown - 1) for number, value in enumerate(field.values)} | {None: unknown}
    return numbers.__getitem__
