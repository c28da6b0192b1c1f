"""A CSV of any length → the same rows with their predictions, in constant memory."""

import csv
from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from models.csv_table import CsvError, CsvRow, CsvTable
from models.files import AtomicFile
from models.predictor import Predictor
from models.rows import Row
from service.scoring.columns import CHUNK_ROWS, Columns, PredictionCells, Refused, ScoreError, commit


def score_csv(
    source: Path, destination: Path, rejects: Path, predictor: Predictor,
    show: Callable[[int, int], None] = lambda rows, done_bytes: None,
) -> tuple[int, int]:  # fmt: skip
    """Write ``source``'s rows and the columns `ADDED` to ``destination``; returns rows scored and rejected.

    A row that the schema refuses goes to ``rejects`` with its line and the reason. Both files appear whole, at the
    end, the first with the separator of the source. ``show`` is called with rows and bytes done. Raises ScoreError,
    OSError, and PredictionError when the model gives no number.
    """
    with ExitStack() as stack:
        file = stack.enter_context(source.open("rb"))
        try:
            table = CsvTable(file)
        except CsvError as error:
            raise ScoreError(f"{source} cannot be read: {error}") from None
        columns, lines = Columns(table.header, predictor), iter(table)
        output, faults = (stack.enter_context(AtomicFile(path)) for path in (destination, rejects))
        out = csv.writer(output.file, lineterminator="\n", delimiter=table.separator)
        bad = csv.writer(faults.file, lineterminator="\n")
        out.writerow([*table.header, *columns.added])
        bad.writerow(["line", "reason"])
        predictions = PredictionCells(predictor)
        scored = rejected = 0
        chunk = None
        while chunk is None or len(chunk) == CHUNK_ROWS:
            chunk = list(islice(lines, CHUNK_ROWS))
            rows = [_row(line, columns) for line in chunk]
            added = iter(predictions.of([row for row in rows if not isinstance(row, Refused)]))
            for line, row in zip(chunk, rows, strict=True):
                if isinstance(row, Refused):
                    bad.writerow([line.line, row])
                    rejected += 1
                else:
                    out.writerow([*line.cells, *next(added)])
                    scored += 1
            show(scored + rejected, file.tell())
        commit(output, faults, rejected)
    return scored, rejected


def _row(line: CsvRow, columns: Columns) -> Row | Refused:
    return Refused(line.fault) if line.fault else columns.parse(line.cells)
