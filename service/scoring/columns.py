"""Rows of a table: its columns → passengers → the cells of their predictions."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import msgspec

from models.files import AtomicFile
from models.passenger import Passenger, PassengerError, find_columns, parse_passenger
from models.prediction import Prediction
from models.predictor import Predictor

CHUNK_ROWS = 4096
REMEMBERED_ROWS = 1 << 16
"""Distinct passengers whose answer is kept, about a kilobyte each."""
ADDED = ("probability", "survived", "interval_low", "interval_high", "prediction_set", "typicality", "warnings")

Cells = tuple[str, ...]


class ScoreError(Exception):
    """A table that cannot be scored; the message says what to change."""


class Rejected(Exception):
    """A row that is no passenger, and why."""


def keep_written(output: AtomicFile, faults: AtomicFile, rejected: int) -> None:
    """Put the output in place, and the file of rejected rows or nothing in its."""
    output.commit()
    if rejected:
        faults.commit()
    else:
        faults.discard()


class Answers:
    """Passengers → the cells `ADDED` of their predictions; equal passengers are computed once."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._held: OrderedDict[Passenger, Cells] = OrderedDict()

    def of(self, passengers: Sequence[Passenger]) -> list[Cells]:
        """The cells of each passenger. Raises PredictionError."""
        new = [one for one in dict.fromkeys(passengers) if one not in self._held]
        found = dict(zip(new, map(_cells, self._predictor.predict_checked(new)), strict=True))
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


def input_columns(header: Sequence[str]) -> dict[str, int]:
    """Field → position (`find_columns`) in a table that has none of the columns `ADDED`; raises ScoreError."""
    try:
        fields = find_columns(header)
    except PassengerError as error:
        raise ScoreError(str(error)) from None
    taken = [name for name in header if name in ADDED]
    if taken:
        raise ScoreError(f"the input has a column {taken[0]} already, which the output adds")
    return fields


def read_passenger(cells: Mapping[str, str]) -> Passenger:
    """Cells by field of `Passenger` → the passenger; raises Rejected."""
    try:
        return parse_passenger(cells)
    except msgspec.ValidationError as error:
        raise Rejected(str(error).replace(" - at `$.", ", in `")) from None
