"""What the training distribution looked like: binned probabilities and inputs, to compare live traffic with."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec import Struct

from models.bins.input_binner import InputBinner
from models.bins.input_bins import OTHER, InputBins
from models.calibration.logit import class_probabilities
from models.rows import Row
from models.schema import Field, Schema

if TYPE_CHECKING:
    from models.bert.tokenizer import Tokenizer

EDGES = tuple(round(i / 10, 1) for i in range(11))
PROBABILITY_BINS = tuple(f"{low:.1f}-{high:.1f}" for low, high in pairwise(EDGES))
MAX_ROWS = 10**9
MAX_CLASSES_IN_TENTHS = 20
"""Of more classes the top probability is cut in halves only, so that the number of cells stays bounded."""


class PredictionBins:
    """Cells of predictions: of two classes the tenths of the positive class's probability; of more the class of the
    greatest probability with its tenth, from the one that holds 1/K on, or with its half where there are many classes.

    ``names`` are what metrics and `Reference` call them, in order: at most 200.
    """

    def __init__(self, classes: Sequence[str]):
        self._two, count = len(classes) == 2, len(classes)
        tenths = EDGES[bisect_right(EDGES, 1 / count) - 1 :]
        self._edges = EDGES if self._two else tenths if count <= MAX_CLASSES_IN_TENTHS else (0.0, 0.5, 1.0)
        self._each = len(self._edges) - 1
        cells = [f"{low:.1f}-{high:.1f}" for low, high in pairwise(self._edges)]
        self.names = tuple(cells) if self._two else tuple(f"{name} {cell}" for name in classes for cell in cells)

    def of_row(self, probabilities: Sequence[float]) -> int:
        """Probabilities (K) of the classes → the number of the cell; a cell holds its lower edge, the last both."""
        if self._two:
            return probability_bin(probabilities[1])
        top = top_class(probabilities)
        return top * self._each + bisect_right(self._edges, probabilities[top], 1, self._each) - 1

    def of(self, probabilities: np.ndarray) -> np.ndarray:
        """`of_row` of each row of probabilities (n, K): (n,) int64."""
        return np.array([self.of_row(row) for row in probabilities.tolist()], np.int64)


def top_class(probabilities: Sequence[float]) -> int:
    """The number of the class with the greatest probability, the later one of equals."""
    return len(probabilities) - 1 - probabilities[::-1].index(max(probabilities))


class InputWarning(Struct, frozen=True):
    """A value that the training rows do not cover."""

    field: str
    message: str


class InputReference(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One field over the training rows: ``counts`` per bin, and the range of a number."""

    bins: InputBins
    counts: dict[str, int]
    minimum: float | None = None
    maximum: float | None = None

    def __post_init__(self) -> None:
        if tuple(self.counts) != self.bins.names or min(self.counts.values()) < 0:
            raise ValueError(f"counts of {self.bins.field} must be non-negative and name {self.bins.names}")

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the largest number among the training rows, if the field is a number and one was known."""
        if not self.bins.edges or self.minimum is None or self.maximum is None:
            return None
        return self.minimum, self.maximum


class Reference(Struct, frozen=True, kw_only=True, dict=True, forbid_unknown_fields=True):
    """Counts over the held-out predictions of the training rows: ``probability_counts`` by cell (`PredictionBins`)."""

    rows: int
    probability_counts: tuple[int, ...]
    inputs: tuple[InputReference, ...]

    def __post_init__(self) -> None:
        if not self.probability_counts or min(self.probability_counts) < 0:
            raise ValueError("probability_counts must be counts")
        for counts in (self.probability_counts, *(field.counts.values() for field in self.inputs)):
            if not 1 <= self.rows <= MAX_ROWS or sum(counts) != self.rows:
                raise ValueError(f"counts must sum to rows, {self.rows}, from 1 to {MAX_ROWS}")

    def warnings(self, row: Row) -> tuple[InputWarning, ...]:
        """What of this row lies outside the training rows."""
        warnings = (_warning(field, getattr(row, field.bins.field)) for field in self._limits)
        return tuple(warning for warning in warnings if warning is not None)

    @cached_property
    def _limits(self) -> tuple[InputReference, ...]:
        """The fields that can have values which the training rows do not cover."""
        return tuple(
            field for field in self.inputs if field.range or not all(field.counts[level] for level in field.bins.levels)
        )


def _warning(field: InputReference, value: Any) -> InputWarning | None:
    if value is None:
        return None
    if field.range is None:
        seen = field.counts.get(level_name(value), field.counts.get(OTHER, 0))
        message = None if seen else f"{level_name(value)} does not occur in the training rows"
    else:
        low, high = field.range
        message = None if low <= value <= high else f"{value:g} is outside the training range {low:g}–{high:g}"
    return InputWarning(field.bins.field, message) if message else None


def level_name(value: bool | int | str) -> str:
    """A level as bins, metrics and words name it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def build_reference(
    probabilities: np.ndarray, rows: Sequence[Row], schema: Schema, tokenizer: "Tokenizer | None" = None
) -> Reference:
    """The reference of held-out calibrated probabilities, (n,) of the positive of two classes or (n, K), and their
    rows; ``tokenizer`` as of `InputBinner`."""
    cells = PredictionBins(schema.classes)
    counts = np.bincount(cells.of(class_probabilities(probabilities)), minlength=len(cells.names))
    return Reference(
        rows=len(rows), probability_counts=tuple(counts.tolist()),
        inputs=tuple(
            _input_reference(field, column, rows)
            for field, column in zip(schema.fields, InputBinner(schema, tokenizer).columns(rows), strict=True)
        ),
    )  # fmt: skip


def _input_reference(field: Field, numbers: Sequence[int], rows: Sequence[Row]) -> InputReference:
    bins, counts = field.input_bins, Counter(numbers)
    values = (getattr(row, field.name) for row in rows)
    known = [value for value in values if value is not None] if bins.edges else []
    return InputReference(
        bins=bins, counts={name: counts[number] for number, name in enumerate(bins.names)},
        minimum=float(min(known)) if known else None, maximum=float(max(known)) if known else None,
    )  # fmt: skip


def probability_bins(probabilities: np.ndarray) -> np.ndarray:
    """Bin number 0 … 9 of each probability: tenths that hold their lower edge, the last both."""
    return np.clip(np.searchsorted(EDGES, probabilities, "right") - 1, 0, len(PROBABILITY_BINS) - 1)


def probability_bin(probability: float) -> int:
    """`probability_bins` of one probability, without an array."""
    return bisect_right(EDGES, probability, 1, len(EDGES) - 1) - 1
