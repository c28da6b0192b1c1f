"""One pass over a table in constant memory: what is in each column, and a sample of the rows."""

from collections import Counter
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from models.schema import MAX_LEVELS
from training.data.kinds import NUMBERS, Kind, kind_of
from training.data.source import DataError, Faults, Source, open_source

CHUNK_ROWS = 2048
SAMPLE_ROWS, SAMPLE_CELLS, SAMPLE_CHARACTERS = 20_000, 2_000_000, 200
"""Rows that are kept at random, of wide tables fewer, and the length at which their cells are cut."""
MAX_HASHES = 1_000_000
"""Distinct rows among which repeated ones are looked for, some 100 bytes each."""
MAX_LEVEL_CHARACTERS = 200
EXAMPLES = 3


class ColumnProfile:
    """What the cells of one column are, blanks around them aside.

    ``empty`` and ``unknown`` cells are counted apart: NA is a word in a column of texts. ``kinds`` are of the known
    ones, with the first few ``examples`` of each and their lines. ``counts`` are the cells by text, None with more than
    `MAX_LEVELS` different ones. ``minimum`` and ``maximum`` are of the numbers.
    """

    def __init__(self, name: str, place: int):
        self.name, self.place = name, place
        self.empty = self.unknown = self.longest = self.with_blanks = 0
        self.kinds: Counter[Kind] = Counter()
        self.examples: dict[Kind, list[tuple[int, str]]] = {}
        self.counts: Counter[str] | None = Counter()
        self.minimum, self.maximum = np.inf, -np.inf

    @property
    def known(self) -> int:
        """Cells that are neither empty nor a spelling of unknown."""
        return self.kinds.total()

    def only(self, *kinds: Kind) -> bool:
        """Whether all known cells are of these kinds, and there are some."""
        return self.known > 0 and all(kind in kinds for kind in self.kinds)

    def levels(self) -> Counter[str] | None:
        """Known texts and how often each is there; None for too many."""
        if self.counts is None:
            return None
        return Counter({text: count for text, count in self.counts.items() if kind_of(text) is not Kind.UNKNOWN})

    def add(self, cells: Sequence[str], lines: Sequence[int]) -> None:
        """Take in the next cells; ``lines`` are theirs."""
        numbers = []
        for cell, count in Counter(cells).items():
            text = cell.strip()
            if not text:
                self.empty += count
                continue
            if len(text) > self.longest:
                self.longest = len(text)
            if self.counts is not None:
                self._count(text, count)
            kind = kind_of(text)
            if kind is Kind.UNKNOWN:
                self.unknown += count
                continue
            self.kinds[kind] += count
            if kind in NUMBERS:
                numbers.append(float(text))
            elif " " in text:
                self.with_blanks += count
            examples = self.examples.setdefault(kind, [])
            if len(examples) < EXAMPLES and text not in [example for _, example in examples]:
                examples.append((lines[cells.index(cell)], text))
        if numbers:
            self.minimum, self.maximum = min(self.minimum, *numbers), max(self.maximum, *numbers)

    def _count(self, text: str, count: int) -> None:
        assert self.counts is not None
        self.counts[text] += count
        if len(self.counts) > MAX_LEVELS or len(text) > MAX_LEVEL_CHARACTERS or not text.isprintable():
            self.counts = None


class TableProfile:
    """A table's columns, how many ``rows`` it has, how many of them are ``repeated``, and a ``sample`` of them.

    Cells of the sample have no blanks around them and at most `SAMPLE_CHARACTERS`.
    """

    def __init__(self, path: Path, source: Source, rng: np.random.Generator):
        self.path, self.header, self.separator = path, source.header, source.separator
        self.columns = [ColumnProfile(name, place) for place, name in enumerate(source.header)]
        self.sample: list[tuple[str, ...]] = []
        self.rows = self.repeated = 0
        self._size = min(SAMPLE_ROWS, max(1, SAMPLE_CELLS // len(self.columns)))
        self._hashes: set[int] = set()
        self._rng = rng

    def column(self, name: str) -> ColumnProfile | None:
        """A column by its name in any case."""
        wanted = name.strip().casefold()
        return next((column for column in self.columns if column.name.casefold() == wanted), None)

    def cells(self, column: ColumnProfile) -> list[str]:
        """The sample's cells of one column."""
        return [row[column.place] for row in self.sample]

    def numbers(self, column: ColumnProfile) -> np.ndarray:
        """The sample's numbers of one column, NaN where there is none, (rows of the sample,) float64."""
        return np.array([float(cell) if kind_of(cell) in NUMBERS else np.nan for cell in self.cells(column)])

    def add(self, rows: Sequence[Sequence[str]], lines: Sequence[int]) -> None:
        """Take in the next rows."""
        for column, cells in zip(self.columns, zip(*rows, strict=True), strict=True):
            column.add(cells, lines)
        # Vitter 1985, algorithm R: each row is in the sample with the same probability.
        places = self._rng.integers(0, np.arange(self.rows, self.rows + len(rows)) + 1).tolist()
        for number, (row, place) in enumerate(zip(rows, places, strict=True), self.rows):
            if number < self._size:
                self.sample.append(_cut(row))
            elif place < self._size:
                self.sample[place] = _cut(row)
            hashed = hash(tuple(row))
            if hashed in self._hashes:
                self.repeated += 1
            elif len(self._hashes) < MAX_HASHES:
                self._hashes.add(hashed)
        self.rows += len(rows)

    def end(self) -> None:
        """Forget what only reading needed."""
        self._hashes = set()


def profile_table(path: Path, separator: str | None = None, seed: int = 0) -> TableProfile:
    """Read a table once. Raises DataError listing the rows that cannot be read."""
    with open_source(path, separator) as source:
        profile, faults = TableProfile(path, source, np.random.default_rng(seed)), Faults(path, source.unit)
        rows = iter(source)
        while chunk := list(islice(rows, CHUNK_ROWS)):
            for line, _, fault in chunk:
                if fault:
                    faults.add(line, fault)
            good = [row for row in chunk if not row.fault]
            if good:
                profile.add([row.cells for row in good], [row.line for row in good])
    faults.check()
    if not profile.rows:
        raise DataError(f"{path} has a header and no rows")
    profile.end()
    return profile


def _cut(row: Sequence[str]) -> tuple[str, ...]:
    return tuple(cell.strip()[:SAMPLE_CHARACTERS] for cell in row)
