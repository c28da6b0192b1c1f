"""The drift report as server-sent events, pushed to subscribers when it has changed."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Hashable
from weakref import WeakSet

import msgspec

from service.drift import report as diagnosis
from service.drift.errors import TooManySubscribers
from service.drift.monitor import STREAMS, DriftMonitor

MAX_SUBSCRIBERS = 64
"""Each holds a connection, and no memory that grows: what a slow one has not taken is never queued."""
REPORT_SECONDS = 1.0
"""A report is made at most this often, for all subscribers together."""
LOOK_SECONDS = 0.25
"""How soon a subscriber hears of a change after that, and how soon its stream ends when the service stops."""
KEEP_ALIVE_SECONDS = 15.0
"""A comment after so long without an event, so that no proxy takes the connection for dead."""
RETRY = b"retry: 2000\n\n"


class Subscriber:
    """One open stream. Counted as long as anything holds it, so none is left counted however its stream ended."""


class DriftEvents:
    """The events of the drift report, made once for all subscribers."""

    def __init__(self, max_subscribers: int = MAX_SUBSCRIBERS):
        self._max_subscribers = max_subscribers
        self._subscribers: WeakSet[Subscriber] = WeakSet()
        self._event, self._number, self._made = b"", 0, -math.inf
        self._seen: tuple[Hashable, ...] = ()

    def subscribe(self) -> Subscriber:
        """A place among the subscribers; raises TooManySubscribers."""
        if len(self._subscribers) >= self._max_subscribers:
            raise TooManySubscribers
        subscriber = Subscriber()
        self._subscribers.add(subscriber)
        return subscriber

    async def stream(
        self, subscriber: Subscriber, drift: Callable[[], DriftMonitor], stopping: Callable[[], bool]
    ) -> AsyncIterator[bytes]:
        """The report now, and again after it changed, until ``stopping``; comments in between.

        ``drift`` gives the tests of the bundle that serves now.
        """
        yield RETRY
        sent, last = 0, time.monotonic()
        try:
            while not stopping():
                number, event = self._latest(drift())
                if number != sent:
                    sent, last = number, time.monotonic()
                    yield event
                elif time.monotonic() - last >= KEEP_ALIVE_SECONDS:
                    last = time.monotonic()
                    yield b": still here\n\n"
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            self._subscribers.discard(subscriber)

    def _latest(self, drift: DriftMonitor) -> tuple[int, bytes]:
        """The number of the latest event, and the event."""
        if time.monotonic() - self._made >= REPORT_SECONDS and (seen := _seen(drift)) != self._seen:
            self._number, self._seen, self._made = self._number + 1, seen, time.monotonic()
            report = msgspec.json.encode(diagnosis.report(drift))
            self._event = b"event: drift\nid: %d\ndata: %b\n\n" % (self._number, report)
        return self._number, self._event


def _seen(drift: DriftMonitor) -> tuple[Hashable, ...]:
    """Differs when the report does: its rates change all the time, and nobody needs an event for that."""
    return drift.version, *((drift.log_evidence(name), drift.seen[name], drift.alarms.get(name)) for name in STREAMS)
