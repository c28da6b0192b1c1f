"""A CSV of any length, row by row in constant memory: the one reader of training, evaluation and scoring.

UTF-8, with or without a byte order mark; cells separated by a comma, semicolon, tab or bar; quoted cells may hold
separators and line breaks; any line ends. Line numbers are an editor's: blank lines and quoted breaks count.
"""

import csv
import io
import re
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import BinaryIO, NamedTuple, TextIO

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
MAX_LINE_CHARACTERS = 1 << 23
MAX_CELL_CHARACTERS = 131_072
"""The csv module's own limit of a cell. A quote that is never closed takes in no more than this."""
SAMPLE_LINES = 50
"""Lines that the separator is found by."""
UTF_16 = "UTF-16; save it as UTF-8"
SIGNATURES = {
    b"\xff\xfe": UTF_16,
    b"\xfe\xff": UTF_16,
    b"PK\x03\x04": "a workbook or a zip archive; save the sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "a workbook; save the sheet as CSV (UTF-8)",
    b"\x1f\x8b": "compressed by gzip; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed by zstd; unpack it first",
    b"PAR1": "Parquet, in spite of its name",
}
CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?\s*')


class CsvError(ValueError):
    """A file that is no CSV, or whose header cannot be used; the message says what to change."""


class CsvRow(NamedTuple):
    """A row: the line that it begins on, and its cells, or else what is wrong with it."""

    line: int
    cells: list[str]
    fault: str = ""


class CsvTable:
    """The rows after the header, once. ``file`` stays open until they are read.

    ``header`` are the columns' names, without blanks around them, ``separator`` the given or found one. A row that
    cannot be read, or has not as many cells as the header, comes with its fault and without cells; blank lines are
    left out, and blanks before a cell. Raises CsvError.
    """

    def __init__(self, file: BinaryIO, separator: str | None = None):
        _check_signature(file)
        # What is no UTF-8 comes as lone surrogates, so that a fault has a line.
        self._lines = _Lines(io.TextIOWrapper(file, newline="", encoding="utf-8-sig", errors="surrogateescape"))
        sample = list(islice(self._lines, SAMPLE_LINES))
        self._lines.give_back(sample)
        if sample and (named := EXCEL_SEPARATOR.fullmatch(sample[0])):
            separator = separator or named[1]
            next(self._lines)
        self.separator = find_separator(sample) if separator is None else check_separator(separator)
        self._reader = csv.reader(self._lines, delimiter=self.separator, skipinitialspace=True, strict=True)
        head = next(self._records(), None)
        if head is None:
            raise CsvError("it is empty; its first line must name the columns")
        if head.fault:
            raise CsvError(f"line {head.line} {head.fault}")
        self.header = check_header(head.cells)

    def __iter__(self) -> Iterator[CsvRow]:
        columns = len(self.header)
        for row in self._records():
            if row.fault or len(row.cells) == columns:
                yield row
            else:
                yield CsvRow(row.line, [], self._wrong_count(len(row.cells)))

    def _wrong_count(self, cells: int) -> str:
        fault = f"has {cells} cell{'s' * (cells != 1)}, the header has {len(self.header)}"
        if cells > len(self.header):
            separator = SEPARATORS.get(self.separator, "separator")
            return f"{fault} (a {separator} inside a cell needs quotes around the cell)"
        return f"{fault} (the file ends in it: it is cut short)" if self._lines.ended else fault

    def _records(self) -> Iterator[CsvRow]:
        """Rows of any number of cells, without blank lines."""
        lines = self._lines
        while True:
            lines.begin_record()
            first = lines.number + 1
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                lines.give_back(lines.record[1:])
                yield CsvRow(first, [], lines.fault or _fault_of(error))
                continue
            if lines.fault:
                yield CsvRow(first, [], lines.fault)
            elif len(cells) > 1 or lines.record[0].strip():
                yield CsvRow(first, cells)


class _Lines:
    """Lines of a file with their line ends, and what is wrong with them.

    ``record`` are those since `begin_record`, ``fault`` the first thing that no cell of theirs may hold. ``ended``
    tells that the last line lacks its line end: it is the file's last, and perhaps cut.
    """

    def __init__(self, file: TextIO):
        self._file = file
        self._back: deque[str] = deque()
        self.number, self.record, self.fault, self.ended = 0, list[str](), "", False

    def begin_record(self) -> None:
        self.record, self.fault = [], ""

    def give_back(self, lines: Sequence[str]) -> None:
        """Have the last lines that were taken come again."""
        self._back.extendleft(reversed(lines))
        self.number -= len(lines)

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._back.popleft() if self._back else self._file.readline(MAX_LINE_CHARACTERS)
        if not line:
            raise StopIteration
        self.number += 1
        self.record.append(line)
        self.ended = not line.endswith(("\n", "\r"))
        if self.ended and len(line) == MAX_LINE_CHARACTERS:
            self._skip_line()
            self.fault = self.fault or f"is longer than {MAX_LINE_CHARACTERS:,} characters"
        elif "\x00" in line:
            self.fault = self.fault or "holds a NUL character"
        elif not line.isascii():
            self.fault = self.fault or _not_unicode(line)
        return line

    def _skip_line(self) -> None:
        rest = "…"
        while rest and not rest.endswith(("\n", "\r")):
            rest = self._file.readline(MAX_LINE_CHARACTERS)


def _not_unicode(line: str) -> str:
    try:
        line.encode()
    except UnicodeEncodeError as error:
        byte = ord(line[error.start]) & 0xFF
        meant = bytes([byte]).decode("cp1252", errors="replace")
        return f"is not UTF-8: its byte {byte:#04x} is {meant} in Latin-1; save the file as UTF-8"
    return ""


def _fault_of(error: csv.Error) -> str:
    if "field limit" in str(error):
        return f"begins a cell of more than {MAX_CELL_CHARACTERS:,} characters; is a quotation mark not closed?"
    return 'has quotation marks that do not pair: a cell that begins with " ends with one, and one inside is doubled'


def _check_signature(file: BinaryIO) -> None:
    start = file.peek(4096)[:4096] if isinstance(file, io.BufferedReader) else b""
    for signature, kind in SIGNATURES.items():
        if start.startswith(signature):
            raise CsvError(f"it is {kind}")
    if start.count(0) > len(start) // 4:
        raise CsvError(f"it is {UTF_16}")


def check_separator(separator: str) -> str:
    """A separator that a user names: one character, or its name, as in ``tab``. Raises CsvError."""
    names = {name: each for each, name in SEPARATORS.items()} | {"\\t": "\t"}
    separator = names.get(separator.casefold(), separator)
    if len(separator) != 1 or separator.isalnum() or separator in '"\r\n .':
        raise CsvError(f"the separator is {separator!r}; it must be one character, as in , ; | or the word tab")
    return separator


def find_separator(sample: Sequence[str]) -> str:
    """The separator by which the most of the first lines have as many cells as the header, and more than one."""

    def fit(separator: str) -> tuple[float, int]:
        reader = csv.reader(sample, delimiter=separator, skipinitialspace=True)
        try:
            counts = [len(cells) for cells in reader if cells]
        except csv.Error:
            counts = []
        if not counts or counts[0] < 2:
            return 0.0, 0
        return sum(count == counts[0] for count in counts) / len(counts), counts[0]

    return max(SEPARATORS, key=fit)


def clean_name(name: object) -> str:
    """A column's name on one line, without blanks around it."""
    return CONTROL.sub(" ", str(name)).strip()


def check_header(names: Sequence[object]) -> list[str]:
    """Columns' names as they are used, without blanks around them. Raises CsvError for one that is there twice."""
    header = [clean_name(name) for name in names]
    seen: dict[str, str] = {}
    for name in filter(None, header):
        if (other := seen.setdefault(name.casefold(), name)) != name:
            raise CsvError(f"the columns {other} and {name} differ by case alone; rename one")
        if sum(each == name for each in header) > 1:
            raise CsvError(f"the column {name} is there {header.count(name)} times; rename or drop the others")
    if not any(header):
        raise CsvError("its first line names no column")
    return header
