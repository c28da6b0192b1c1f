"""How many predictions are kept, and for how long."""

import time

from service.store.prediction_log import PredictionLog, now_ms

TRIM_SECONDS = 60.0
TRIM_SLACK = 1.1
"""Past ``max_rows`` times this the oldest go at once, and not in `TRIM_SECONDS`."""
MS_PER_DAY = 86_400_000


class Retention:
    """Deletes the oldest rows beyond ``max_rows`` and ``max_days``. ``rows`` are those held, about."""

    def __init__(self, log: PredictionLog, max_rows: int, max_days: float):
        self._log, self._max_rows, self._max_ms = log, max_rows, int(max_days * MS_PER_DAY)
        self._due_at = 0.0
        self._delete_below: str | None = None
        self.rows = 0

    def oldest_ms(self) -> int:
        """The time before which nothing is kept."""
        return now_ms() - self._max_ms

    def due(self) -> bool:
        """Whether it is time to count what is held anew."""
        over = self._delete_below is None and self.rows > self._max_rows * TRIM_SLACK
        return over or time.monotonic() >= self._due_at

    def due_now(self) -> None:
        """Nothing is known of the database any more."""
        self._due_at = 0.0

    def count(self) -> None:
        """Count what is held, and find what is beyond the bounds."""
        self.rows = self._log.count()
        self._delete_below = self._log.bound(self._max_rows, self.oldest_ms())
        self._due_at = time.monotonic() + TRIM_SECONDS

    def delete(self, seconds: float) -> None:
        """Delete for so long: faster than new rows come, and nobody waits for it."""
        until = time.monotonic() + seconds
        while self._delete_below is not None:
            deleted = self._log.delete_below(self._delete_below)
            self.rows -= deleted
            if not deleted:
                self._delete_below = None
            elif time.monotonic() > until:
                return
