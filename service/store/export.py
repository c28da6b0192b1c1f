"""python -m service export: the logged predictions and their outcomes as a CSV that training reads."""

import argparse
import csv
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from models.files import AtomicFile, OverwriteError, refuse_overwriting
from models.schema import FALSE, TRUE, Field, Schema
from service.settings import PREFIX, Settings
from service.store.databases import StoreError, database, path_of
from service.store.prediction_log import LabelledPrediction, PredictionLog, holds_row

PROBABILITIES = ("probability", "uncalibrated_probability")
LOGGED = ("id", "time", "version", *PROBABILITIES, "row_sha256")
"""Of more than two classes each of `PROBABILITIES` is there for every class, as ``probability_NAME``."""
HASHED = "sha256:"


class Exported(NamedTuple):
    """How many predictions, of them with an outcome, and without the row's fields; the table that they are of.

    ``left_out`` are those that were not asked for, without fields, where nothing else was there.
    """

    schema: Schema
    rows: int
    labelled: int
    bare: int
    left_out: int = 0


def main(arguments: Sequence[str]) -> int:
    """Export the store; 0 done, 1 failed, 2 wrong use."""
    options = _parser().parse_args(arguments)
    try:
        done = export(
            options.store, options.output, options.since, options.labelled_only, options.with_rows, options.table
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
    print(f"export: {done.rows} predictions, {done.labelled} with an outcome, to {options.output}", file=sys.stderr)
    if done.left_out:
        print(
            f"export: {done.left_out} others were kept without the {done.schema.row}'s fields: serve with "
            "--store-inputs row to keep them",
            file=sys.stderr,
        )
    if done.bare:
        print(
            f"export: {done.bare} of them without the {done.schema.row}'s fields, which no training can read: serve "
            "with --store-inputs row to keep them, export --with-rows to leave these out",
            file=sys.stderr,
        )
    return 0


def export(
    store: str, destination: Path, since_ms: int = 0, labelled_only: bool = False, with_rows: bool = False,
    table: str | None = None,
) -> Exported:  # fmt: skip
    """Write the predictions at or after ``since_ms`` of one table, by default the only one in the store.

    The file appears when it is whole. Raises StoreError, OverwriteError, OSError.
    """
    refuse_overwriting([path_of(store)], [destination])
    db = database(store, create=False)
    rows = labelled = bare = 0
    try:
        db.open()
        log = PredictionLog(db)
        schemas = log.schemas()
        schema, versions = choose_table(schemas, table)
        cells = Cells(schema, {version: each.classes for version, each in schemas.items()})
        with AtomicFile(destination) as output:
            writer = csv.writer(output.file, lineterminator="\n")
            writer.writerow(cells.header)
            for row in log.read(since_ms, labelled_only, with_rows, versions):
                writer.writerow(cells(row))
                rows += 1
                labelled += row.outcome is not None
                bare += not holds_row(row.prediction)
            output.commit()
        # Why there is nothing is said; to count them is a second reading.
        nothing = with_rows and not rows
        left_out = sum(1 for _ in log.read(since_ms, labelled_only, False, versions)) if nothing else 0
    finally:
        db.close()
    return Exported(schema, rows, labelled, bare, left_out)


def choose_table(schemas: dict[str, Schema], name: str | None) -> tuple[Schema, set[str]]:
    """The schema of the table ``name``, that of its version used last, and all its versions. Raises StoreError."""
    names = sorted({schema.name for schema in schemas.values()})
    if not names:
        raise StoreError("the store holds no predictions yet, so there is no table to name its columns")
    if name is None and len(names) > 1:
        raise StoreError(f"the store holds predictions of the tables {', '.join(names)}: choose one with --table")
    wanted = names[0] if name is None else name
    versions = {version: schema for version, schema in schemas.items() if schema.name == wanted}
    if not versions:
        raise StoreError(f"the store holds no predictions of the table {wanted}; there are: {', '.join(names)}")
    return list(versions.values())[-1], set(versions)


class Cells:
    """A logged prediction → its cells under ``header``: the table's columns, the label's, and
    `LOGGED`, where the table has a column of such a name as `Schema.beside` has it. ``classes`` by version, where they
    are not those of the schema."""

    def __init__(self, schema: Schema, classes: Mapping[str, tuple[str, ...]] | None = None):
        self._fields = schema.fields
        self._values = {each.name: each.value for each in schema.label.classes}
        columns = [field.in_table for field in schema.fields]
        self._classes, self._classes_of = schema.classes, classes or {}
        self.header = (*columns, schema.label.column, *schema.beside(logged_columns(schema)))

    def __call__(self, row: LabelledPrediction) -> Iterator[Any]:
        prediction = row.prediction
        # Plain fields, not a row of the schema: what an earlier version took must not stop the export.
        kept = prediction.inputs or ""
        values = msgspec.json.decode(kept) if holds_row(prediction) else {}
        yield from (_cell(field, values.get(field.name)) for field in self._fields)
        yield None if row.outcome is None else self._values.get(row.outcome, row.outcome)
        time = datetime.fromtimestamp(prediction.time_ms / 1000, UTC).isoformat(timespec="milliseconds")
        yield from (prediction.id, time, prediction.version)
        if len(self._classes) == 2:
            yield from (prediction.probability, prediction.uncalibrated_probability)
        else:
            for probabilities in (prediction.probabilities, prediction.uncalibrated_probabilities):
                names = self._classes_of.get(prediction.version, self._classes)
                by_name = dict(zip(names, probabilities or (), strict=False))
                yield from map(by_name.get, self._classes)
        yield None if values else kept.removeprefix(HASHED)


def logged_columns(schema: Schema) -> tuple[str, ...]:
    """`LOGGED` of a table."""
    if len(schema.classes) == 2:
        return LOGGED
    by_class = (f"{name}_{outcome}" for name in PROBABILITIES for outcome in schema.classes)
    return (*LOGGED[:3], *by_class, LOGGED[-1])


def _cell(field: Field, value: Any) -> Any:
    """A value as the table spells it."""
    if isinstance(value, bool):
        return field.levels[value] if len(field.levels) == 2 else (FALSE, TRUE)[value]
    return value


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
        description="Write the logged predictions with their outcomes, in the order of time, with the columns of their "
        f"table, its label's, and {', '.join(LOGGED)} (with prediction_ before a name that the table has too). The "
        "service may run meanwhile.",
        epilog="With --labelled-only --with-rows the file is ready for `python -m training recalibrate`, `evaluate` "
        "and `fit`.",
    )  # fmt: skip
    parser.add_argument("output", type=Path, metavar="OUT.csv")
    add_store(parser)
    parser.add_argument("--since", type=_time_ms, default=0, metavar="TIME", help="ISO 8601; without a zone, UTC")
    parser.add_argument("--labelled-only", action="store_true", help="only predictions that have an outcome")
    parser.add_argument("--with-rows", action="store_true", help="only predictions whose row's fields were kept")
    parser.add_argument("--table", metavar="NAME", help="where the store holds predictions of several tables")
    return parser
