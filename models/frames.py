"""Data frames of passengers."""

from typing import Any

import numpy as np
import pandas as pd

from models.passenger import COLUMNS, Passenger, PassengerError, check_passengers

REQUIRED = ("pclass", "sex")


def read_frame(frame: pd.DataFrame) -> list[Passenger]:
    """The rows of a frame as passengers, in order.

    Columns are found by the fields' or the Titanic files' names, in any case; others are not looked at, and optional
    ones may be absent. NaN, NA, NaT, None and blank text are unknown, and whole numbers may be floats, as pandas makes
    them beside missing ones. Raises PassengerError, whose row is the position in the frame and not its index.
    """
    cells = {field: _cells(frame[column]) for field, column in find_columns(frame).items()}
    rows = (dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True))
    return check_passengers(rows)


def find_columns(frame: pd.DataFrame) -> dict[str, Any]:
    """Field of `Passenger` → the frame's column.

    Raises PassengerError where a required one is missing, or one is there twice.
    """
    found: dict[str, Any] = {}
    for field, name in COLUMNS.items():
        columns = [one for one in frame.columns if str(one).strip().lower() in (field, name.lower())]
        if len(columns) > 1:
            raise PassengerError(f"the column {name} is there {len(columns)} times")
        if columns:
            found[field] = columns[0]
    missing = [COLUMNS[field] for field in REQUIRED if field not in found]
    if missing:
        there = ", ".join(map(str, frame.columns)) or "none"
        raise PassengerError(f"the columns {' and '.join(missing)} are missing; there are: {there}")
    return found


def _cells(column: "pd.Series[Any]") -> list[Any]:
    known = column.notna().tolist()
    return [_plain(value) if held else None for value, held in zip(column.tolist(), known, strict=True)]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        return value.strip() or None
    return int(value) if isinstance(value, float) and value.is_integer() else value
