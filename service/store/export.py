"""python -m service export: the logged predictions and their outcomes as a CSV that training reads."""

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from models.passenger import COLUMNS, LABEL_COLUMN

from models.files import AtomicFile, OverwriteError, refuse_overwriting
from service.settings import PREFIX, Settings
from service.store.databases import StoreError, database, path_of
from service.store.prediction_log import LabelledPrediction, PredictionLog, holds_passenger

LOGGED = ("id", "time", "version", "probability", "uncalibrated_probability", "passenger_sha256")
HASHED = "sha256:"


def main(arguments: Sequence[str]) -> int:
    """Export the store; 0 done, 1 failed, 2 wrong use."""
    options = _parser().parse_args(arguments)
    try:
        rows, labelled, bare = export(
            options.store, options.output, options.since, options.labelled_only, options.with_passengers
        )
    except (StoreError, msgspec.DecodeError, OverwriteError) as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"export: {error.filename or options.output}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("export: stopped; nothing was written", file=sys.stderr)
        return 1
    print(f"export: {rows} predictions, {labelled} with an outcome, to {options.output}", file=sys.stderr)
    if bare:
        print(
            f"export: {bare} of them without the passenger's fields, which no training can read: serve with "
            "--store-inputs passenger to keep them, export --with-passengers to leave these out",
            file=sys.stderr,
        )
    return 0


def export(
    store: str, destination: Path, since_ms: int = 0, labelled_only: bool = False, with_passengers: bool = False
) -> tuple[int, int, int]:
    """Write the predictions at or after ``since_ms``; returns how many, with an outcome, and without a passenger.

    The file appears when it is whole. Raises StoreError, OverwriteError, OSError.
    """
    refuse_overwriting([path_of(store)], [destination])
    db = database(store, create=False)
    rows = labelled = bare = 0
    try:
        db.open()
        with AtomicFile(destination) as output:
            writer = csv.writer(output.file, lineterminator="\n")
            writer.writerow([*COLUMNS.values(), LABEL_COLUMN, *LOGGED])
            for row in PredictionLog(db).read(since_ms, labelled_only, with_passengers):
                writer.writerow(_cells(row))
                rows += 1
                labelled += row.survived is not None
                bare += not holds_passenger(row.prediction)
            output.commit()
    finally:
        db.close()
    return rows, labelled, bare


def _cells(row: LabelledPrediction) -> Iterator[Any]:
    prediction = row.prediction
    # Plain fields, not a Passenger: what an earlier version took must not stop the export.
    kept = prediction.passenger or ""
    passenger = msgspec.json.decode(kept) if holds_passenger(prediction) else {}
    yield from (passenger.get(field) for field in COLUMNS)
    yield None if row.survived is None else int(row.survived)
    time = datetime.fromtimestamp(prediction.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
    yield from (prediction.id, time, prediction.version, prediction.probability, prediction.uncalibrated_probability)
    yield None if passenger else kept.removeprefix(HASHED)


def _time_ms(text: str) -> int:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 2026-05-31 or 2026-05-31T12:00+02:00") from None
    return int((time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000)


def add_store(parser: argparse.ArgumentParser) -> None:
    """The flag --store, as the service has it."""
    default = os.environ.get(f"{PREFIX}STORE", Settings().store)
    parser.add_argument(
        "--store", default=default, metavar="PATH|URL",
        help=f"SQLite file or postgresql:// URL; default: {PREFIX}STORE, else {Settings().store}",
    )  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service export",
        description="Write the logged predictions with their outcomes, in the order of time, with the columns of the "
        f"Titanic files, {LABEL_COLUMN}, and {', '.join(LOGGED)}. The service may run meanwhile.",
        epilog="With --labelled-only --with-passengers the file is ready for `python -m training evaluate --data` and "
        "`python -m training fit --data`.",
    )  # fmt: skip
    parser.add_argument("output", type=Path, metavar="OUT.csv")
    add_store(parser)
    parser.add_argument("--since", type=_time_ms, default=0, metavar="TIME", help="ISO 8601; without a zone, UTC")
    parser.add_argument("--labelled-only", action="store_true", help="only predictions that have an outcome")
    parser.add_argument(
        "--with-passengers", action="store_true", help="only predictions whose passenger's fields were kept"
    )
    return parser
