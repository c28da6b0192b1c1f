"""Read and check a CSV of passengers with their outcome; who is known to whom when it is split."""

import hashlib
from collections.abc import Sequence
from typing import Any
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from models.cells import CellError
from models.rows import Row, Rows
from models.schema import Schema
from models.text import Renderer

MAX_FAULTS = 10
"""Faults listed before the rest is only counted: enough to see the pattern."""


class DataError(ValueError):
    """A file that cannot be used; the message names the file, the line, the column and what is accepted."""


@dataclass(frozen=True)
class Table:
    """Checked rows: ``labels`` (n,) int64, the numbers of their classes; ``sha256`` of the file's bytes."""

    schema: Schema
    rows: tuple[Row, ...]
    labels: np.ndarray
    sha256: str

    def __len__(self) -> int:
        return len(self.rows)


def read_table(path: Path, schema: Schema) -> Table:
    """Read labelled passengers from a CSV with the columns of the Titanic files, in any order.

    An empty cell is unknown. Raises DataError listing the first faults: missing columns, values out of
    their bounds, labels other than 0 and 1, fewer than two classes.
    """
    try:
        content = path.read_bytes()
        frame = pd.read_csv(path, dtype=str, keep_default_na=False, skipinitialspace=True)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as CSV: {error}") from error
    rows, faults = [], []
    records: list[dict[str, str]] = frame.to_dict("records")  # type: ignore[assignment]
    made, classes = Rows(schema), {each.value: number for number, each in enumerate(schema.label.classes)}
    columns = {name: frame.columns[at] for name, at in made.find_columns(list(frame.columns)).items()}
    for line, cells in enumerate(records, start=2):
        try:
            rows.append(made.parse({field: cells[column] for field, column in columns.items()}))
        except CellError as error:
            faults.append(f"line {line}: {error}")
        if cells[schema.label.column].strip() not in classes:
            faults.append(f"line {line}: {schema.label.column} is {cells[schema.label.column]!r}")
    if faults:
        more = f"\n  and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        raise DataError(f"{path} has faults:\n  " + "\n  ".join(faults[:MAX_FAULTS]) + more)
    labels = np.array([classes[cells[schema.label.column].strip()] for cells in records])
    return Table(schema, tuple(rows), labels, hashlib.sha256(content).hexdigest())


def fold_known(
    renderer: Renderer, rows: Sequence[Row], labels: np.ndarray, folds: np.ndarray, known: bool = True
) -> tuple[Any, ...]:
    """For each fold 0, 1, … of folds (n,), what the schema's feature may know: the rows outside it, or nothing."""
    feature = renderer.feature
    if feature is None or not known:
        return (None,) * (int(folds.max()) + 1)
    return tuple(
        feature.learn([rows[at] for at in outside], labels[outside])
        for outside in (np.flatnonzero(folds != fold) for fold in range(int(folds.max()) + 1))
    )


def render_texts(renderer: Renderer, rows: Sequence[Row], known: Sequence[Any]) -> list[list[str]]:
    """The texts of all rows, once for each model: ``known`` is what the feature may know for each."""
    return [[renderer(row, each) for row in rows] for each in known]
