"""How a described field is said: the words of its values, and the phrases that a row is put into.

Each value is a word or two in the place of its field, and names are not said: as good as "name value" in a third of the
tokens (docs/decisions/rendering.md). A guess for a field that nobody has put words to; a description may hold better
ones.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from models.text import digits

LOW_TO_HIGH = ("lowest", "lower", "low", "middle", "high", "higher", "highest")
"""Each is one token of BERT's vocabularies."""
PLACES = {"between": " ", "unknown": "unknown"}
"""What keeps each field in its place of the text: a blank from one to the next, and a word for what is unknown."""
MAX_SAID_NUMBERS = 10
"""Up to so many different numbers are said in digits, more as words for ranges."""
ATOM = 0.2
"""A lowest value with this share of the rows has a word of its own: nothing owed is not little owed."""
MAX_SHIFT = 0.01
"""Share of the rows that may be on the other side of a range's end for the sake of a round number."""
YES_NO = {"false": "no", "true": "yes"}


def words_of(field: Mapping[str, Any], numbers: np.ndarray) -> list[dict[str, Any]] | dict[str, str]:
    """The words of a field's values; ``numbers`` (n,) float64 are those of a number's rows, NaN unknown."""
    if field["type"] == "boolean":
        return YES_NO
    if field["type"] not in ("number", "integer"):
        return {}
    known = numbers[np.isfinite(numbers)]
    return range_words(known) if len(np.unique(known)) > MAX_SAID_NUMBERS else []


def range_words(numbers: np.ndarray) -> list[dict[str, Any]]:
    """Words for ranges between the quantiles of numbers (n,), lowest range first; the last has no end."""
    lowest = numbers.min()
    first: list[dict[str, Any]] = []
    if (numbers == lowest).mean() >= ATOM:
        rest = numbers[numbers > lowest]
        first, numbers = [{"below": float(rest.min()), "word": said(float(lowest))}], rest
    ends = cut_points(numbers, len(LOW_TO_HIGH))
    shares = [0.0, *(float((numbers < end).mean()) for end in ends), 1.0]
    words = _words_between([(low + high) / 2 for low, high in pairwise(shares)])
    ranges = [{"below": end, "word": word} for end, word in zip(ends, words, strict=False)]
    return [*first, *ranges, {"word": words[-1]}]


def _words_between(middles: Sequence[float]) -> list[str]:
    """A word for each range by where its middle lies among the rows, in [0, 1]; no word twice."""
    words: list[str] = []
    least = 0
    for number, middle in enumerate(middles):
        most = len(LOW_TO_HIGH) - (len(middles) - number)
        place = min(max(int(middle * len(LOW_TO_HIGH)), least), most)
        words.append(LOW_TO_HIGH[place])
        least = place + 1
    return words


def cut_points(numbers: np.ndarray, ranges: int) -> list[float]:
    """Ends between ranges that hold about equally many of the numbers (n,), rising, above the lowest number."""
    ordered = np.sort(numbers)
    quantiles = np.unique(np.quantile(ordered, np.arange(1, ranges) / ranges, method="higher"))
    return sorted({short_cut(ordered, float(each)) for each in quantiles if each > ordered[0]})


def short_cut(ordered: np.ndarray, cut: float) -> float:
    """The number of the fewest digits that cuts ordered numbers (n,) almost where ``cut`` does."""
    place, slack = np.searchsorted(ordered, cut), len(ordered) * MAX_SHIFT
    for count in range(1, 17):
        short = float(f"{cut:.{count}g}")
        if ordered[0] < short <= ordered[-1] and abs(int(np.searchsorted(ordered, short)) - place) <= slack:
            return short
    return cut


def said(number: float) -> str:
    """A number as it is said alone: zero is a word."""
    return "zero" if number == 0 else digits(number)


def phrase(field: Mapping[str, Any]) -> str:
    """The phrase that says one field: its words alone."""
    return f"{{{field['name']}}}"


def phrases(fields: Sequence[Mapping[str, Any]]) -> list[str]:
    """The phrases of a row, short ones first: a long text is cut where it ends."""
    texts = [field for field in fields if field["type"] == "text"]
    return [phrase(field) for field in fields if field["type"] != "text"] + [phrase(field) for field in texts]
