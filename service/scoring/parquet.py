"""A Parquet file: its rows, types kept, with the columns of their predictions."""

import csv
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import date, time
from decimal import Decimal
from pathlib import Path
from typing import Any

from models.files import AtomicFile
from models.predictor import Predictor
from models.rows import Row
from service.scoring.columns import (
    ADDED,
    CHUNK_ROWS,
    OF_POSITIVE,
    Cells,
    Columns,
    PredictionCells,
    Refused,
    ScoreError,
    commit,
)

TEXT = ("string", str)
ADDED_TYPES: dict[str, tuple[str, Callable[[str], Any]]] = {
    name: ("double", float) if name in (*OF_POSITIVE, "typicality") else TEXT for name in ADDED
}
"""Column of `columns.ADDED` → its type in Arrow, and how its cell is read."""


def added_types(classes: Sequence[str], *, decided: bool = False) -> list[tuple[str, Callable[[str], Any]]]:
    """Of `columns.added_columns`, in order."""
    types = list(ADDED_TYPES.values())
    each = types[1:4] * (1 if len(classes) == 2 else len(classes))
    return [types[0], *each, *types[4:], *([TEXT] if decided else [])]


def score_parquet(source: Path, destination: Path, rejects: Path, predictor: Predictor) -> tuple[int, int]:
    """Write ``source``'s rows and the columns `columns.ADDED` to ``destination``; returns rows scored and rejected.

    A row that the schema refuses goes to ``rejects``, a CSV, with its number from 1 on and the reason. Both files
    appear whole, at the end. Raises ScoreError, OSError, PredictionError.
    """
    import pyarrow

    try:
        return _score(source, destination, rejects, predictor)
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise ScoreError(f"it cannot be read as Parquet: {str(error).splitlines()[0]}") from error


def _score(source: Path, destination: Path, rejects: Path, predictor: Predictor) -> tuple[int, int]:
    from pyarrow import parquet

    with ExitStack() as stack:
        table = stack.enter_context(parquet.ParquetFile(source))
        columns = Columns(table.schema_arrow.names, predictor)
        output = stack.enter_context(AtomicFile(destination, binary=True))
        faults = stack.enter_context(AtomicFile(rejects))
        bad = csv.writer(faults.file, lineterminator="\n")
        bad.writerow(["row", "reason"])
        predictions, scored, rejected = PredictionCells(predictor), 0, 0
        schema = predictor.bundle.schema
        types = added_types(schema.classes, decided=schema.costs is not None)
        with parquet.ParquetWriter(output.file, _schema_with_added(table.schema_arrow, columns.added, types)) as out:
            for batch in table.iter_batches(CHUNK_ROWS):
                rows = _rows(batch, columns)
                good = [not isinstance(row, Refused) for row in rows]
                cells = predictions.of([row for row in rows if not isinstance(row, Refused)])
                out.write_batch(_with_cells(batch, good, cells, types, out.schema))
                first = scored + rejected + 1
                bad.writerows((at, reason) for at, reason in enumerate(rows, first) if isinstance(reason, Refused))
                scored, rejected = scored + len(cells), rejected + len(rows) - len(cells)
        commit(output, faults, rejected)
    return scored, rejected


def _schema_with_added(schema: Any, names: Sequence[str], types: Sequence[tuple[str, Any]]) -> Any:
    import pyarrow

    for name, (kind, _) in zip(names, types, strict=True):
        schema = schema.append(pyarrow.field(name, pyarrow.type_for_alias(kind)))
    return schema


def _rows(batch: Any, columns: Columns) -> list[Row | Refused]:
    """Each row of the schema, or why it is none."""
    values = [[_plain(value) for value in batch.column(place).to_pylist()] for place in columns.places]
    return [columns.convert(row) for row in zip(*values, strict=True)]


def _plain(value: Any) -> Any:
    """A decimal number as a float, a date or time as its ISO text, which text columns take."""
    return (
        value.isoformat() if isinstance(value, date | time) else float(value) if isinstance(value, Decimal) else value
    )


def _with_cells(
    batch: Any, good: list[bool], cells: list[Cells], types: Sequence[tuple[str, Callable[[str], Any]]], schema: Any
) -> Any:
    import pyarrow

    kept = batch.filter(pyarrow.array(good, pyarrow.bool_()))
    by_column = list(zip(*cells, strict=True)) or [()] * len(types)
    added = [
        pyarrow.array([read(cell) for cell in column], pyarrow.type_for_alias(kind))
        for column, (kind, read) in zip(by_column, types, strict=True)
    ]
    return pyarrow.record_batch([*kept.columns, *added], schema=schema)
