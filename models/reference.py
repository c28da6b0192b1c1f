"""What the training distribution looked like: binned probabilities and inputs, to compare live traffic with."""

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
from msgspec import Struct

from models.passenger import INPUT_BINS, InputBins, Passenger

EDGES = tuple(round(i / 10, 1) for i in range(11))
PROBABILITY_BINS = tuple(f"{low:.1f}-{high:.1f}" for low, high in pairwise(EDGES))
MAX_ROWS = 10**9
UNKNOWN, KNOWN = "unknown", "known"


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
        if tuple(self.counts) != bin_names(self.bins) or min(self.counts.values()) < 0:
            raise ValueError(f"counts of {self.bins.field} must be non-negative and name {bin_names(self.bins)}")

    @property
    def range(self) -> tuple[float, float] | None:
        """The least and the largest number among the training rows, if the field is a number and one was known."""
        if not self.bins.edges or self.minimum is None or self.maximum is None:
            return None
        return self.minimum, self.maximum


class Reference(Struct, frozen=True, kw_only=True, dict=True, forbid_unknown_fields=True):
    """Counts over the held-out predictions of the training rows."""

    rows: int
    probability_counts: tuple[int, ...]
    inputs: tuple[InputReference, ...]

    def __post_init__(self) -> None:
        if len(self.probability_counts) != len(PROBABILITY_BINS) or min(self.probability_counts) < 0:
            raise ValueError(f"probability_counts must be {len(PROBABILITY_BINS)} counts")
        for counts in (self.probability_counts, *(field.counts.values() for field in self.inputs)):
            if not 1 <= self.rows <= MAX_ROWS or sum(counts) != self.rows:
                raise ValueError(f"counts must sum to rows, {self.rows}, from 1 to {MAX_ROWS}")

    def warnings(self, passenger: Passenger) -> tuple[InputWarning, ...]:
        """What of this passenger lies outside the training rows."""
        warnings = (_warning(field, getattr(passenger, field.bins.field)) for field in self._limits)
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
        message = None if field.counts[str(value)] else f"{value} does not occur in the training rows"
    else:
        low, high = field.range
        message = None if low <= value <= high else f"{value:g} is outside the training range {low:g}–{high:g}"
    return InputWarning(field.bins.field, message) if message else None


def build_reference(probabilities: np.ndarray, passengers: Sequence[Passenger]) -> Reference:
    """The reference of held-out calibrated probabilities (n,) and their passengers."""
    counts = np.bincount(probability_bins(probabilities), minlength=len(PROBABILITY_BINS))
    return Reference(
        rows=len(passengers), probability_counts=tuple(counts.tolist()),
        inputs=tuple(_input_reference(bins, passengers) for bins in INPUT_BINS),
    )  # fmt: skip


def _input_reference(bins: InputBins, passengers: Sequence[Passenger]) -> InputReference:
    values = [getattr(passenger, bins.field) for passenger in passengers]
    counts = Counter(bin_number(bins, value) for value in values)
    known = [value for value in values if value is not None] if bins.edges else []
    return InputReference(
        bins=bins, counts={name: counts[number] for number, name in enumerate(bin_names(bins))},
        minimum=float(min(known)) if known else None, maximum=float(max(known)) if known else None,
    )  # fmt: skip


def probability_bins(probabilities: np.ndarray) -> np.ndarray:
    """Bin number 0 … 9 of each probability: tenths that hold their lower edge, the last both."""
    return np.clip(np.searchsorted(EDGES, probabilities, "right") - 1, 0, len(PROBABILITY_BINS) - 1)


def probability_bin(probability: float) -> int:
    """`probability_bins` of one probability, without an array."""
    return bisect_right(EDGES, probability, 1, len(EDGES) - 1) - 1


@lru_cache(64)
def bin_names(bins: InputBins) -> tuple[str, ...]:
    """All bins of a field, ``unknown`` last."""
    spans = tuple(f"{low:g}-{high:g}" for low, high in pairwise(bins.edges))
    return (*(spans or bins.levels or (KNOWN,)), UNKNOWN)


def input_bins(passengers: Sequence[Passenger]) -> np.ndarray:
    """Bin numbers (B, F) of passengers, in the order of `INPUT_BINS`."""
    return bins_array([bin_numbers(passenger) for passenger in passengers])


def bins_array(numbers: Sequence[tuple[int, ...]]) -> np.ndarray:
    """The `bin_numbers` of passengers as an array (B, F)."""
    return np.array(numbers, np.int64).reshape(-1, len(INPUT_BINS))


def bin_numbers(passenger: Passenger) -> tuple[int, ...]:
    """The number of each field's bin, in the order of `INPUT_BINS`."""
    return tuple([bin_number(bins, getattr(passenger, bins.field)) for bins in INPUT_BINS])


def bin_number(bins: InputBins, value: Any) -> int:
    """The number of a value's bin among the field's `bin_names`."""
    if value is None or value == "":
        return len(bins.edges) - 1 if bins.edges else len(bins.levels or (KNOWN,))
    if bins.levels:
        return bins.levels.index(str(value))
    return min(len(bins.edges) - 2, bisect_right(bins.edges, value) - 1) if bins.edges else 0
