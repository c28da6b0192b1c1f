"""Which rows are looked at apart: groups by each field of a schema, and by the words that its feature derives."""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from models.bins.input_bins import KNOWN, OTHER, UNKNOWN
from models.features.registry import find_feature
from models.reference import level_name
from models.rows import Row
from models.schema import Field, Schema

MIN_GROUP_ROWS = 20
"""Of fewer rows a mean says too little to be printed."""
MAX_GROUPS, MAX_LEVELS, MAX_RANGES = 30, 8, 4
"""Groups in all, of a category, of a number: what a page can show, and a test of all of them can bear."""
NONE = "none"
"""The group of rows for which the feature derives no such word."""

Members = dict[tuple[str, str], np.ndarray]
"""(attribute, group) → row numbers."""


def members(rows: Sequence[Row], schema: Schema, known: Sequence[Any]) -> Members:
    """The rows of each group, attribute by attribute in the schema's order, the feature's words last.

    A category has its levels, a boolean its two, a number up to `MAX_RANGES` ranges of its bins; a text has none.
    ``known`` is what the feature may know for each row. Groups of less than `MIN_GROUP_ROWS` rows are left out,
    those of the same rows as one before ("no internet service" of each service), and whole attributes where
    `MAX_GROUPS` are reached: who describes a table puts first what matters.
    """
    groups: Members = {}
    there: set[bytes] = set()
    for attribute, names, group_of_row in _attributes(rows, schema, known):
        numbers = np.array(group_of_row, np.int64)
        counts = np.bincount(numbers, minlength=len(names))
        kept = {
            (attribute, names[number]): np.flatnonzero(numbers == number)
            for number, count in enumerate(counts) if MIN_GROUP_ROWS <= count < len(rows)
        }  # fmt: skip
        new = {key: places for key, places in kept.items() if places.tobytes() not in there}
        if len(groups) + len(new) <= MAX_GROUPS:
            groups |= new
            there |= {places.tobytes() for places in new.values()}
    return groups


def group_title(attribute: str, group: str) -> str:
    """A group as it stands alone: sex: female, age: 13 to 25, women and children died."""
    attribute = attribute.replace("_", " ")
    return group if f"{group} ".startswith(f"{attribute} ") else f"{attribute}: {group}"


def _attributes(
    rows: Sequence[Row], schema: Schema, known: Sequence[Any]
) -> Iterator[tuple[str, Sequence[str], list[int]]]:
    """Each attribute's name, its groups and the number of each row's group."""
    for field in schema.fields:
        if field.type != "text":
            names, number_of = _groups(field)
            values = (getattr(row, field.name) for row in rows)
            yield field.name, (*names, UNKNOWN), [len(names) if v is None else number_of(v) for v in values]
    feature = find_feature(schema)
    if feature is None:
        return
    derived = [feature.derive(row, each) for row, each in zip(rows, known, strict=True)]
    for attribute, words in feature.derived.items():
        numbers = {word: number for number, word in enumerate(words)}
        yield attribute, (*words, NONE), [numbers.get(each[attribute] or NONE, len(words)) for each in derived]


def _groups(field: Field) -> tuple[tuple[str, ...], Callable[[Any], int]]:
    """A field's groups, and the number of a value's."""
    if field.bins:
        edges = number_edges(field)
        names = _range_names(field, edges)
        return names, lambda value: bisect_right(edges, value)
    levels = field.values
    words = field.words if isinstance(field.words, dict) else {}
    names = tuple(words.get(level_name(level), level_name(level)) for level in levels)
    if len(names) > MAX_LEVELS:
        names = (*names[: MAX_LEVELS - 1], OTHER)
    numbers = {level: min(number, len(names) - 1) for number, level in enumerate(levels)}
    return names, numbers.__getitem__


def number_edges(field: Field) -> tuple[float, ...]:
    """Where a number is cut into at most `MAX_RANGES` ranges: some of its bins' inner edges, evenly taken."""
    last = len(field.bins) - 1
    places = np.linspace(0, last, min(last, MAX_RANGES) + 1).round().astype(int)[1:-1]
    return tuple(field.bins[place] for place in places)


def _range_names(field: Field, edges: tuple[float, ...]) -> tuple[str, ...]:
    """under 13, 13 to 25, 25 and over; of whole numbers 0, 1, 2 to 3, 4 and over."""
    if not edges:
        return (KNOWN,)
    whole = field.type == "integer"

    def span(low: float, high: float) -> str:
        return f"{low:g} to {high:g}" if not whole else f"{low:g}" if high - low == 1 else f"{low:g} to {high - 1:g}"

    first = f"under {edges[0]:g}"
    if whole and field.minimum is not None and edges[0] - field.minimum == 1:
        first = f"{field.minimum:g}"
    return (first, *(span(low, high) for low, high in pairwise(edges)), f"{edges[-1]:g} and over")
