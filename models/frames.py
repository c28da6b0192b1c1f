"""Data frames of a table's rows."""

from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd

from models.cells import CellError
from models.rows import Row, RowError, Rows


def read_frame(frame: pd.DataFrame, rows: Rows) -> list[Row]:
    """The rows of a frame, in order.

    Columns are found by the fields' or the table's names, in any case; others are not looked at, and optional ones may
    be absent. NaN, NA, NaT, None and blank text are unknown, and a whole number is that in any type, as pandas makes
    floats of integers beside missing ones. Raises RowError, whose row is the position in the frame and not its index.
    """
    cells = {name: _cells(frame.iloc[:, place]) for name, place in rows.find_columns(list(frame.columns)).items()}
    return [
        _row(rows, number, dict(zip(cells, values, strict=True)))
        for number, values in enumerate(zip(*cells.values(), strict=True))
    ]


def _row(rows: Rows, number: int, values: dict[str, Any]) -> Row:
    try:
        return rows.convert(values)
    except CellError as error:
        raise RowError(f"row {number}: {error}") from None


def _cells(column: "pd.Series[Any]") -> list[Any]:
    known = column.notna().tolist()
    values = [_plain(value) for value in column.tolist()]
    return [value if is_known else None for value, is_known in zip(values, known, strict=True)]


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's; a date as its ISO text, which text columns take."""
    value = value.item() if isinstance(value, np.generic) else value
    return value.isoformat() if isinstance(value, date) else float(value) if isinstance(value, Decimal) else value
