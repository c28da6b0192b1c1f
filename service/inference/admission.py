"""Which requests are let in: those whose turn will probably come in time."""

import math

from service.inference.errors import QueueFull

ADMISSION_SAFETY_FACTOR = 1.5
"""Times the expected wait that a request must have, to be let in: those that come later and are smaller go first."""

EWMA_ALPHA = 0.1
"""Weight of the last batch in what batches take lately."""

OUTLIER_FACTOR = 30.0
"""Times the average that one batch counts as at most. In a process or machine that was suspended the batch of that
moment seems to have taken hours, and much would be refused for what will not happen again. What is slower from now on
is known after a few batches all the same, and few texts that the cache has not count in full among many that it has."""


class Admission:
    """What a row takes lately, and what is let in by it. Not locked."""

    def __init__(self, max_queue_rows: int, max_batch_rows: int):
        self._max_queue_rows, self._max_batch_rows = max_queue_rows, max_batch_rows
        # 0: not known before the first batch. Until then nobody is refused for a wait that was guessed.
        self.seconds_per_row = 0.0
        # From when a batch is computed until its last answer is out: the event loop has others to see to.
        self._delivery_seconds = 0.0

    def computed(self, rows: int, seconds: float) -> None:
        """A batch took so long, with what passed between it and the one before."""
        self.seconds_per_row = _average(self.seconds_per_row, seconds / rows, first=1.0)

    def delivered(self, seconds: float) -> None:
        """The answers of a batch were out after so long."""
        self._delivery_seconds = _average(self._delivery_seconds, seconds, first=EWMA_ALPHA)

    def seconds_of(self, rows: int, timeout_seconds: float) -> tuple[float, float]:
        """What so many rows take, and how much others' work may be before them if they are to be let in."""
        work = rows * self.seconds_per_row
        longest = timeout_seconds / ADMISSION_SAFETY_FACTOR - self._delivery_seconds
        # Alone it is let in however long it takes.
        before = max(0.0, min(longest, self._max_queue_rows * self.seconds_per_row) - work)
        # As many may come after it into its batch.
        return work, before - min(before / 2, self._max_batch_rows * self.seconds_per_row)

    def refusal(self, rows: int, rows_ahead: int, queued_rows: int, timeout_seconds: float) -> QueueFull | None:
        """Why ``rows`` more would not be let in, if they would not: ``rows_ahead`` are computed before their last."""
        surplus = queued_rows + rows - self._max_queue_rows
        if surplus > 0:
            return QueueFull(max(1, math.ceil(surplus * self.seconds_per_row)))
        # Answered with its batch, it waits for those too that come after it: about as many as wait now.
        company = min(queued_rows, self._max_batch_rows)
        wait = (rows_ahead + rows + company) * self.seconds_per_row + self._delivery_seconds
        if rows_ahead and ADMISSION_SAFETY_FACTOR * wait > timeout_seconds:
            return QueueFull(max(1, math.ceil(wait - timeout_seconds / ADMISSION_SAFETY_FACTOR)))
        return None


def _average(average: float, seconds: float, first: float) -> float:
    """With one more; ``first`` is what the very first weighs."""
    if average == 0:
        return first * seconds
    return average + EWMA_ALPHA * (min(seconds, OUTLIER_FACTOR * average) - average)
