"""Data frames of passengers."""

from typing import Any

import numpy as np
import pandas as pd

from models.passenger import Passenger, check_passengers, find_columns


def read_frame(frame: pd.DataFrame) -> list[Passenger]:
    """The rows of a frame as passengers, in order.

    Columns are found by the fields' or the Titanic files' names, in any case; others are not looked at, and optional
    ones may be absent. NaN, NA, NaT, None and blank text are unknown, and whole numbers may be floats, as pandas makes
    them beside missing ones. Raises PassengerError, whose row is the position in the frame and not its index.
    """
    cells = {field: _cells(frame.iloc[:, place]) for field, place in find_columns(list(frame.columns)).items()}
    rows = (dict(zip(cells, row, strict=True)) for row in zip(*cells.values(), strict=True))
    return check_passengers(rows)


def _cells(column: "pd.Series[Any]") -> list[Any]:
    known = column.notna().tolist()
    return [_plain(value) if is_known else None for value, is_known in zip(column.tolist(), known, strict=True)]


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    if isinstance(value, str):
        return value.strip() or None
    return int(value) if isinstance(value, float) and value.is_integer() else value
