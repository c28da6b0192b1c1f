"""A closed loop of HTTP/1.1 clients in one process that costs little: ready-made bytes out, answers by length in."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

DRAIN_SECONDS = 30.0
"""How long the last answers may take to come in."""


def request(port: int, path: str, body: object = None) -> bytes:
    """A keep-alive request as bytes: POST with a JSON body, GET without."""
    content = b"" if body is None else msgspec.json.encode(body)
    head = (
        f"{'GET' if body is None else 'POST'} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


@dataclass
class Load:
    """What the clients of one turn share and saw; ``seconds`` are of requests answered in the measured window."""

    requests: Iterator[bytes]
    limit: float = float("inf")
    """Requests to send in all."""
    sent: int = 0
    answered: int = 0
    failed: int = 0
    counting: bool = False
    stopped: bool = False
    seconds: list[float] = field(default_factory=list)

    def next(self) -> bytes | None:
        if self.stopped or self.sent >= self.limit:
            return None
        self.sent += 1
        return next(self.requests)

    def take(self, status: bytes, started: float) -> None:
        self.answered += 1
        self.failed += status != b"200"
        if self.counting:
            self.seconds.append(time.perf_counter() - started)


class Client(asyncio.Protocol):
    """One connection: sends, waits for the answer, sends the next. ``done`` when there is no next."""

    def __init__(self, load: Load):
        self._load = load
        self._buffer = bytearray()
        self._expected: int | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._expected is None:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            try:
                self._expected = end + 4 + content_length(bytes(self._buffer[:end]))
            except ValueError as error:
                self.done.set_exception(error)
                self._transport.close()
                return
        if len(self._buffer) >= self._expected:
            self._load.take(bytes(self._buffer[9:12]), self._started)
            self._buffer.clear()
            self._expected = None
            self._send()

    def connection_lost(self, error: Exception | None) -> None:
        if not self.done.done():
            self._load.failed += 1
            self.done.set_result(None)

    def _send(self) -> None:
        content = self._load.next()
        if content is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._started = time.perf_counter()
        self._transport.write(content)


def content_length(head: bytes) -> int:
    """Bytes of the body; raises ValueError where the head does not say."""
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line[15:])
    raise ValueError("an answer without Content-Length")


@dataclass(frozen=True)
class Turn:
    """What a closed loop saw in its measured window."""

    rate: float
    seconds: list[float]
    failed: int


def drive(port: int, requests: Sequence[bytes], clients: int, seconds: float, warm_seconds: float) -> Turn:
    """Keep ``clients`` requests in flight, cycling through ``requests``, and measure after the warm-up."""
    load = Load(itertools.cycle(requests))
    return on_the_loop(_timed(port, load, clients, seconds, warm_seconds))


def send(port: int, requests: Sequence[bytes], clients: int) -> Load:
    """Send each request once, ``clients`` at a time."""
    load = Load(iter(requests), limit=len(requests))
    on_the_loop(_all(port, load, clients, None))
    return load


async def _timed(port: int, load: Load, clients: int, seconds: float, warm_seconds: float) -> Turn:
    loop = asyncio.create_task(_all(port, load, clients, seconds + warm_seconds + DRAIN_SECONDS))
    await asyncio.sleep(warm_seconds)
    load.counting, start = True, time.perf_counter()
    await asyncio.sleep(seconds)
    load.counting, took, counted = False, time.perf_counter() - start, load.seconds
    load.stopped = True
    await loop
    return Turn(len(counted) / took, list(counted), load.failed)


async def _all(port: int, load: Load, clients: int, timeout: float | None) -> None:
    loop = asyncio.get_running_loop()
    connections = [await loop.create_connection(lambda: Client(load), "127.0.0.1", port) for _ in range(clients)]
    try:
        async with asyncio.timeout(timeout):
            await asyncio.gather(*(client.done for _, client in connections))
    except TimeoutError:
        load.failed += sum(not client.done.done() for _, client in connections)
    finally:
        for transport, _ in connections:
            transport.close()


def on_the_loop(work):  # type: ignore[no-untyped-def]
    """On uvloop where it is there: half the client's cost."""
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)
