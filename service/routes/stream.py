"""POST /v1/predict/stream: any number of rows, one a line, answered in order as they are ready.

request → Lines → chunks, one task each → responses in order

A reader and a writer run side by side. Between them are at most `MAX_CHUNKS` chunks of rows: when the client does not
take its answers the writer blocks, the chunks fill up, and nothing more is read. A chunk never waits for more rows: it
is whatever has arrived, and while all chunks are in flight what arrives gathers in the connection's own bounded buffer.
"""

import asyncio
import http
import logging
import time
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from litestar import post
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ASGIApp, Message, Receive, Scope, Send

from models.rows import Row
from service.http.errors import SHOWN_CHARACTERS, RateLimited, ServiceError, WrongMediaType
from service.inference.errors import InferenceError, NotReady, PredictionFailed, QueueFull
from service.routes.lines import Line, LineProblem, Lines, ParsedLine, line_problem, line_refusal, parse_line
from service.routes.openapi.description import PARAMETERS, TAKES, TIMEOUT, TRIAL, Body
from service.routes.openapi.refusals import TIMEOUT_REFUSAL, refusals
from service.routes.predict import predict_and_record
from service.routes.request import AnyRequest, headers_of, not_ready, request_timeout, services_of, table_of
from service.routes.schemas import PredictionResponse
from service.routes.table import Table

LOGGER = logging.getLogger("evenkeel")
NDJSON = "application/x-ndjson"
NDJSON_TYPES = (NDJSON, "application/ndjson", "application/jsonl")
MAX_CHUNKS = 4
"""Chunks of a stream that are in flight, read and not yet sent: one computed, one waiting for that, two being read or
sent."""
POLL_SECONDS = 0.1
"""How often a reader that waits for its client looks whether the service stops."""
LINGER_SECONDS, QUIET_SECONDS = 5.0, 0.5
"""For how long what a client still sends is read after its stream was ended early, and the pause that ends that sooner:
an unread rest would reset the connection, and with it the last answers."""
FULL_QUEUE_SECONDS = (0.05, 1.0)
"""First and longest pause before a chunk is offered again to a full queue."""
RATE_SECONDS = 1.0
"""Longest pause before a chunk is offered again under a key whose rate is used up; a stop is noticed as soon."""
ENCODER = msgspec.json.Encoder()
ANSWER: Any = PredictionResponse | LineProblem
"""A line of the response."""


class ClientGone(Exception):
    """The client has left, or takes nothing any more."""


class Stream:
    """One request of the route, as an ASGI application."""

    def __init__(self, request: AnyRequest):
        services = services_of(request)
        settings = services.settings
        self._request, self._batcher, self._metrics = request, services.batcher, services.metrics
        self._form = table_of(request).row
        self._stream_rows = services.stream_rows
        self._idle_seconds = settings.timeout_seconds
        # A batch of the device, and never more than the queue can take.
        self._chunk_rows = min(settings.max_batch_rows, settings.max_queue_rows)
        self._free = asyncio.Semaphore(MAX_CHUNKS)
        self._chunks: asyncio.Queue[asyncio.Task[bytes] | LineProblem | None] = asyncio.Queue()
        self._unsent = 0
        self._last_heard = time.monotonic()
        self._sent_all = False

    async def __call__(self, _: Scope, receive: Receive, send: Send) -> None:
        """Answer the stream; no task outlives it."""
        # Proxies that gather a response before they pass it on would hold back answers that the client waits for.
        headers = [(b"content-type", NDJSON.encode()), (b"x-accel-buffering", b"no"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                self._ahead = tasks.create_task(self._receive(receive))
                reader = tasks.create_task(self._read(receive))
                await self._write(send)
                reader.cancel()
                self._ahead.cancel()
        except* ClientGone as gone:
            # The rest is not sent: a response that is cut off must not look like one that is whole.
            LOGGER.info("a stream ended early: %s", gone.exceptions[0])
        else:
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _receive(self, receive: Receive) -> Any:
        """The next piece of the request. One is always waited for, also after the last: so it is seen that a client
        disconnects, whatever else waits."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone("the client has left")
        self._last_heard = time.monotonic()
        return message

    async def _read(self, receive: Receive) -> None:
        """Read until the client has sent all or is silent, or the service stops."""
        lines, more = Lines(), True
        last: LineProblem | None = None
        while more and last is None:
            message = await self._next(receive)
            if message is None:
                last = self._silence(lines.ended + 1)
                break
            more = bool(message.get("more_body"))
            last = await self._split_chunks(lines.split(message.get("body", b"")))
        if last is None:
            last = await self._split_chunks(lines.finish())
        self._chunks.put_nowait(last)
        while more:
            message = await self._next(receive, patient=True)
            more = bool(message.get("more_body"))
        self._sent_all = True

    async def _next(self, receive: Receive, patient: bool = False) -> Any:
        """The next piece; None when the service stops, or the client has sent nothing for too long."""
        while not (await asyncio.wait({self._ahead}, timeout=POLL_SECONDS))[0]:
            # A client that waits for an answer of ours owes us nothing.
            idle = not self._unsent and time.monotonic() - self._last_heard > self._idle_seconds
            if (idle or self._batcher.draining) and not patient:
                return None
        message = self._ahead.result()
        self._ahead = self._tasks.create_task(self._receive(receive))
        return message

    def _silence(self, line: int) -> LineProblem:
        if self._batcher.draining:
            return self._stopping(line)
        detail = f"nothing was sent for {self._idle_seconds:g} seconds, so the stream ends; send from line {line} again"
        return line_problem(line, http.HTTPStatus.REQUEST_TIMEOUT, detail)

    def _stopping(self, line: int) -> LineProblem:
        detail = f"the service is stopping and takes no more lines; send from line {line} again, elsewhere or later"
        return line_problem(line, http.HTTPStatus.SERVICE_UNAVAILABLE, detail)

    async def _split_chunks(self, lines: Iterable[Line]) -> LineProblem | None:
        """Lines that have arrived → chunks; the problem that ends the stream when the service stops meanwhile."""
        parsed: list[ParsedLine] = []

        def close() -> None:
            self._chunks.put_nowait(self._tasks.create_task(self._answers(parsed)))

        for line in lines:
            if not parsed:
                await self._free.acquire()
                if self._batcher.draining:
                    return self._stopping(line.number)
                self._unsent += 1
            parsed.append(parse_line(line, self._form))
            if isinstance(parsed[-1].content, LineProblem):
                # To say what is wrong with a long line takes milliseconds, and others wait for the event loop.
                await asyncio.sleep(0)
            if len(parsed) == self._chunk_rows:
                close()
                parsed = []
        if parsed:
            close()
        return None

    async def _answers(self, parsed: Sequence[ParsedLine]) -> bytes:
        """What the client is sent for a chunk, in its order."""
        good = [(line, content) for line, content in parsed if not isinstance(content, LineProblem)]
        predicted = iter(await self._predict(good))
        answers = [each.content if isinstance(each.content, LineProblem) else next(predicted) for each in parsed]
        refused = sum(isinstance(answer, LineProblem) for answer in answers)
        self._metrics.streamed(len(answers) - refused, refused)
        return ENCODER.encode_lines(answers)

    async def _predict(self, rows: Sequence[tuple[int, Row]]) -> list[PredictionResponse | LineProblem]:
        if not rows:
            return []
        try:
            return await self._with_permits([row for _, row in rows])
        except (InferenceError, ServiceError) as error:
            if isinstance(error, PredictionFailed) and len(rows) > 1:
                # One bad row costs nobody else an answer.
                return [answer for row in rows for answer in await self._predict([row])]
            return [line_refusal(line, error) for line, _ in rows]

    async def _with_permits(self, rows: Sequence[Row]) -> list[PredictionResponse | LineProblem]:
        """Their predictions, as fast as the key's rate lets them; who waits for that holds no permits."""
        while True:
            try:
                async with self._stream_rows.acquired(len(rows)):
                    return [*await self._offer(rows)]
            except RateLimited as error:
                if self._batcher.draining:
                    raise
                await asyncio.sleep(min(error.wait_seconds, RATE_SECONDS))

    async def _offer(self, rows: Sequence[Row]) -> list[PredictionResponse]:
        """Their predictions; while the queue is full, wait and offer again: a stream has time, and single requests go
        before."""
        pause, longest = FULL_QUEUE_SECONDS
        while True:
            try:
                return (await predict_and_record(self._request, rows, body_read=False))[1]
            except QueueFull:
                await asyncio.sleep(pause)
                pause = min(2 * pause, longest)

    async def _write(self, send: Send) -> None:
        """Send the chunks in order, each as soon as it is ready."""
        while isinstance(chunk := await self._chunks.get(), asyncio.Task):
            # Awaited itself, it would be given a cancellation that is meant for us, and might end before it sees it.
            await asyncio.wait({chunk})
            await self._send(send, chunk.result())
            self._last_heard = time.monotonic()
            self._unsent -= 1
            self._free.release()
        if chunk is not None:
            await self._send(send, ENCODER.encode_lines([chunk]))
            await self._linger()

    async def _linger(self) -> None:
        last = time.monotonic() + LINGER_SECONDS
        while not self._sent_all and time.monotonic() < min(last, self._last_heard + QUIET_SECONDS):
            await asyncio.sleep(POLL_SECONDS)

    async def _send(self, send: Send, body: bytes) -> None:
        message: Message = {"type": "http.response.body", "body": body, "more_body": True}
        try:
            async with asyncio.timeout(self._idle_seconds):
                await send(message)
        except TimeoutError:
            raise ClientGone(f"the client took no answer for {self._idle_seconds:g} seconds") from None


def _check(request: AnyRequest) -> None:
    """Raise what is wrong with the request as a whole, while it can still be the response's status."""
    media_type, _, parameters = headers_of(request).get("content-type", "").partition(";")
    charset = parameters.lower().replace(" ", "").replace('"', "")
    if media_type.strip().lower() not in NDJSON_TYPES or charset not in ("", "charset=utf-8"):
        shown = headers_of(request).get("content-type", "")[:SHOWN_CHARACTERS] or "absent"
        raise WrongMediaType(f"Content-Type is {shown}; it must be {NDJSON} or application/jsonl, in UTF-8")
    coding = headers_of(request).get("content-encoding", "identity")
    if coding.strip().lower() not in ("", "identity"):
        raise WrongMediaType(f"Content-Encoding is {coding[:SHOWN_CHARACTERS]}; a stream must not be compressed")
    request_timeout(request)
    services_of(request).access.trial(request.scope)
    batcher = services_of(request).batcher
    if batcher.draining:
        raise NotReady("the service is stopping")
    if not batcher.ready:
        raise not_ready(batcher)


STREAM_REFUSALS = refusals(
    TIMEOUT_REFUSAL,
    (
        "Content-Type is not that of JSON lines, or Content-Encoding is there",
        WrongMediaType(f"Content-Type is text/plain; it must be {NDJSON} or application/jsonl, in UTF-8"),
    ),
    ("not loaded yet, or stopping", NotReady("the model is being loaded")),
)


def lines_body(table: Table) -> Body:
    """A row a line."""
    example = msgspec.json.Encoder().encode_lines([table.example, table.short_example]).decode()
    return Body(table.row, example, media_types=(NDJSON,))


@post(
    "/v1/predict/stream", status_code=200, operation_id="predictStream", summary="Predict any number of rows",
    tags=["predictions"], opt={TAKES: lines_body, PARAMETERS: [TIMEOUT, TRIAL]},
    responses={
        200: ResponseSpec(ANSWER, description="a line each, in the rows' order", media_type=NDJSON),
        **STREAM_REFUSALS,
    },
)  # fmt: skip
async def predict_stream(request: AnyRequest) -> ASGIApp:
    """Any number of rows, one JSON object a line → a line each, in order, as they are ready.

    A line that cannot be answered gets a problem in its place, with its number, and the stream goes on. The schemas
    are of all lines together, as an array. ``X-Request-Timeout-Ms`` is for each line.
    """
    _check(request)
    return Stream(request)
