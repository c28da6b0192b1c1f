"""The classes of a label, worked out from its column."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.cells import shorten
from models.labels import canonical, truth_of
from models.schema import MAX_CLASSES, MAX_LEVELS
from training.data.caveats import counted, share
from training.data.kinds import NUMBERS
from training.data.labels import MIN_PER_CLASS
from training.data.profile import ColumnProfile
from training.data.source import DataError

MAX_NAME, FEW_ROWS = 100, 10
"""Characters of a class's value, and rows of a class below which nothing certain is learned of it."""
MANY_NUMBERS = 20
"""Different numbers from which a rare one shows that they are measured."""


def label_classes(path: Path, column: ColumnProfile) -> tuple[list[dict[str, str]], list[str]]:
    """The classes, of two the rarer one last, and what is to be said of them. Raises DataError."""
    levels = column.levels()
    groups = _group(levels or {})
    if _is_quantity(column, levels, groups):
        many = f"more than {MAX_LEVELS}" if levels is None else f"{len(groups):,}"
        raise DataError(
            f"{path}: the label {column.name} is a number with {many} different values, and to predict a number is "
            "regression, which is not done here: write into a new column which range of it a row is in, and name that"
        )
    if levels is None or len(groups) > MAX_CLASSES:
        many = f"more than {MAX_CLASSES}" if levels is None else f"{len(groups):,}"
        raise DataError(
            f"{path}: the label {column.name} has {many} different values, it may have 2 to {MAX_CLASSES}: name "
            "another column, or write into a new one which group of values a row belongs to"
        )
    if len(groups) < 2:
        only = f"only the value {shorten(repr(next(iter(levels))))}" if levels else "no value at all"
        raise DataError(f"{path}: the label {column.name} has {only}; two classes are needed")
    if longest := next((level for level in levels if len(level) > MAX_NAME), None):
        raise DataError(
            f"{path}: the label {column.name} has the value {shorten(repr(longest))}; a class has a short name"
        )
    sizes = {key: spellings.total() for key, spellings in groups.items()}
    order = sorted(groups, key=lambda key: (-sizes[key] if len(groups) == 2 else 0, _sort_key(key)))
    values = {key: groups[key].most_common(1)[0][0] for key in order}
    names = _names(column.name, list(values.values()))
    classes = [{"value": value, "name": name} for value, name in zip(values.values(), names, strict=True)]
    rows = sum(sizes.values())
    counts = ", ".join(f"{sizes[key]:,} × {values[key]} ({share(sizes[key], rows)})" for key in order)
    return classes, [f"{counts}.", *_notes(column, groups, values)]


def _is_quantity(column: ColumnProfile, levels: Mapping[str, int] | None, groups: Mapping[str, Counter[str]]) -> bool:
    """Whether a column is a measured number and no class: more values than classes can be, or many of them in too few
    rows to be learned."""
    if not column.only(*NUMBERS):
        return False
    if levels is None or len(groups) > MAX_CLASSES:
        return True
    return len(groups) > MANY_NUMBERS and min(map(Counter.total, groups.values())) < MIN_PER_CLASS


def _notes(column: ColumnProfile, groups: Mapping[str, Counter[str]], values: Mapping[str, str]) -> list[str]:
    notes = []
    if len(groups) == 2:
        notes.append(
            "The last class is the positive one, whose probability is answered: the rarer one. To have the other, turn "
            "their order round."
        )
    else:
        notes.append(
            "Their order is that of the page and of all tables: numbers rise, words are by the alphabet, so that "
            "another file of the same kind has the same. Put a scale, as low, middle, high, into its own."
        )
    for key, spellings in groups.items():
        if spellings.total() < FEW_ROWS:
            only = f"Of {values[key]} there are only {counted(spellings.total(), 'row')}"
            refused = f"`fit` refuses fewer than {MIN_PER_CLASS}: add some, or join the class with another in the table"
            notes.append(f"{only}: {refused if spellings.total() < MIN_PER_CLASS else 'too few to learn from'}.")
        others = [shorten(repr(each)) for each in spellings if canonical(each) != canonical(values[key])]
        others += [shorten(repr(each)) for each in spellings if canonical(each) == key and each != values[key]]
        if others:
            notes.append(f"{values[key]} is also spelled {', '.join(others[:3])}: taken as one value.")
    missing = column.empty + column.unknown
    if missing:
        notes.append(f"Without a label: {counted(missing, 'row')}. `fit` leaves them out, and says so.")
    return notes


def _group(levels: Mapping[str, int]) -> dict[str, Counter[str]]:
    """One spelling of each value → how often each spelling is there; words of truth are two values."""
    truths = {truth_of(level) for level in levels}
    merge = len({canonical(level) for level in levels}) > 2 and truths == {False, True}
    groups: dict[str, Counter[str]] = {}
    for level, count in levels.items():
        key = str(truth_of(level)).lower() if merge else canonical(level)
        groups.setdefault(key, Counter())[level] += count
    return groups


def _sort_key(value: str) -> tuple[bool, float, str]:
    truth = truth_of(value)
    try:
        return (False, float(value), value)
    except ValueError:
        return (True, float(bool(truth)), value)


def _names(column: str, values: list[str]) -> list[str]:
    """Names for answers: of yes and no the column's name, with a "not" for the one; else the values."""
    if len(values) == 2 and {truth_of(value) for value in values} == {False, True}:
        name = column[: MAX_NAME - 4]
        return [name if truth_of(value) else f"not {name}" for value in values]
    return values


def question(column: str, classes: list[dict[str, Any]]) -> str:
    """What the page asks of a row."""
    names = [each["name"] for each in classes]
    if len(names) == 2 and column in names:
        return f"{column}?"
    return f"{column}: {', '.join(names[:-1])} or {names[-1]}?" if len(names) <= 5 else f"Which {column}?"
