"""Rows to try on the page, made up from what is common in a table: no real row leaves it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from models.cells import CellError, parse_cell
from models.rows import RowError, Rows
from models.schema import Schema
from training.data.kinds import Kind, kind_of
from training.data.profile import TableProfile

MAX_EXAMPLES, MAX_LABEL = 5, 100
A_TEXT = "a text"
"""Stands for texts: a real one may name somebody."""


def made_up_examples(profile: TableProfile, schema: Schema, labels: np.ndarray) -> list[dict[str, Any]]:
    """A row with the medians and the most common values of all rows, and of each class's, equal ones once.

    ``labels`` (rows of the sample,) are numbers of classes, −1 unknown.
    """
    rows, found = Rows(schema), list[dict[str, Any]]()
    groups = {f"typical {schema.row}": np.arange(len(labels))}
    groups |= {f"typical of {name}": np.flatnonzero(labels == number) for number, name in enumerate(schema.classes)}
    for name, places in list(groups.items())[:MAX_EXAMPLES]:
        row = _typical(profile, schema, places)
        if row not in [each["row"] for each in found] and row and _fits(rows, row):
            found.append({"label": name[:MAX_LABEL], "row": row})
    return found


def _fits(rows: Rows, row: dict[str, Any]) -> bool:
    """Whether nothing that is required is missing."""
    try:
        rows.check([row])
    except RowError:
        return False
    return True


def _typical(profile: TableProfile, schema: Schema, rows: np.ndarray) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in schema.fields:
        column = profile.column(field.in_table)
        if column is None:
            continue
        value: float | str | None
        if field.type in ("number", "integer"):
            value = _median(profile.numbers(column)[rows], field.type == "integer")
        elif field.type == "text":
            value = A_TEXT[: field.max_length] if field.required else None
        else:
            cells = profile.cells(column)
            value = _most_common([cells[row] for row in rows.tolist()])
        try:
            value = parse_cell(field, str(value)) if value is not None else None
        except CellError:
            value = None
        if value is not None:
            values[field.name] = value
    return values


def _median(numbers: np.ndarray, whole: bool) -> float | None:
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        return None
    middle = float(np.quantile(known, 0.5, method="lower"))
    return middle if whole else float(f"{middle:.3g}")


def _most_common(cells: Sequence[str]) -> str | None:
    known: Mapping[str, int] = Counter(cell for cell in cells if kind_of(cell) is not Kind.UNKNOWN)
    return max(known, key=lambda cell: known[cell]) if known else None
