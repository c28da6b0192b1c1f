"""What looks wrong with a column: said in its description, and reason to leave some out."""

import re
from collections import Counter, defaultdict
from typing import NamedTuple

import numpy as np

from models.cells import shorten
from training.data.identifiers import identifier
from training.data.inference import infer_type
from training.data.kinds import NUMBERS, Kind
from training.data.leakage import GIVEAWAY_AUC, auc_alone
from training.data.profile import ColumnProfile, TableProfile

NEARLY_ALL, MOSTLY, HALF = 0.99, 0.95, 0.5
LEAST_ROWS = 20
"""Rows below which a value in each is nothing to wonder at."""
SHARED_VALUES = 50
"""Different values from which a column named as an id is one."""
NAMED_ID = re.compile(r"(^|_)(id|ids|uuid|guid|key|number|num|nr|no|code|index|idx)(_str)?$|^id_")
NAMED_SHARED_ID = re.compile(r"(^|_)(id|ids|uuid|guid)(_str)?$|^id_")


class Caveat(NamedTuple):
    """A sentence about a column; whether that leaves it out, and whether its cells must be rewritten to be used."""

    sentence: str
    leaves_out: bool = False
    unreadable: bool = False


def column_caveats(
    profile: TableProfile, column: ColumnProfile, labels: np.ndarray, rng: np.random.Generator
) -> list[Caveat]:
    """What is to be said of a column, the reason to leave it out first.

    ``labels`` (rows of the sample,) are the sample's classes, −1 unknown.
    """
    if reason := _no_information(profile, column) or _marked(column) or _id(profile, column) or _dates(column):
        return [reason]
    found = [_giveaway(profile, column, labels, rng), _mixed(column), _alike(column), _nearly_constant(column)]
    found += [_value_per_row(profile, column), _free_text(column), _unknown(profile, column)]
    return [caveat for caveat in found if caveat]


def _no_information(profile: TableProfile, column: ColumnProfile) -> Caveat | None:
    if not column.known:
        return Caveat("has no value in any row", leaves_out=True)
    levels = column.levels()
    if levels and len(levels) == 1 and column.known == profile.rows:
        return Caveat(f"is {_show(next(iter(levels)))} in every row", leaves_out=True)
    return None


def _id(profile: TableProfile, column: ColumnProfile) -> Caveat | None:
    name = identifier(column.name, column.place)
    if _unique(profile, column) and column.known >= LEAST_ROWS:
        counted = column.only(Kind.INTEGER) and column.maximum - column.minimum + 1 == column.known
        coded = not (column.kinds[Kind.NUMBER] or column.only(Kind.INTEGER) or column.with_blanks)
        named = bool(NAMED_ID.search(name)) and not column.kinds[Kind.NUMBER]
        if (counted or coded or named) and not column.only(Kind.DATE):
            return Caveat("has a value of its own in each row, as an id has: nothing to learn from", leaves_out=True)
    elif NAMED_SHARED_ID.search(name) and not column.kinds[Kind.NUMBER]:
        different = len(set(filter(None, profile.cells(column))))
        if different > SHARED_VALUES:
            what = f"is an id by its name, {different:,} different ones in {len(profile.sample):,} rows"
            how = f'; group = "{column.name}" would keep the rows of one in one fold'
            return Caveat(what + how * (column.known > HALF * profile.rows), leaves_out=True)
    return None


def _unique(profile: TableProfile, column: ColumnProfile) -> bool:
    cells = list(filter(None, profile.cells(column)))
    return column.known == profile.rows and len(set(cells)) == len(cells)


def _dates(column: ColumnProfile) -> Caveat | None:
    if column.kinds[Kind.DATE] < MOSTLY * column.known:
        return None
    why = "later rows have others; a number made of it, as an age in days, can be learned from"
    return Caveat(f"holds dates ({_examples(column, Kind.DATE)}): {why}", leaves_out=True)


def _marked(column: ColumnProfile) -> Caveat | None:
    if not column.kinds[Kind.MARKED] or not column.only(*NUMBERS, Kind.MARKED):
        return None
    how = "write digits alone, with a point before decimals, as 1234.5"
    return Caveat(f"holds numbers with other signs ({_examples(column, Kind.MARKED)}): {how}", True, unreadable=True)


def _giveaway(
    profile: TableProfile, column: ColumnProfile, labels: np.ndarray, rng: np.random.Generator
) -> Caveat | None:
    known = labels >= 0
    texts = [text for text, is_known in zip(profile.cells(column), known, strict=True) if is_known]
    found = auc_alone(texts, profile.numbers(column)[known], labels[known], rng)
    if found <= GIVEAWAY_AUC:
        return None
    why = "it was most likely written after the outcome was known"
    return Caveat(f"gives the label away (area under the ROC curve {found:.4f} alone): {why}", leaves_out=True)


def _mixed(column: ColumnProfile) -> Caveat | None:
    numbers = sum(column.kinds[kind] for kind in NUMBERS)
    odd = {kind: count for kind, count in column.kinds.items() if kind not in NUMBERS}
    if not odd or numbers < HALF * column.known:
        return None
    if set(odd) == {Kind.CODE}:
        return Caveat(f"holds digits that are no number ({_examples(column, Kind.CODE)}): taken as texts")
    shown = ", ".join(_examples(column, kind) for kind in odd)
    cells = f"{sum(odd.values()):,} of {column.known:,} cells are no numbers ({shown})"
    return Caveat(f"{cells}: taken as texts; correct or empty them and describe again to have numbers")


def _alike(column: ColumnProfile) -> Caveat | None:
    levels, groups = column.levels(), defaultdict[str, list[str]](list)
    if levels is None or infer_type(column) != "category":
        return None
    for level in levels:
        groups["".join(level.casefold().split())].append(level)
    alike = [" and ".join(map(_show, group)) for group in groups.values() if len(group) > 1]
    shown = "; ".join(alike[:3])
    return Caveat(f"has values that differ by case or blanks alone: {shown}; make them one") if alike else None


def _nearly_constant(column: ColumnProfile) -> Caveat | None:
    levels = column.levels()
    level, count = (levels or Counter({"": 0})).most_common(1)[0]
    if count < NEARLY_ALL * column.known or count == column.known:
        return None
    return Caveat(f"is {_show(level)} in all but {column.known - count:,} of {column.known:,} rows")


def _value_per_row(profile: TableProfile, column: ColumnProfile) -> Caveat | None:
    if not _unique(profile, column) or column.known < LEAST_ROWS or column.kinds[Kind.NUMBER]:
        return None
    return Caveat("has a value of its own in each row; if it is an id, delete it here and in `text`")


def _free_text(column: ColumnProfile) -> Caveat | None:
    if infer_type(column) != "text":
        return None
    return Caveat(f"is a text of up to {column.longest:,} characters")


def _unknown(profile: TableProfile, column: ColumnProfile) -> Caveat | None:
    unknown = profile.rows - column.known
    if infer_type(column) == "text":
        unknown = column.empty
    return Caveat(f"is unknown in {share(unknown, profile.rows)} of the rows") if unknown else None


def share(part: int, whole: int) -> str:
    """A share in words: 12 %, 0.3 %."""
    percent = 100 * part / whole
    return f"{percent:.0f} %" if percent >= 10 else f"{percent:.2g} %"


def counted(number: int, noun: str) -> str:
    """A number of things: 1 row, 2,000 rows."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _examples(column: ColumnProfile, kind: Kind) -> str:
    return ", ".join(f"{_show(text)} on line {line}" for line, text in column.examples.get(kind, ())[:2])


def _show(text: str) -> str:
    return shorten(repr(text))
