"""Which bins the rows of recent predictions are in, kept in memory until their outcomes come."""

from array import array
from collections.abc import Sequence

MAX_PREDICTIONS = 1 << 16
"""About 250 bytes each."""


class RecentBins:
    """Of the last ``max_predictions``; nothing of it is ever on a disk."""

    def __init__(self, max_predictions: int = MAX_PREDICTIONS):
        self._max = max_predictions
        self._bins: dict[str, bytes] = {}

    def remember(self, id: str, bins: Sequence[int]) -> None:
        """Keep the bins (F,) of a prediction's row; the oldest prediction goes where there are too many."""
        self._bins[id] = array("H", bins).tobytes()
        if len(self._bins) > self._max:
            del self._bins[next(iter(self._bins))]

    def take(self, id: str) -> tuple[int, ...] | None:
        """The bins of a prediction, which has its outcome now; None where they are not known."""
        kept = self._bins.pop(id, None)
        return None if kept is None else tuple(array("H", kept))
