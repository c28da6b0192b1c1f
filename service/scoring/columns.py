"""Rows of a table: its columns → rows of the schema → the cells of their predictions."""

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from models.cells import CellError
from models.files import AtomicFile
from models.prediction import Prediction
from models.predictor import Predictor
from models.rows import Row, RowError

CHUNK_ROWS = 4096
CACHED_ROWS = 1 << 16
"""Distinct rows whose answer is kept, about a kilobyte each."""
ADDED = ("outcome", "probability", "interval_low", "interval_high", "prediction_set", "typicality", "warnings")
"""What is added to a row; where the table has a column of that name, as `Schema.beside` has it. Of more than two
classes `OF_POSITIVE` are there for each, as ``probability_NAME``. Where there are costs `DECISION` is last."""
OF_POSITIVE = ADDED[1:4]
DECISION = "decision"

Cells = tuple[str, ...]


class ScoreError(Exception):
    """A table that cannot be scored; the message says what to change."""


class Refused(str):
    """Why a row of a table is none of the schema."""


def commit(output: AtomicFile, faults: AtomicFile, rejected: int) -> None:
    """Put the output in place, and the file of rejected rows or nothing in its."""
    output.commit()
    if rejected:
        faults.commit()
    else:
        faults.discard()


def added_columns(classes: Sequence[str], *, decided: bool = False) -> tuple[str, ...]:
    """`ADDED` of a table of these classes."""
    of_classes = OF_POSITIVE if len(classes) == 2 else tuple(f"{name}_{one}" for one in classes for name in OF_POSITIVE)
    return (ADDED[0], *of_classes, *ADDED[4:], *([DECISION] if decided else []))


class Columns:
    """The columns of one table: ``added`` are the names of `ADDED` in it. Raises ScoreError."""

    def __init__(self, header: Sequence[str], predictor: Predictor):
        self._rows = predictor.rows
        schema = predictor.bundle.schema
        self.added = schema.beside(added_columns(schema.classes, decided=schema.costs is not None))
        try:
            self._fields = self._rows.find_columns(header)
        except RowError as error:
            raise ScoreError(str(error)) from None
        taken = [name for name in header if name in self.added]
        if taken:
            raise ScoreError(f"the input has a column {taken[0]} already, which the output adds")

    @property
    def places(self) -> Iterable[int]:
        """Where the fields are, in the order of `convert`'s values."""
        return self._fields.values()

    def parse(self, cells: Sequence[str]) -> Row | Refused:
        """A line's cells → its row, or why it is none."""
        return _accepted(self._rows.parse, {field: cells[place] for field, place in self._fields.items()})

    def convert(self, values: Sequence[Any]) -> Row | Refused:
        """Values with a type, of the columns at ``places`` → their row, or why they are none."""
        return _accepted(self._rows.convert, dict(zip(self._fields, values, strict=True)))


def _accepted(make: Callable[[dict[str, Any]], Row], values: dict[str, Any]) -> Row | Refused:
    try:
        return make(values)
    except CellError as error:
        return Refused(error)


class PredictionCells:
    """Rows → the cells `ADDED` of their predictions; equal rows are computed once."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._cached: OrderedDict[Row, Cells] = OrderedDict()

    def of(self, rows: Sequence[Row]) -> list[Cells]:
        """The cells of each row. Raises PredictionError."""
        new = [row for row in dict.fromkeys(rows) if row not in self._cached]
        computed = dict(zip(new, map(_cells, self._predictor.predict_checked(new)), strict=True))
        cells = [self._cached.get(row) or computed[row] for row in rows]
        self._cached.update(computed)
        while len(self._cached) > CACHED_ROWS:
            self._cached.popitem(last=False)
        return cells


def _cells(prediction: Prediction) -> Cells:
    confidence = prediction.confidence
    return (
        prediction.outcome, *map(repr, _numbers(prediction)), "|".join(confidence.prediction_set),
        repr(confidence.typicality),
        "; ".join(f"{warning.field}: {warning.message}" for warning in confidence.warnings),
        *([] if prediction.decision is None else [prediction.decision]),
    )  # fmt: skip


def _numbers(prediction: Prediction) -> Iterator[float]:
    """`OF_POSITIVE` of two classes, or of each of more."""
    confidence: Any = prediction.confidence
    if prediction.probability is not None:
        yield from (prediction.probability, *confidence.interval)
        return
    for p, interval in zip(prediction.probabilities, confidence.intervals.values(), strict=True):
        yield from (p, *interval)
