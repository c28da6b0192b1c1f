"""Read and check a table's labelled rows; what the schema's feature may know of them when they are split."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.cells import CellError
from models.labels import LabelReader
from models.rows import Row, RowError, Rows
from models.schema import Schema
from models.text import Renderer
from training.data.caveats import counted
from training.data.labels import check_classes
from training.data.source import DataError, Faults, Source, open_source, sha256_of_data

LEAST_PER_CLASS = 2
"""Rows of each class without which nothing can be learned and checked: one to learn from, one to check on."""


@dataclass(frozen=True)
class Table:
    """Checked rows.

    ``labels`` (n,) int64 are the numbers of their classes; ``groups`` (n,) int64 has one number for the rows of one
    group, None without groups; ``sha256`` is of the file's bytes. ``unlabelled`` of the file's rows have no label and
    are not among them.
    """

    schema: Schema
    rows: tuple[Row, ...]
    labels: np.ndarray
    sha256: str
    groups: np.ndarray | None = None
    unlabelled: int = 0

    @property
    def note(self) -> str:
        """A clause about rows that were left out, "" where none was."""
        if not self.unlabelled:
            return ""
        return f"{counted(self.unlabelled, 'row')} without a label {'is' if self.unlabelled == 1 else 'are'} left out"

    def __len__(self) -> int:
        return len(self.rows)


def read_table(path: Path, schema: Schema, separator: str | None = None, *, fitting: bool = True) -> Table:
    """Read labelled rows, a CSV's or a Parquet file's, with columns in any order.

    For ``fitting``, each field has its column and each class two rows; otherwise optional columns, the group's and
    classes may be absent, but for two classes. Rows without a label are left out. Raises DataError listing the first
    faults by line.
    """
    sha256 = sha256_of_data(path)
    rows, labels, groups = list[Row](), list[int](), list[str]()
    unlabelled = 0
    with open_source(path, separator) as source:
        made, label_of, faults = Rows(schema), LabelReader(schema.label), Faults(path, source.unit)
        columns = _find_fields(path, source, made, fitting)
        label_at = find_column(path, source, schema.label.column)
        group_at = _find_group(path, source, schema, fitting)
        for number, cells, fault in source:
            if fault:
                faults.add(number, fault)
                continue
            label = label_of(cells[label_at])
            if label is None and label_of.is_missing(cells[label_at]):
                unlabelled += 1
                continue
            if label is None:
                faults.add(number, label_of.fault(cells[label_at]))
            try:
                rows.append(made.parse({field: cells[at] for field, at in columns}))
            except CellError as error:
                faults.add(number, str(error))
            labels.append(-1 if label is None else label)
            if group_at is not None:
                groups.append(cells[group_at].strip())
    faults.check()
    numbers = np.array(labels, dtype=np.int64)
    check_classes(path, numbers, schema.classes, LEAST_PER_CLASS if fitting else 0, 2 if fitting else 1)
    return Table(schema, tuple(rows), numbers, sha256, _number_groups(groups) if groups else None, unlabelled)


def _find_fields(path: Path, source: Source, rows: Rows, every: bool) -> list[tuple[str, int]]:
    try:
        columns = rows.find_columns(source.header)
    except RowError as error:
        raise DataError(f"{path}: {error}{separator_hint(source)}") from None
    missing = [field.in_table for field in rows.schema.fields if field.name not in columns] if every else []
    if missing:
        there = ", ".join(source.header)
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; it has {there:.500}{separator_hint(source)}")
    return list(columns.items())


def _find_group(path: Path, source: Source, schema: Schema, fitting: bool) -> int | None:
    """The group's column; what is only scored may come without, as an export of outcomes does."""
    if schema.group is None or (not fitting and schema.group.casefold() not in map(str.casefold, source.header)):
        return None
    return find_column(path, source, schema.group)


def find_column(path: Path, source: Source, name: str) -> int:
    """The position of a column, by its name in any case. Raises DataError."""
    wanted = [at for at, each in enumerate(source.header) if each.casefold() == name.strip().casefold()]
    if not wanted:
        there = ", ".join(source.header)
        raise DataError(f"{path} has no column {name}; it has {there:.500}{separator_hint(source)}")
    return wanted[0]


def separator_hint(source: Source) -> str:
    """What else to try where a header seems to be one name."""
    return "" if len(source.header) > 1 or source.separator is None else " (--separator names what separates cells)"


def _number_groups(groups: Sequence[str]) -> np.ndarray:
    """Groups as numbers (n,) int64, from 0 on in the order they come; rows whose group is unknown are one each."""
    numbers: dict[str, int] = {}
    return np.array(
        [numbers.setdefault(group or f"\0{at}", len(numbers)) for at, group in enumerate(groups)], dtype=np.int64
    )


def fold_known(
    renderer: Renderer, rows: Sequence[Row], labels: np.ndarray, folds: np.ndarray, known: bool = True
) -> tuple[Any, ...]:
    """For each fold 0, 1, … of folds (n,), what the schema's feature may know: the rows outside it, or nothing."""
    feature = renderer.feature
    if feature is None or not known:
        return (None,) * (int(folds.max()) + 1)
    return tuple(
        feature.learn([rows[at] for at in outside], labels[outside])
        for outside in (np.flatnonzero(folds != fold).tolist() for fold in range(int(folds.max()) + 1))
    )


def render_texts(renderer: Renderer, rows: Sequence[Row], known: Sequence[Any]) -> list[list[str]]:
    """The texts of all rows, once for each model: ``known`` is what the feature may know for each.

    Without a feature all models read the same texts, which are one list.
    """
    if renderer.feature is None:
        return [[renderer(row) for row in rows]] * len(known)
    return [[renderer(row, each) for row in rows] for each in known]
