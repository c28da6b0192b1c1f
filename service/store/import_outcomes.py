"""python -m service outcomes import: outcomes from a CSV into the store."""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

from models.passenger import LABEL_COLUMN

from models.files import AtomicFile, OverwriteError, refuse_overwriting, rejected_path
from service.store.databases import StoreError, database, path_of
from service.store.export import add_store
from service.store.prediction_log import OutcomeStatus, PredictionLog

VALUES = {"0": False, "1": True, "false": False, "true": True}
COMMIT_ROWS = 1024
"""Outcomes of one commit: the service's own wait no longer than for a request of that size."""
REASONS: dict[OutcomeStatus, str] = {
    "unknown": "no prediction of this id is in the store",
    "conflicting": "the opposite outcome is in the store, and stays",
}


class OutcomesError(Exception):
    """A file that holds no outcomes; the message says what to change."""


class Cell(NamedTuple):
    """An outcome as the file has it; ``reason`` says why it is none."""

    line: int
    id: str
    survived: bool
    reason: str | None = None


def main(arguments: Sequence[str]) -> int:
    """Import a file; 0 every outcome is in the store, 1 failed or some rejected, 2 wrong use."""
    options = _parser().parse_args(arguments)
    try:
        counts = import_outcomes(options.input, options.store)
    except (OutcomesError, StoreError, OverwriteError) as error:
        print(f"outcomes: {error}", file=sys.stderr)
        return 1
    except UnicodeDecodeError:
        print(f"outcomes: {options.input} is not UTF-8", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"outcomes: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("outcomes: stopped; import the file again, what was taken counts once", file=sys.stderr)
        return 1
    print(f"outcomes: {counts['counted']} new, {counts['repeated']} known before", file=sys.stderr)
    if counts["rejected"]:
        print(f"outcomes: {counts['rejected']} rejected; {rejected_path(options.input)} says why", file=sys.stderr)
    return 1 if counts["rejected"] else 0


def import_outcomes(source: Path, store: str) -> Counter[str]:
    """Put a file's outcomes into the store; returns how many were counted, repeated and rejected.

    Rejected lines go to `rejected_path` with the reason. Raises OutcomesError, StoreError, OverwriteError, OSError.
    """
    rejects = rejected_path(source)
    refuse_overwriting([source, path_of(store)], [rejects])
    db = database(store, create=False)
    counts: Counter[str] = Counter()
    try:
        db.open()
        log = PredictionLog(db)
        with source.open(newline="", encoding="utf-8-sig") as file, AtomicFile(rejects) as faults:
            writer = csv.writer(faults.file, lineterminator="\n")
            writer.writerow(["line", "reason"])
            rows = _rows(file)
            while part := list(islice(rows, COMMIT_ROWS)):
                for line, status, reason in _label(log, part):
                    counts[status] += 1
                    if reason is not None:
                        writer.writerow([line, reason])
            if counts["rejected"]:
                faults.commit()
            else:
                faults.discard()
    finally:
        db.close()
    return counts


def _label(log: PredictionLog, part: Sequence[Cell]) -> Iterator[tuple[int, str, str | None]]:
    """Line, counted, repeated or rejected, and the reason of the last."""
    good = [cell for cell in part if cell.reason is None]
    statuses, _ = log.label([(cell.id, cell.survived) for cell in good])
    status_of_line = dict(zip((cell.line for cell in good), statuses, strict=True))
    for cell in part:
        reason = cell.reason or REASONS.get(status_of_line[cell.line])
        yield cell.line, "rejected" if reason else status_of_line[cell.line], reason


def _rows(file: TextIO) -> Iterator[Cell]:
    """The outcomes of a file with a header; a row whose outcome is empty has none yet and is passed over."""
    reader = csv.reader(file)
    header: list[str] = next(reader, [])
    id_place, place = _place(header, "id"), _place(header, LABEL_COLUMN)
    for cells in reader:
        if not cells:
            continue
        line = reader.line_num
        if len(cells) != len(header):
            yield Cell(line, "", False, f"has {len(cells)} cells, the header has {len(header)}")
            continue
        text = cells[place].strip().lower()
        if text in VALUES:
            yield Cell(line, cells[id_place].strip().lower(), VALUES[text])
        elif text:
            yield Cell(line, "", False, f"{header[place]} is {cells[place]!r}; it must be 0, 1, false or true")


def _place(header: Sequence[str], column: str) -> int:
    places = [place for place, name in enumerate(header) if name.strip().lower() == column.lower()]
    if len(places) != 1:
        there = ", ".join(header) or "none"
        raise OutcomesError(f"one column {column} is needed, in any case; the columns are: {there}")
    return places[0]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service outcomes",
        description="Outcomes of logged predictions from a file. A running service finds them in the store but does "
        "not count them in its metrics: what it shall count, send to POST /v1/outcomes.",
    )  # fmt: skip
    commands = parser.add_subparsers(required=True, metavar="import")
    importing = commands.add_parser(
        "import",
        help="take the outcomes of a CSV",
        description=f"Take the outcomes of a CSV with the columns id and {LABEL_COLUMN} (0, 1, false or true; empty: "
        "not known yet). Other columns are ignored, so an exported file with outcomes filled in will do. Importing "
        "a file again changes nothing.",
        epilog="Lines that were not taken go to CSV.rejected.csv with the reason; the exit code is then 1.",
    )
    importing.add_argument("input", type=Path, metavar="CSV")
    add_store(importing)
    return parser
