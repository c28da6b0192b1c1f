"""A file of rows, CSV or Parquet: its header, and its rows as cells of text, in constant memory."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from models.csv_table import CsvError, CsvRow, CsvTable, check_header

MAX_FAULTS, MAX_NUMBERS = 10, 3
"""Different faults that are listed, and lines of one, before the rest is only counted: enough to see the pattern."""
BATCH_ROWS = 4096


class DataError(ValueError):
    """A file that cannot be used; the message names the file, the line, the column and what is accepted."""


class Source:
    """Rows of a file, once: ``header`` the columns' names, ``unit`` what a row is counted in, line or row.

    ``separator`` is a CSV's, else None.
    """

    def __init__(self, header: list[str], rows: Iterator[CsvRow], unit: str, separator: str | None = None):
        self.header, self.unit, self.separator = header, unit, separator
        self._rows = rows

    def __iter__(self) -> Iterator[CsvRow]:
        return self._rows


@contextmanager
def open_source(path: Path, separator: str | None = None) -> Iterator[Source]:
    """The rows of a file, Parquet by its first bytes or else CSV. Raises DataError."""
    try:
        with path.open("rb") as file:
            if file.peek(4)[:4] == b"PAR1":
                yield _parquet(path)
            else:
                table = CsvTable(file, separator)
                yield Source(table.header, iter(table), "line", table.separator)
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except CsvError as error:
        raise DataError(f"{path} cannot be read: {error}") from None
    except IsADirectoryError:
        raise DataError(f"{path} is a folder; a CSV or Parquet file is needed") from None


def sha256_of_data(path: Path) -> str:
    """Hex sha256 of a file's bytes. Raises DataError for what is no regular file: it could not be read again."""
    if path.exists() and not path.is_file():
        raise DataError(f"{path} is no regular file; copy the rows into one")
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None


class Faults:
    """What is wrong with a file's rows: the first `MAX_FAULTS` different sentences with their lines, then a number."""

    def __init__(self, path: Path, unit: str):
        self._path, self._unit = path, unit
        self._numbers: dict[str, list[int]] = {}
        self._counts: Counter[str] = Counter()
        self._others = 0

    def add(self, number: int, fault: str) -> None:
        """A fault of the row with this number."""
        if fault not in self._numbers and len(self._numbers) == MAX_FAULTS:
            self._others += 1
            return
        self._counts[fault] += 1
        numbers = self._numbers.setdefault(fault, [])
        if len(numbers) < MAX_NUMBERS:
            numbers.append(number)

    def check(self) -> None:
        """Raises DataError if there was one."""
        lines = [f"{self._place(fault)}: {fault}" for fault in self._numbers]
        if self._others:
            lines.append(f"and {self._others:,} more")
        if lines:
            raise DataError(f"{self._path} has faults:\n  " + "\n  ".join(lines))

    def _place(self, fault: str) -> str:
        numbers, count = self._numbers[fault], self._counts[fault]
        listed = ", ".join(map(str, numbers)) + (f" and {count - len(numbers):,} more" if count > len(numbers) else "")
        return f"{self._unit}{'s' * (count > 1)} {listed}"


def _parquet(path: Path) -> Source:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise DataError(f"{path} is Parquet, which needs pyarrow: install it, or save the rows as CSV") from None
    try:
        file = parquet.ParquetFile(path)
        return Source(check_header(file.schema_arrow.names), _parquet_rows(path, file), "row")
    except pyarrow.ArrowException as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def _parquet_rows(path: Path, file: Any) -> Iterator[CsvRow]:
    import pyarrow

    number = 0
    try:
        for batch in file.iter_batches(BATCH_ROWS):
            for values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
                number += 1
                yield CsvRow(number, [plain_cell(value) for value in values])
    except (pyarrow.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def plain_cell(value: Any) -> str:
    """A value as a CSV would have it: unknown is empty, and a whole number has no point."""
    if value is None or value != value:
        return ""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
