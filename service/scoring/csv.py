"""A CSV of any length → the same rows with their predictions, in constant memory."""

import csv
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import TextIO

from models.passenger import Passenger

from models.files import AtomicFile
from models.predictor import Predictor
from service.scoring.columns import (
    ADDED,
    CHUNK_ROWS,
    PredictionCells,
    commit,
    input_columns,
    read_passenger,
)


def score_csv(
    source: Path, destination: Path, rejects: Path, predictor: Predictor,
    show: Callable[[int, int], None] = lambda rows, done_bytes: None,
) -> tuple[int, int]:  # fmt: skip
    """Write ``source``'s rows and the columns `ADDED` to ``destination``; returns rows scored and rejected.

    A row that is no passenger goes to ``rejects`` with its line and the reason. Both files appear whole, at the end.
    ``show`` is called with rows and bytes done. Raises ScoreError, OSError, and PredictionError when the model gives no
    number.
    """
    with ExitStack() as stack:
        file = stack.enter_context(source.open("rb"))
        text = io.TextIOWrapper(file, newline="", encoding="utf-8-sig", errors="surrogateescape")
        rows = _rows(stack.enter_context(text))
        _, header = next(rows, (0, []))
        fields = input_columns(header)
        output, faults = (stack.enter_context(AtomicFile(path)) for path in (destination, rejects))
        out, bad = csv.writer(output.file, lineterminator="\n"), csv.writer(faults.file, lineterminator="\n")
        out.writerow([*header, *ADDED])
        bad.writerow(["line", "reason"])
        predictions = PredictionCells(predictor)
        scored = rejected = 0
        chunk = None
        while chunk is None or len(chunk) == CHUNK_ROWS:
            chunk = list(islice(rows, CHUNK_ROWS))
            passengers = [_passenger(cells, len(header), fields) for _, cells in chunk]
            added = iter(predictions.of([one for one in passengers if isinstance(one, Passenger)]))
            for (line, cells), passenger in zip(chunk, passengers, strict=True):
                if isinstance(passenger, Passenger):
                    out.writerow([*cells, *next(added)])
                    scored += 1
                else:
                    bad.writerow([line, passenger])
                    rejected += 1
            show(scored + rejected, file.tell())
        commit(output, faults, rejected)
    return scored, rejected


def _rows(file: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Line number and cells of each row that is not empty; a row that the csv module refuses comes as one cell."""
    reader = csv.reader(file)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            row = [""]
        if row:
            yield reader.line_num, row


def _passenger(cells: list[str], columns: int, fields: dict[str, int]) -> Passenger | str:
    """The passenger of a row, or the reason why it is none."""
    if len(cells) != columns:
        return f"has {len(cells)} cells, the header has {columns}"
    try:
        "".join(cells).encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    return read_passenger({field: cells[place] for field, place in fields.items()})
