"""Rows of a table: its columns → passengers → the cells of their predictions."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence

import msgspec
from models.passenger import Passenger, PassengerError, find_columns, parse_passenger

from models.files import AtomicFile
from models.prediction import Prediction
from models.predictor import Predictor

CHUNK_ROWS = 4096
CACHED_ROWS = 1 << 16
"""Distinct passengers whose answer is kept, about a kilobyte each."""
ADDED = ("probability", "survived", "interval_low", "interval_high", "prediction_set", "typicality", "warnings")

Cells = tuple[str, ...]


class ScoreError(Exception):
    """A table that cannot be scored; the message says what to change."""


def commit(output: AtomicFile, faults: AtomicFile, rejected: int) -> None:
    """Put the output in place, and the file of rejected rows or nothing in its."""
    output.commit()
    if rejected:
        faults.commit()
    else:
        faults.discard()


class PredictionCells:
    """Passengers → the cells `ADDED` of their predictions; equal passengers are computed once."""

    def __init__(self, predictor: Predictor):
        self._predictor = predictor
        self._cached: OrderedDict[Passenger, Cells] = OrderedDict()

    def of(self, passengers: Sequence[Passenger]) -> list[Cells]:
        """The cells of each passenger. Raises PredictionError."""
        new = [passenger for passenger in dict.fromkeys(passengers) if passenger not in self._cached]
        computed = dict(zip(new, map(_cells, self._predictor.predict_checked(new)), strict=True))
        cells = [self._cached.get(passenger) or computed[passenger] for passenger in passengers]
        self._cached.update(computed)
        while len(self._cached) > CACHED_ROWS:
            self._cached.popitem(last=False)
        return cells


def _cells(prediction: Prediction) -> Cells:
    confidence = prediction.confidence
    return (
        repr(prediction.probability), str(prediction.survived).lower(), *map(repr, confidence.interval),
        "|".join(confidence.prediction_set), repr(confidence.typicality),
        "; ".join(f"{warning.field}: {warning.message}" for warning in confidence.warnings),
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


def read_passenger(cells: Mapping[str, str]) -> Passenger | str:
    """Cells by field of `Passenger` → the passenger, or the reason why it is none."""
    try:
        return parse_passenger(cells)
    except msgspec.ValidationError as error:
        return str(error).replace(" - at `$.", ", in `")
