"""A Parquet file: its rows, types kept, with the columns of their predictions."""

import csv
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from models.passenger import Passenger

from models.files import AtomicFile
from models.predictor import Predictor
from service.scoring.columns import CHUNK_ROWS, PredictionCells, ScoreError, commit, input_columns, read_passenger

ADDED_TYPES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "probability": ("double", float),
    "survived": ("bool", "true".__eq__),
    "interval_low": ("double", float),
    "interval_high": ("double", float),
    "prediction_set": ("string", str),
    "typicality": ("double", float),
    "warnings": ("string", str),
}
"""Column of `columns.ADDED` → its type in Arrow, and how its cell is read."""


def score_parquet(source: Path, destination: Path, rejects: Path, predictor: Predictor) -> tuple[int, int]:
    """Write ``source``'s rows and the columns `columns.ADDED` to ``destination``; returns rows scored and rejected.

    A row that is no passenger goes to ``rejects``, a CSV, with its number from 1 on and the reason. Both files appear
    whole, at the end. Raises ScoreError, OSError, PredictionError.
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
        fields = input_columns(table.schema_arrow.names)
        output = stack.enter_context(AtomicFile(destination, binary=True))
        faults = stack.enter_context(AtomicFile(rejects))
        bad = csv.writer(faults.file, lineterminator="\n")
        bad.writerow(["row", "reason"])
        predictions, scored, rejected = PredictionCells(predictor), 0, 0
        with parquet.ParquetWriter(output.file, _schema_with_added(table.schema_arrow)) as out:
            for batch in table.iter_batches(CHUNK_ROWS):
                passengers = _passengers(batch, fields)
                good = [isinstance(passenger, Passenger) for passenger in passengers]
                cells = predictions.of([passenger for passenger in passengers if isinstance(passenger, Passenger)])
                out.write_batch(_with_cells(batch, good, cells, out.schema))
                first = scored + rejected + 1
                bad.writerows((row, reason) for row, reason in enumerate(passengers, first) if isinstance(reason, str))
                scored, rejected = scored + len(cells), rejected + len(passengers) - len(cells)
        commit(output, faults, rejected)
    return scored, rejected


def _schema_with_added(schema: Any) -> Any:
    import pyarrow

    for name, (kind, _) in ADDED_TYPES.items():
        schema = schema.append(pyarrow.field(name, pyarrow.type_for_alias(kind)))
    return schema


def _passengers(batch: Any, fields: dict[str, int]) -> list[Passenger | str]:
    """Each row's passenger, or the reason why it is none."""
    columns = [batch.column(place).to_pylist() for place in fields.values()]
    return [read_passenger(dict(zip(fields, map(_cell, row), strict=True))) for row in zip(*columns, strict=True)]


def _cell(value: Any) -> str:
    """A value as a CSV file has it; NaN is unknown, and whole numbers may be floats, as pandas makes them beside it."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _with_cells(batch: Any, good: list[bool], cells: list[tuple[str, ...]], schema: Any) -> Any:
    import pyarrow

    kept = batch.filter(pyarrow.array(good, pyarrow.bool_()))
    by_column = list(zip(*cells, strict=True)) or [()] * len(ADDED_TYPES)
    added = [
        pyarrow.array([read(cell) for cell in column], pyarrow.type_for_alias(kind))
        for column, (kind, read) in zip(by_column, ADDED_TYPES.values(), strict=True)
    ]
    return pyarrow.record_batch([*kept.columns, *added], schema=schema)
