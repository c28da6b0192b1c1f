"""Logistic regression over the fields: each number by a linear spline, each category by its value, words of free text.

All of it is a sum of terms, weight times coefficient, of the few columns in which a row is not 0, taken row by row: a
row's score is its own whatever its batch. Coefficients are of one column for two classes, of one for each of more.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from math import log, sqrt
from typing import TYPE_CHECKING

import numpy as np
from msgspec import Struct

from models.calibration.logit import MAX_VALUE
from models.second.inputs import RowInputs, RowReader

if TYPE_CHECKING:
    from models.bert.tokenizer import Tokenizer

MAX_TERMS = 50_000
PAIR = 1 << 20
"""A term is a piece's id, or (id + 1) · `PAIR` + the id of the piece behind it."""

Values = tuple[float, ...]
"""One number for two classes, one for each of more."""


class NumberTerm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number's part of the score: ``at_knots`` at its ``knots``, straight lines between, level beyond; ``unknown``
    where it is not known."""

    field: str
    knots: tuple[float, ...]
    at_knots: tuple[Values, ...]
    unknown: Values

    def __post_init__(self) -> None:
        knots = np.array(self.knots)
        if not len(knots) or not np.isfinite(knots).all() or (np.diff(knots) <= 0).any():
            raise ValueError(f"the knots of {self.field} must be finite and rising, at least one")
        if len(self.at_knots) != len(knots):
            raise ValueError(f"at_knots of {self.field} must be {len(knots)}, one for each knot")


class CategoryTerm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A category's part of the score by its value, in the schema's order, the last where it is not known."""

    field: str
    values: tuple[Values, ...]


class LinearModel(Struct, frozen=True, kw_only=True, tag_field="model", tag="linear", forbid_unknown_fields=True):
    """The sum of ``intercept`` and of the terms of all numbers and categories."""

    intercept: Values
    numbers: tuple[NumberTerm, ...]
    categories: tuple[CategoryTerm, ...]

    def check(self, reader: RowReader, columns: int) -> None:
        """Raise ValueError unless it is of the reader's columns, with so many coefficients each, all bounded."""
        if tuple(term.field for term in self.numbers) != reader.numbers:
            raise ValueError("numbers must be the schema's, in order")
        if tuple(term.field for term in self.categories) != reader.categories:
            raise ValueError("categories must be the schema's, in order")
        for term, size in zip(self.categories, reader.sizes, strict=True):
            if len(term.values) != size:
                raise ValueError(f"the values of {term.field} must be {size}, the unknown among them")
        rows = [self.intercept, *(row for number in self.numbers for row in (*number.at_knots, number.unknown))]
        rows += [row for term in self.categories for row in term.values]
        if {len(row) for row in rows} != {columns} or not (np.abs(np.array(rows)) <= MAX_VALUE).all():
            raise ValueError(f"coefficients must be {columns} each, within ±{MAX_VALUE:g}")


class Words(Struct, frozen=True, kw_only=True):
    """Terms of the tokenizer's word pieces and of neighbours among them: ``terms`` (V,) int64 rising, ``rarity`` (V,)
    their inverse document frequencies, ``coefficients`` (V, 1) of two classes or (V, K)."""

    terms: np.ndarray
    rarity: np.ndarray
    coefficients: np.ndarray


class WordsModel(Struct, frozen=True, kw_only=True, tag_field="model", tag="words", forbid_unknown_fields=True):
    """``fields`` and the words of the free text, weighed by 1 + ln of how often each is there times its rarity, the
    weights of a row's known terms of length 1 together. The words are in the file beside."""

    fields: LinearModel


class LinearScorer:
    """Rows' inputs → the score of each, (n, 1) for two classes or (n, K)."""

    def __init__(self, model: LinearModel, words: Words | None = None, tokenizer: "Tokenizer | None" = None):
        table: list[Values] = []
        self._numbers, self._categories = list[tuple[tuple[float, ...], int, int]](), list[int]()
        for term in model.numbers:
            self._numbers.append((term.knots, len(table), len(term.knots) - 2))
            table += [*term.at_knots, term.unknown]
        for category in model.categories:
            self._categories.append(len(table))
            table += category.values
        self._intercept, self._tokenizer, self._first = model.intercept, tokenizer, len(table)
        coefficients = np.array(table, np.float64).reshape(len(table), len(model.intercept))
        self._term_of, self._rarity = dict[int, int](), list[float]()
        if words is not None:
            coefficients = np.concatenate([coefficients, words.coefficients])
            self._term_of = {term: number for number, term in enumerate(words.terms.tolist())}
            self._rarity = words.rarity.tolist()
        self._coefficients = coefficients
        # For a single column Python's own numbers cost less than an array's.
        self._column = coefficients[:, 0].tolist() if coefficients.shape[1] == 1 else None

    def __call__(self, inputs: Sequence[RowInputs]) -> np.ndarray:
        pieces: Sequence[Sequence[int]] = [()] * len(inputs)
        if self._term_of and self._tokenizer is not None:
            pieces = self._tokenizer.token_ids([each.text for each in inputs])
        scores = [self._score(each, ids) for each, ids in zip(inputs, pieces, strict=True)]
        return np.array(scores, np.float64).reshape(len(inputs), len(self._intercept))

    def _score(self, inputs: RowInputs, pieces: Sequence[int]) -> Sequence[float]:
        places, weights = self._terms(inputs)
        if pieces:
            for place, weight in self._words(pieces):
                places.append(place)
                weights.append(weight)
        if self._column is not None:
            column = self._column
            score = self._intercept[0]
            for place, weight in zip(places, weights, strict=True):
                score += weight * column[place]
            return (score,)
        parts = np.array(weights)[:, None] * self._coefficients[np.array(places, np.int64)]
        sums: list[float] = (parts.sum(axis=0) + np.array(self._intercept)).tolist()
        return sums

    def _terms(self, inputs: RowInputs) -> tuple[list[int], list[float]]:
        """The places of a row's columns in the table of coefficients, and their weights."""
        places: list[int] = []
        weights: list[float] = []
        for value, (knots, start, last) in zip(inputs.numbers, self._numbers, strict=True):
            if value is None or value != value:
                places.append(start + last + 2)
                weights.append(1.0)
                continue
            if last < 0 or value <= knots[0]:
                places.append(start)
                weights.append(1.0)
                continue
            at = min(bisect_right(knots, value) - 1, last)
            way = min(1.0, (value - knots[at]) / (knots[at + 1] - knots[at]))
            places += (start + at, start + at + 1)
            weights += (1.0 - way, way)
        for start, category in zip(self._categories, inputs.categories, strict=True):
            places.append(start + category)
            weights.append(1.0)
        return places, weights

    def _words(self, pieces: Sequence[int]) -> list[tuple[int, float]]:
        counts = Counter(number for term in terms_of(pieces) if (number := self._term_of.get(term)) is not None)
        weighed = [(number, (1 + log(count)) * self._rarity[number]) for number, count in counts.items()]
        length = sqrt(sum(weight * weight for _, weight in weighed)) or 1.0
        return [(self._first + number, weight / length) for number, weight in weighed]


def terms_of(pieces: Sequence[int]) -> list[int]:
    """The terms of a text's token ids: each, and each with the next."""
    return [*pieces, *((first + 1) * PAIR + second for first, second in pairwise(pieces))]
