"""What baselines read of rows: numbers, categories by number, and text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.sparse import csr_matrix, hstack

from models.rows import Row
from models.schema import Schema
from models.second.inputs import RowReader, free_texts
from models.text import Renderer


@dataclass(frozen=True)
class Inputs:
    """``numbers`` (n, N) float64, NaN where unknown; ``categories`` (n, C) int64 from 0 on, of ``sizes`` values each,
    the last of them for what is unknown; ``texts`` (n,) str: what the rows hold of free text, or else the texts that
    the model reads."""

    numbers: np.ndarray
    categories: np.ndarray
    sizes: tuple[int, ...]
    texts: np.ndarray

    @classmethod
    def of(cls, rows: Sequence[Row], schema: Schema, known: Any) -> Self:
        """The inputs of rows; ``known`` is all that the schema's feature may know of labels and of other rows."""
        reader, renderer = RowReader(schema, known), Renderer(schema)
        read = list(map(reader, rows))
        free = bool(free_texts(schema))
        return cls(
            np.array([each.numbers for each in read], np.float64).reshape(len(rows), -1),
            np.array([each.categories for each in read], np.int64).reshape(len(rows), -1),
            reader.sizes,
            np.array(
                [each.text if free else renderer(row, known) for each, row in zip(read, rows, strict=True)], object
            ),
        )

    def __getitem__(self, rows: np.ndarray) -> "Inputs":
        return Inputs(self.numbers[rows], self.categories[rows], self.sizes, self.texts[rows])

    def one_hot(self) -> csr_matrix:
        """A column for each value of each category, (n, Σ sizes)."""
        starts = np.cumsum((0, *self.sizes))
        count, fields = self.categories.shape
        places = (self.categories + starts[:-1]).ravel()
        return csr_matrix((np.ones(count * fields), (np.repeat(np.arange(count), fields), places)), (count, starts[-1]))


class PiecewiseLinear:
    """Numbers (n, N) → for each column its way through the ranges between knots: 0 before a range, 1 behind it.

    A linear model of these columns is a linear spline (Gorishniy, Rubachev & Babenko, 2022, section 3.1). ``knots`` are
    the schema's bins within what the rows reach. An unknown number is at no place, and has a column that says so.
    """

    def __init__(self, numbers: np.ndarray, schema: Schema):
        bins = [field.bins for field in schema.fields if field.type in ("number", "integer")]
        self.knots = [_knots(column[~np.isnan(column)], edges) for column, edges in zip(numbers.T, bins, strict=True)]

    def __call__(self, numbers: np.ndarray) -> np.ndarray:
        columns = [np.zeros((len(numbers), 0))]
        for column, knots in zip(numbers.T, self.knots, strict=True):
            known = ~np.isnan(column)[:, None]
            way = (np.nan_to_num(column)[:, None] - knots[:-1]) / np.diff(knots)
            columns += [np.clip(way, 0, 1) * known, ~known]
        return np.concatenate(columns, axis=1)


def _knots(known: np.ndarray, edges: Sequence[float]) -> np.ndarray:
    if not len(known):
        return np.zeros(1)
    return np.unique(np.clip([*edges], known.min(), known.max()))


def linear_columns(inputs: Inputs, basis: PiecewiseLinear) -> Any:
    """CSR columns for a linear model: splines of the numbers, and each value of each category."""
    return hstack([csr_matrix(basis(inputs.numbers)), inputs.one_hot()], "csr")
