"""What a field is, worked out from its column: type, levels, bounds, bins, words."""

import math
import sys
from collections import Counter
from typing import Any

import numpy as np

from models.cells import TRUTH
from models.labels import canonical, truth_of
from models.schema import MAX_LEVELS, MAX_TEXT
from training.data.kinds import NUMBERS, Kind
from training.data.profile import ColumnProfile, TableProfile
from training.data.wording import ATOM, cut_points, words_of

MAX_CATEGORY, MAX_WIDE_CATEGORY = 50, 200
"""Different texts that make a category, and those that do where each is there `REPEATED` times on average."""
REPEATED = 10
BINS = 8
SMALLEST_SPAN, LARGEST_SPAN = 1e-300, 1e300
"""Between them numbers can be given room without leaving floating point."""
MAX_SINGLE_BINS = 10
"""Up to so many whole numbers have a bin each."""


def infer_type(column: ColumnProfile) -> str:
    """The type that fits all known cells of a column: number, integer, boolean, category or text."""
    levels = column.levels()
    if levels and {truth_of(level) for level in levels} == {False, True}:
        return "boolean"
    if column.only(*NUMBERS):
        return "integer" if column.only(Kind.INTEGER) else "number"
    if levels and _repeats(column.known, len(levels)):
        return "category"
    return "text"


def _repeats(cells: int, levels: int) -> bool:
    if levels <= MAX_CATEGORY:
        return 2 * levels <= cells or levels == 1
    return levels <= MAX_WIDE_CATEGORY and REPEATED * levels <= cells


def complete_field(profile: TableProfile, column: ColumnProfile, given: dict[str, Any]) -> dict[str, Any]:
    """A field with what is left out of it worked out from its column."""
    field = {"name": given.get("name"), "column": column.name, "type": infer_type(column), **given}
    kind = field["type"]
    if kind == "category" and "levels" not in field:
        field["levels"] = category_levels(column)
    elif kind == "boolean" and "levels" not in field:
        field |= {"levels": spelled} if (spelled := boolean_levels(column)) else {}
    elif kind in ("number", "integer"):
        _complete_number(profile, column, field)
    elif kind == "text" and "max_length" not in field and 2 * column.longest <= MAX_TEXT:
        field["max_length"] = roomy_length(column.longest)
    if kind in ("boolean", "number", "integer") and "words" not in field:
        words = words_of(field, profile.numbers(column))
        field |= {"words": words} if words else {}
    return field


def _complete_number(profile: TableProfile, column: ColumnProfile, field: dict[str, Any]) -> None:
    numbers = profile.numbers(column)
    numbers = numbers[np.isfinite(numbers)]
    if len(numbers):
        low, high = roomy_bounds(column.minimum, column.maximum)
        if "minimum" not in field and _is_below(low, field.get("maximum")):
            field["minimum"] = low
        if "maximum" not in field and _is_below(field.get("minimum"), high):
            field["maximum"] = high
    if "bins" not in field:
        field["bins"] = bin_edges(numbers, field["type"] == "integer")


def _is_below(low: Any, high: Any) -> bool:
    """Whether a given bound leaves room for the other; one that is no number is refused later, by its line."""
    return not (isinstance(low, int | float) and isinstance(high, int | float)) or low < high


def category_levels(column: ColumnProfile) -> list[str] | list[int]:
    """A category's values, the most frequent first: metrics name the first ones. Whole numbers where all are."""
    levels = column.levels() or Counter[str]()
    whole: Counter[int] = Counter()
    if levels and column.only(Kind.INTEGER):
        for level, count in levels.items():
            whole[int(float(level))] += count
        return sorted(whole)[:MAX_LEVELS]
    return [level for level, _ in sorted(levels.items(), key=lambda item: (-item[1], item[0]))]


def boolean_levels(column: ColumnProfile) -> list[str]:
    """The two spellings of a boolean whose values are no words of truth; empty where they are or are not two."""
    spellings = sorted({canonical(level) for level in column.levels() or ()})
    return spellings if len(spellings) == 2 and not all(each in TRUTH for each in spellings) else []


def roomy_bounds(low: float, high: float) -> tuple[float, float]:
    """Bounds with the numbers' whole range as room on both sides, round ones; what is never negative stays so."""
    span = high - low or abs(high) or 1.0
    if not SMALLEST_SPAN < span < LARGEST_SPAN:
        limit = sys.float_info.max if span > 1 else 1.0
        return -limit if low < 0 else 0.0, limit
    step = 10.0 ** math.floor(math.log10(span))
    floor, ceiling = math.floor((low - span) / step) * step, math.ceil((high + span) / step) * step
    return _short(max(floor, 0.0) if low >= 0 else floor), _short(ceiling)


def _short(number: float) -> float:
    return float(f"{number:.12g}")


def roomy_length(longest: int) -> int:
    """A text's greatest length: twice the longest, to one digit."""
    step: int = 10 ** max(1, len(str(2 * longest)) - 1)
    return min(MAX_TEXT, math.ceil(2 * longest / step) * step) or step


def bin_edges(numbers: np.ndarray, whole: bool) -> list[float]:
    """Edges of the drift counters' bins for numbers (n,): a few whole numbers one each, else quantiles."""
    distinct = np.unique(numbers)
    if not len(distinct):
        return [0, 1]
    if whole and len(distinct) <= MAX_SINGLE_BINS:
        return [*map(float, distinct), float(distinct[-1]) + 1]
    low, high = float(distinct[0]), float(distinct[-1])
    if low == high:
        return [low, low + 1]
    edges = set(cut_points(numbers, BINS))
    if (numbers == low).mean() >= ATOM:
        edges.add(float(distinct[1]))
    outer = {low, high}
    return sorted({edge for edge in edges if low < edge < high} | outer)
