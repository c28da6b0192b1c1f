"""Read and check a CSV of passengers with their outcome; who is known to whom when it is split."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from models.features.titanic import Companions
from models.passenger import COLUMNS, LABEL_COLUMN, Passenger, parse_passenger
from models.text import render

MAX_FAULTS = 10
"""Faults listed before the rest is only counted: enough to see the pattern."""


class DataError(ValueError):
    """A file that cannot be used; the message names the file, the line, the column and what is accepted."""


@dataclass(frozen=True)
class Table:
    """Checked rows: ``labels`` (n,) int64, 1 = survived; ``sha256`` of the file's bytes."""

    passengers: tuple[Passenger, ...]
    labels: np.ndarray
    sha256: str

    def __len__(self) -> int:
        return len(self.passengers)


def read_table(path: Path) -> Table:
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
    missing = [column for column in (LABEL_COLUMN, *COLUMNS.values()) if column not in frame.columns]
    if missing:
        raise DataError(f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(frame.columns)}")
    rows, faults = [], []
    records: list[dict[str, str]] = frame.to_dict("records")  # type: ignore[assignment]
    # Line 1 holds the column names. A cell with a line break moves the numbers of the lines after it.
    for line, cells in enumerate(records, start=2):
        try:
            rows.append(parse_passenger({field: cells[column] for field, column in COLUMNS.items()}))
        except msgspec.ValidationError as error:
            faults.append(f"line {line}: {error}")
        if cells[LABEL_COLUMN].strip() not in ("0", "1"):
            faults.append(f"line {line}: {LABEL_COLUMN} is {cells[LABEL_COLUMN]!r}, it must be 0 or 1")
    if faults:
        more = f"\n  and {len(faults) - MAX_FAULTS} more" if len(faults) > MAX_FAULTS else ""
        raise DataError(f"{path} has faults:\n  " + "\n  ".join(faults[:MAX_FAULTS]) + more)
    labels = frame[LABEL_COLUMN].str.strip().astype(np.int64).to_numpy()
    if len(set(labels.tolist())) < 2:
        raise DataError(f"{path} has {len(labels)} rows of fewer than two classes: both outcomes are needed")
    return Table(tuple(rows), labels, hashlib.sha256(content).hexdigest())


def fold_companions(
    passengers: Sequence[Passenger], labels: np.ndarray, folds: np.ndarray, known: bool = True
) -> tuple[Companions, ...]:
    """For each fold 0, 1, … of folds (n,), those whose outcome may be known: the rows outside it, or nobody."""
    return tuple(
        Companions.of((passengers[row] for row in rows), labels[rows].tolist()) if known else Companions()
        for rows in (np.flatnonzero(folds != fold).tolist() for fold in range(int(folds.max()) + 1))
    )


def render_texts(passengers: Sequence[Passenger], companions: Sequence[Companions]) -> list[list[str]]:
    """The texts of all passengers, once for each model: ``companions`` are those that each may know."""
    return [[render(passenger, known) for passenger in passengers] for known in companions]
