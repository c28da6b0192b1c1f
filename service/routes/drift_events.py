"""Server-sent events: the drift report, pushed to whoever follows it when it has changed."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Hashable
from typing import Annotated, Any, Literal
from weakref import WeakSet

import msgspec
from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec
from litestar.response import Stream
from msgspec import Meta, Struct

from service.drift import report as diagnosis
from service.drift.monitor import STREAMS, Drift
from service.http.errors import NotReady, TooManySubscribers
from service.inference.batcher import Batcher
from service.routes.openapi.document import refusals
from service.routes.prediction import AnyRequest, batcher_of, drift_of

MAX_SUBSCRIBERS = 64
"""Each holds a connection, and no memory that grows: what a slow one has not taken is never queued."""
REPORT_SECONDS = 1.0
"""A report is made at most this often, for all subscribers together."""
LOOK_SECONDS = 0.25
"""How soon a subscriber hears of a change after that, and how soon its stream ends when the service stops."""
KEEP_ALIVE_SECONDS = 15.0
"""A comment after so long without an event, so that no proxy takes the connection for dead."""
RETRY = b"retry: 2000\n\n"
EVENT_STREAM = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class DriftEvent(Struct, frozen=True):
    """A server-sent event; its data are a DriftReport."""

    event: Literal["drift"]
    id: str
    data: Annotated[
        str,
        Meta(
            extra_json_schema={
                "contentMediaType": "application/json", "contentSchema": {"$ref": "#/components/schemas/DriftReport"},
            }
        ),
    ]  # fmt: skip


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
        self, subscriber: Subscriber, drift: Callable[[], Drift], batcher: Batcher
    ) -> AsyncIterator[bytes]:
        """The report now, and again after it changed, until the service stops; comments in between.

        ``drift`` gives the tests of the bundle that serves now.
        """
        yield RETRY
        sent, last = 0, time.monotonic()
        try:
            while not stopping(batcher):
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

    def _latest(self, drift: Drift) -> tuple[int, bytes]:
        """The number of the latest event, and the event."""
        if time.monotonic() - self._made >= REPORT_SECONDS and (seen := _seen(drift)) != self._seen:
            self._number, self._seen, self._made = self._number + 1, seen, time.monotonic()
            report = msgspec.json.encode(diagnosis.report(drift))
            self._event = b"event: drift\nid: %d\ndata: %b\n\n" % (self._number, report)
        return self._number, self._event


def _seen(drift: Drift) -> tuple[Hashable, ...]:
    """Differs when the report does: its rates change all the time, but nobody need be told of that."""
    return drift.version, *((drift.log_evidence(one), drift.seen[one], drift.alarms.get(one)) for one in STREAMS)


def stopping(batcher: Batcher) -> bool:
    """Whether the process is about to end: uvicorn waits for open streams before it tells the application."""
    return batcher.draining or not batcher.ready


@get(
    "/v1/drift/events", operation_id="followDrift", summary="Follow what has changed", tags=["drift"],
    responses={
        200: ResponseSpec(DriftEvent, media_type=EVENT_STREAM, description="without end; the schema is of each event"),
        **refusals(
            ("not loaded yet, or stopping", NotReady("the model is being loaded")),
            (f"{MAX_SUBSCRIBERS} clients follow already", TooManySubscribers()),
        ),
    },
)  # fmt: skip
async def drift_events(request: AnyRequest) -> Response[Any]:
    """Server-sent events named ``drift``: the report now, and again, at most once a second, when it has changed."""
    batcher = batcher_of(request)
    drift_of(request)
    if stopping(batcher):
        raise NotReady(batcher.failure or "stopping")
    if request.scope["state"]["exchange"].method == "HEAD":
        # Routed as GET; a stream without a body would be open for ever, and say nothing.
        return Response(b"", media_type=EVENT_STREAM, headers=HEADERS)
    events: DriftEvents = request.app.state.drift_events
    subscriber = events.subscribe()
    return Stream(
        events.stream(subscriber, lambda: drift_of(request), batcher), media_type=EVENT_STREAM, headers=HEADERS
    )
