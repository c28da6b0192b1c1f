"""When large requests that had no room come back: one after the other, so that each finds room."""

import math
import time
from collections import deque

MAX_OUTSTANDING = 16
"""Promises that one client holds: who comes back early again and again must not lengthen everybody's wait."""

MAX_CLIENTS = 256
"""Whose promises are kept before those that are over are swept out."""


class RetryTimes:
    """Spreads the returns of requests of more than ``large_rows``. Smaller ones fit between them. Not locked."""

    def __init__(self, large_rows: int):
        self._large_rows = large_rows
        # By then all is computed that waits, and that will come back.
        self._busy_until = -math.inf
        self._outstanding: dict[str, deque[float]] = {}

    def seconds(self, client: str, rows: int, wait_seconds: int, work_seconds: float, room_seconds: float) -> int:
        """The ``Retry-After`` of a refused request of so many rows, which by the queue alone would be ``wait_seconds``.

        It takes ``work_seconds`` to compute, and is let in with ``room_seconds`` of others' work before it.
        """
        if rows <= self._large_rows:
            return wait_seconds
        now = time.perf_counter()
        own = self._of(client, now)
        if len(own) >= MAX_OUTSTANDING:
            return max(wait_seconds, math.ceil(own[-1] - now))
        self._busy_until = max(self._busy_until, now + wait_seconds + room_seconds)
        seconds = max(wait_seconds, math.ceil(self._busy_until - room_seconds - now))
        own.append(now + seconds)
        self._busy_until = max(self._busy_until, now + seconds) + work_seconds
        return seconds

    def _of(self, client: str, now: float) -> deque[float]:
        if len(self._outstanding) > MAX_CLIENTS:
            self._outstanding = {name: times for name, times in self._outstanding.items() if times[-1] > now}
        own = self._outstanding.setdefault(client, deque())
        while own and own[0] <= now:
            own.popleft()
        return own
