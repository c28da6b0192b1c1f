"""python -m service score: a CSV of any length → the same rows with their predictions, in constant memory."""

import argparse
import csv
import io
import sys
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TextIO

import msgspec

from models.bundle import BundleError
from models.cache import LogitCache
from models.files import AtomicFile
from models.passenger import COLUMNS, Passenger, parse_passenger
from models.precision import FULL, PRECISIONS
from models.predictor import Prediction, PredictionError, Predictor

CHUNK_ROWS = 4096
REMEMBERED_ROWS = 1 << 16
"""Distinct passengers whose answer is kept, about a kilobyte each."""
REQUIRED = ("pclass", "sex")
ADDED = ("probability", "survived", "interval_low", "interval_high", "prediction_set", "typicality", "warnings")
REPORT_SECONDS = 10.0

Cells = tuple[str, ...]


class ScoreError(Exception):
    """A file that cannot be scored; the message says what to change."""


class Rejected(Exception):
    """A row that is no passenger, and why."""


def main(arguments: Sequence[str]) -> int:
    """Score a file; 0 every row, 1 failed or some rows rejected, 2 wrong use."""
    options = _parser().parse_args(arguments)
    try:
        predictor = Predictor.load(
            options.bundle, LogitCache(options.cache_rows), options.target_prevalence, options.require_signature,
            options.precision,
        )  # fmt: skip
        scored, rejected = score(options.input, options.output, predictor)
    except (ScoreError, BundleError, PredictionError) as error:
        print(f"score: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"score: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("score: stopped; nothing was written", file=sys.stderr)
        return 1
    print(f"score: {scored} rows to {options.output}", file=sys.stderr)
    if rejected:
        print(f"score: {rejected} rows rejected; {rejected_path(options.output)} says why", file=sys.stderr)
    return 1 if rejected else 0


def score(source: Path, destination: Path, predictor: Predictor) -> tuple[int, int]:
    """Write ``source``'s rows and the columns `ADDED` to ``destination``; returns rows scored and rejected.

    A row that is no passenger goes to `rejected_path` with its line and the reason. Both files appear whole, at the
    end. Raises ScoreError, OSError, and PredictionError when the model gives no number.
    """
    if destination.exists() and source.exists() and destination.samefile(source):
        raise ScoreError(f"{destination} would overwrite the input")
    with ExitStack() as stack:
        file = stack.enter_context(source.open("rb"))
        text = io.TextIOWrapper(file, newline="", encoding="utf-8-sig", errors="surrogateescape")
        reader = _rows(stack.enter_context(text))
        _, header = next(reader, (0, []))
        fields = _fields(header)
        output, faults = (stack.enter_context(AtomicFile(path)) for path in (destination, rejected_path(destination)))
        out, bad = csv.writer(output.file, lineterminator="\n"), csv.writer(faults.file, lineterminator="\n")
        out.writerow([*header, *ADDED])
        bad.writerow(["line", "reason"])
        progress, answers = Progress(source.stat().st_size), Answers(predictor)
        scored = rejected = 0
        for chunk in _chunks(reader, header, fields):
            rows = [(row, key) for _, row, key, reason in chunk if reason is None]
            for (row, _), cells in zip(rows, answers.of([key for _, key in rows]), strict=True):
                out.writerow([*row, *cells])
            refused = [(line, reason) for line, _, _, reason in chunk if reason is not None]
            bad.writerows(refused)
            scored, rejected = scored + len(rows), rejected + len(refused)
            progress.show(scored + rejected, file.tell())
        output.keep()
        if rejected:
            faults.keep()
        else:
            rejected_path(destination).unlink(missing_ok=True)
    return scored, rejected


def rejected_path(destination: Path) -> Path:
    """OUT.csv → OUT.rejected.csv."""
    return destination.with_name(f"{destination.stem}.rejected{destination.suffix}")


class Answers:
    """Cells of passengers → cells of their predictions; equal passengers are computed once."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._held: OrderedDict[Passenger, Cells] = OrderedDict()

    def of(self, passengers: Sequence[Passenger]) -> list[Cells]:
        """The cells `ADDED` of each passenger."""
        new = [one for one in dict.fromkeys(passengers) if one not in self._held]
        found = dict(zip(new, map(_cells, self._predictor.predict(new)), strict=True))
        answers = [self._held.get(one) or found[one] for one in passengers]
        self._held.update(found)
        while len(self._held) > REMEMBERED_ROWS:
            self._held.popitem(last=False)
        return answers


def _cells(prediction: Prediction) -> Cells:
    confidence = prediction.confidence
    return (
        repr(prediction.probability), str(prediction.survived).lower(), *map(repr, confidence.interval),
        "|".join(confidence.prediction_set), repr(confidence.typicality),
        "; ".join(f"{one.field}: {one.message}" for one in confidence.warnings),
    )  # fmt: skip


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


def _fields(header: list[str]) -> dict[str, int]:
    """Field of `Passenger` → position of its column, by the field's or the Titanic files' name in any case."""
    names = [name.strip().lower() for name in header]
    fields: dict[str, int] = {}
    for field, column in COLUMNS.items():
        places = [place for place, name in enumerate(names) if name in (field, column.lower())]
        if len(places) > 1:
            raise ScoreError(f"the column {column} is there {len(places)} times")
        if places:
            fields[field] = places[0]
    missing = [COLUMNS[field] for field in REQUIRED if field not in fields]
    if missing:
        raise ScoreError(f"the columns {' and '.join(missing)} are missing; there are: {', '.join(header) or 'none'}")
    taken = [name for name in header if name in ADDED]
    if taken:
        raise ScoreError(f"the input has a column {taken[0]} already, which the output adds")
    return fields


Row = tuple[int, list[str], Any, str | None]


def _chunks(rows: Iterator[tuple[int, list[str]]], header: list[str], fields: dict[str, int]) -> Iterator[list[Row]]:
    """Line, cells, passenger, and the reason where there is no passenger."""
    chunk: list[Row] = []
    for line, cells in rows:
        try:
            chunk.append((line, cells, _passenger(cells, len(header), fields), None))
        except Rejected as error:
            chunk.append((line, cells, None, str(error)))
        if len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk = []
    yield chunk


def _passenger(cells: list[str], columns: int, fields: dict[str, int]) -> Passenger:
    if len(cells) != columns:
        raise Rejected(f"has {len(cells)} cells, the header has {columns}")
    try:
        for cell in cells:
            cell.encode()
        return parse_passenger({field: cells[place] for field, place in fields.items()})
    except UnicodeEncodeError:
        raise Rejected("is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise Rejected(str(error).replace(" - at `$.", ", in `")) from None


class Progress:
    """Rows done, rows/s and time left: one line on a terminal, a line every ten seconds when piped."""

    def __init__(self, total_bytes: int):
        self._total, self._start = max(total_bytes, 1), time.monotonic()
        self._shown, self._terminal = self._start, sys.stderr.isatty()

    def show(self, rows: int, done_bytes: int) -> None:
        now = time.monotonic()
        share = min(1.0, done_bytes / self._total)
        if now - self._shown < (0.2 if self._terminal else REPORT_SECONDS) and share < 1:
            return
        self._shown, seconds = now, max(now - self._start, 1e-9)
        left = seconds / max(share, 1e-9) * (1 - share)
        line = f"score: {rows} rows, {rows / seconds:.0f} rows/s, {share:.0%}, {left:.0f} s left"
        print(
            f"\r{line}\x1b[K" if self._terminal else line,
            end="" if self._terminal else "\n",
            file=sys.stderr,
            flush=True,
        )
        if self._terminal and share == 1:
            print(file=sys.stderr)


def _prevalence(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and below 1")
    return value


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m service score",
        description=f"Add to each passenger of a CSV file: {', '.join(ADDED)}. Memory does not grow with the file.",
        epilog=f"Columns are found by name: {', '.join(COLUMNS.values())}; Pclass and Sex are required. Rows that are "
        "no passengers go to OUT.rejected.csv with their line and the reason; the exit code is then 1.",
    )  # fmt: skip
    parser.add_argument("input", type=Path, metavar="IN.csv")
    parser.add_argument("output", type=Path, metavar="OUT.csv")
    parser.add_argument("--bundle", default="artifacts/titanic", help="default: %(default)s")
    parser.add_argument(
        "--require-signature", type=Path, metavar="KEYS",
        help="public keys, a PEM file or a folder of them; use only a bundle that one of them signed",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=PRECISIONS, default=FULL,
        help="of the weights; other than float32 only what python -m training precision has measured and not refused",
    )  # fmt: skip
    parser.add_argument(
        "--cache-rows",
        type=int,
        default=1 << 16,
        help="distinct texts computed once; 0 for none (default: %(default)s)",
    )
    parser.add_argument(
        "--target-prevalence",
        type=_prevalence,
        metavar="P",
        help="share of survivors among these passengers, if it is not the bundle's own",
    )
    return parser
