"""python -m service outcomes import: outcomes from a CSV into the store."""

import argparse
import csv
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from models.csv_table import CsvError, CsvRow, CsvTable
from models.files import AtomicFile, OverwriteError, refuse_overwriting, rejected_path
from models.labels import LabelReader
from models.schema import Schema
from service.store.databases import StoreError, database, path_of
from service.store.export import add_store
from service.store.prediction_log import OutcomeStatus, PredictionLog

ID, OUTCOME = "id", "outcome"
COMMIT_ROWS = 1024
"""Outcomes of one commit: the service's own wait no longer than for a request of that size."""
REASONS: dict[OutcomeStatus, str] = {
    "unknown": "no prediction of this id is in the store",
    "conflicting": "another outcome is in the store, and stays",
}


class OutcomesError(Exception):
    """A file that holds no outcomes; the message says what to change."""


class Result(NamedTuple):
    """What became of a line: counted, repeated or rejected, and the reason of the last."""

    line: int
    status: str
    reason: str | None = None


def main(arguments: Sequence[str]) -> int:
    """Import a file; 0 every outcome is in the store, 1 failed or some rejected, 2 wrong use."""
    options = _parser().parse_args(arguments)
    try:
        counts = import_outcomes(options.input, options.store)
    except (OutcomesError, StoreError, OverwriteError) as error:
        print(f"outcomes: {error}", file=sys.stderr)
        return 1
    except CsvError as error:
        print(f"outcomes: {options.input} cannot be read: {error}", file=sys.stderr)
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

    Rejected lines go to `rejected_path` with the reason. Raises OutcomesError, CsvError, StoreError,
    OverwriteError, OSError.
    """
    rejects = rejected_path(source)
    refuse_overwriting([source, path_of(store)], [rejects])
    db = database(store, create=False)
    counts: Counter[str] = Counter()
    try:
        db.open()
        log = PredictionLog(db)
        with source.open("rb") as file, AtomicFile(rejects) as faults:
            writer = csv.writer(faults.file, lineterminator="\n")
            writer.writerow(["line", "reason"])
            table = CsvTable(file)
            columns, lines = OutcomeColumns(table.header, log.schemas()), iter(table)
            while part := list(islice(lines, COMMIT_ROWS)):
                for result in sorted(_label(log, columns, part)):
                    counts[result.status] += 1
                    if result.reason is not None:
                        writer.writerow([result.line, result.reason])
            if counts["rejected"]:
                faults.commit()
            else:
                faults.discard()
    finally:
        db.close()
    return counts


class OutcomeColumns:
    """Where the ids and the outcomes of a file are: under the label's column of a prediction's own table, or under
    `OUTCOME`. Raises OutcomesError."""

    def __init__(self, header: Sequence[str], schemas: Mapping[str, Schema]):
        if not schemas:
            raise OutcomesError("the store holds no predictions yet, so no outcome can be of one")
        self._header = header
        names = [name.casefold() for name in header]
        labels = sorted({schema.label.column for schema in schemas.values()})
        known = {column: self._find(names, column) for column in (*labels, OUTCOME)}
        self._outcomes = [at for at in known.values() if at is not None]
        if not self._outcomes:
            raise OutcomesError(self._needed(" or ".join(dict.fromkeys((*labels, OUTCOME)))))
        id_at = self._find(names, f"prediction_{ID}")
        self._id = self._find(names, ID) if id_at is None else id_at
        if self._id is None:
            raise OutcomesError(self._needed(ID))
        self._readers = {
            version: (LabelReader(schema.label), known[OUTCOME] if at is None else at)
            for version, schema in schemas.items()
            for at in (known[schema.label.column],)
        }

    def id(self, cells: Sequence[str]) -> str:
        """The id of a line, as the store has it."""
        return cells[self._id or 0].strip().lower()

    def is_open(self, cells: Sequence[str]) -> bool:
        """Whether a line has no outcome yet."""
        return not any(cells[at].strip() for at in self._outcomes)

    def read(self, cells: Sequence[str], version: str) -> tuple[str, str | None]:
        """The class's name for the prediction's version, or "" and why there is none."""
        if version not in self._readers:
            return "", REASONS["unknown"]
        reader, at = self._readers[version]
        if at is None:
            return "", f"the outcomes of its table are in the column {reader.label.column}, which is not there"
        number = reader(cells[at])
        return ("", reader.fault(cells[at])) if number is None else (reader.label.classes[number].name, None)

    def _find(self, names: Sequence[str], column: str) -> int | None:
        places = [place for place, name in enumerate(names) if name == column.casefold()]
        if len(places) > 1:
            raise OutcomesError(self._needed(column))
        return places[0] if places else None

    def _needed(self, column: str) -> str:
        return f"one column {column} is needed, in any case; the columns are: {', '.join(self._header)}"


def _label(log: PredictionLog, columns: OutcomeColumns, part: Sequence[CsvRow]) -> Iterator[Result]:
    """Take the outcomes of these lines; those that have none yet are passed over."""
    versions = log.versions(columns.id(row.cells) for row in part if not row.fault)
    outcomes: list[tuple[CsvRow, str]] = []
    for row in part:
        if row.fault:
            yield Result(row.line, "rejected", row.fault)
            continue
        if columns.is_open(row.cells):
            continue
        name, fault = columns.read(row.cells, versions.get(columns.id(row.cells), ""))
        if fault:
            yield Result(row.line, "rejected", fault)
        else:
            outcomes.append((row, name))
    statuses, _ = log.label([(columns.id(row.cells), name) for row, name in outcomes])
    for (row, _), status in zip(outcomes, statuses, strict=True):
        reason = REASONS.get(status)
        yield Result(row.line, "rejected" if reason else status, reason)


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
        description="Take the outcomes of a CSV with the column id and the label's column of the table, or one that is "
        "called outcome: a value of the label, or the name of a class (empty: not known yet). Other columns are "
        "ignored, so an exported file with outcomes filled in will do. Importing a file again changes nothing.",
        epilog="Lines that were not taken go to CSV.rejected.csv with the reason; the exit code is then 1.",
    )
    importing.add_argument("input", type=Path, metavar="CSV")
    add_store(importing)
    return parser
