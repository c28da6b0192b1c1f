"""Bounds of connections: how long each may wait, how much it may hold, and how many there are.

uvicorn alone bounds none of this: a head may grow and trickle in for ever, an answer that is never read is kept for
ever, and so is a connection on which nothing comes. A request whose body is late gets its 408 from
`request_body.read_body`. uvicorn is pinned below its next minor release, and tests/service/http/test_uvicorn.py names
each of its internals that is relied on here.
"""

import contextlib
import logging
import resource
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, cast

from msgspec import Struct
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from service.http.body.request_body import MIN_BYTES_PER_SECOND
from service.http.lingering import LingeringTransport
from service.http.response_writer import ResponseWriter

LOGGER = logging.getLogger("evenkeel")
MAX_HEAD_BYTES = 1 << 16
"""Of a request line with its headers; past it 431. What comes in one piece with their first byte is not counted."""

MAX_HELD_BYTES = 256 << 20
HELD_BODIES = 8
"""What bodies that are not whole and answers that are not read may hold, of all connections: so many bytes, or bodies
of the largest size if that is more; past it the oldest end."""

RESERVED_DESCRIPTORS = 48
"""For everything but connections: the bundle, the store, its own sockets, what libraries hold, and `MAX_REFUSED`."""

FIRST_REQUEST_SECONDS = 0.5
"""For a new connection to send its request, after the last one was let in."""

MAX_REFUSED = 8
"""Connections past the most that there may be that hear of it at a time; others may be reset."""

IP_MINTTL, IPV6_MINHOPCOUNT = 21, 73
"""Options of Linux that Python does not name: packets with fewer hops left are dropped (ip(7))."""
FEWEST_HOPS = ((socket.IPPROTO_IP, IP_MINTTL), (socket.IPPROTO_IPV6, IPV6_MINHOPCOUNT))

RejectEarly = Callable[[Any], Sequence[Any] | None]
"""The scope of a request → the two messages that answer it, if it is rejected before its body is read."""

ON_DISCONNECT = "evenkeel.on_disconnect"
"""In a request's scope: a list of what is called when the client disconnects before it has its answer."""

LATE = "408 Request Timeout"
TOO_LARGE = "431 Request Header Fields Too Large"
BUSY = "503 Service Unavailable"


class ConnectionLimits(Struct):
    """``read_seconds`` for a request's head, and between an answer and the end of a body that it did not wait for;
    ``idle_seconds`` between two requests. ``max_body_bytes`` are kept of a body at most. While ``draining`` a
    connection takes no request after the one that it has."""

    read_seconds: float
    idle_seconds: float
    max_connections: int
    max_body_bytes: int
    draining: bool = False


def begin_no_handshake(listening: socket.socket) -> None:
    """From now on who wants to connect hears nothing, on Linux, and is refused when the socket is closed; handshakes
    that were begun come to their end. Otherwise the system would finish one and reset it in the next moment.

    Packets must have 255 hops left, which hardly any client sends. The rule does not hold for the second half of a
    handshake, but for what follows it: `take_all_packets` undoes it for a connection.
    """
    _require_hops(listening, 255)


def take_all_packets(connection: socket.socket) -> None:
    """Of a connection that was accepted from such a socket; packets that were dropped are sent again by its client."""
    _require_hops(connection, 0)


def _require_hops(one: socket.socket, hops: int) -> None:
    if sys.platform == "linux":
        for level, option in FEWEST_HOPS:
            with contextlib.suppress(OSError):  # It is of the other family.
                one.setsockopt(level, option, hops)


class Connection(HttpToolsProtocol):
    """uvicorn's connection within limits."""

    transport: Any
    """A `LingeringTransport`."""

    def __init__(self, limits: ConnectionLimits, reject_early: RejectEarly, **settings: Any):
        super().__init__(**settings)
        self._limits, self._reject_early = limits, reject_early
        self._rejected = False
        self._in_head = self._in_message = self._broken = False
        self._head_bytes = self._body_bytes = 0
        self._unread_since: float | None = None
        self._unread_bytes = 0
        self._requests: deque[RequestResponseCycle] = deque()
        self._wait(limits.read_seconds)

    def _wait(self, seconds: float) -> None:
        """From now on it waits for a request, or for the rest of one, this long at most."""
        self.waits_since: float | None = time.monotonic()
        self._wait_seconds = seconds

    @property
    def held_bytes(self) -> int:
        """What is kept for it of a body that is not whole and of answers that are not read."""
        unread: int = self.transport.get_write_buffer_size()
        return min(self._body_bytes, self._limits.max_body_bytes) + unread

    @property
    def max_held_bytes(self) -> int:
        """What all connections together may hold."""
        return max(MAX_HELD_BYTES, HELD_BODIES * self._limits.max_body_bytes)

    @property
    def _answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        if self._limits.draining:
            take_all_packets(transport.get_extra_info("socket"))
        full = len(self.connections) >= self._limits.max_connections and not _make_room(self.connections)
        lingering: Any = LingeringTransport(transport, self.loop, self._limits.read_seconds, self._is_sent_more)
        super().connection_made(lingering)
        if full:
            # It gives no room to the next one.
            self._broken, self.waits_since = True, None
            self._refuse(BUSY)
            if len(self.connections) > self._limits.max_connections + MAX_REFUSED:
                transport.close()

    def _is_sent_more(self) -> bool:
        """Whether there is more to come of what the client began to send."""
        return self._in_message or self._broken

    def data_received(self, data: bytes) -> None:
        if self.transport.lingers:
            self.transport.dropped(len(data))
            return
        if self._in_head:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._in_head and self._head_bytes > MAX_HEAD_BYTES and not self._answers_those_before():
            self._refuse(TOO_LARGE)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head, self._in_message, self._head_bytes, self._body_bytes = True, True, 0, 0
        self.transport.begin_request()
        self._wait(self._limits.read_seconds)

    def on_headers_complete(self) -> None:
        self._rejected = self._rejected_early()
        if not self._rejected:
            cast(Any, self.scope)[ON_DISCONNECT] = []
            super().on_headers_complete()
            writer: Any = ResponseWriter(self.cycle)
            self.cycle.transport = writer
            self._requests.append(self.cycle)
        self._in_head = False
        self._wait(self._limits.read_seconds)
        if self._limits.draining:
            self.drain()

    def _rejected_early(self) -> bool:
        """Answer a request that is shed, if it can be at once: without a task, and with nothing kept of it."""
        waits = self._requests or self._limits.draining or self.flow.write_paused or self.expect_100_continue
        if waits or self.parser.should_upgrade() or not self.parser.should_keep_alive():
            return False
        self.scope["method"] = self.parser.get_method().decode("ascii")
        self.scope["path"] = self.url.partition(b"?")[0].decode("latin-1")
        messages = self._reject_early(self.scope)
        if messages is None:
            return False
        start, body = messages
        headers = b"".join(b"%b: %b\r\n" % header for header in (*self.server_state.default_headers, *start["headers"]))
        self.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[start["status"]], headers, body["body"]))
        return True

    def on_body(self, body: bytes) -> None:
        if self._rejected or not self._answering:
            self.transport.dropped(len(body))
            return
        super().on_body(body)
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        if not self._rejected:
            super().on_message_complete()
        self._in_message, self.waits_since, self._body_bytes = False, None, 0
        if not self._answering:
            # It was answered, refused that is, before its end.
            self._wait(self._limits.idle_seconds)

    def on_response_complete(self) -> None:
        self._requests.popleft()
        super().on_response_complete()
        self._body_bytes = 0
        if self.waits_since is None:
            self._wait(self._limits.idle_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        for call in [call for request in self._requests for call in cast(Any, request.scope)[ON_DISCONNECT]]:
            call()

    def send_400_response(self, msg: str) -> None:
        self._broken = True
        if not self._answers_those_before():
            if self._answering:
                # The application must not write after this.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            super().send_400_response(msg)

    def _answers_those_before(self) -> bool:
        """Of what is no HTTP: whether requests before it wait for answers; the connection then ends after these."""
        half_read = not self._in_head and self.waits_since is not None
        before = [cycle for cycle in self._requests if not (half_read and cycle is self.cycle)]
        if not before:
            return False
        before[-1].keep_alive = False
        if half_read and self.pipeline:
            self.pipeline.popleft()
        self.flow.pause_reading()
        return True

    def resume_writing(self) -> None:
        # It reads, if slowly.
        self._unread_since = None
        super().resume_writing()

    def drain(self) -> None:
        """Take no request after the one that it has; its answer says so, and the client comes back elsewhere."""
        if self._answering:
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """End it once it has no request; one that is new, or has begun to send, has a moment for it."""
        if not self._answering and (self.cycle is None or self._in_head):
            self.loop.call_later(FIRST_REQUEST_SECONDS, super().shutdown)
        else:
            super().shutdown()

    def end_if_expired(self, now: float) -> None:
        """End it if by ``now`` (`time.monotonic`) its request had to be here, or its answer to be read."""
        if self._unread_too_long(now):
            self.transport.abort()
        elif not self._waits_too_long(now):
            return
        elif self._in_head:
            self._refuse(LATE)
        elif self._in_message:
            # It was listened to for as long as a close would linger.
            self.transport.abort()
        else:
            self.transport.close()

    def _waits_too_long(self, now: float) -> bool:
        if self.transport.lingers or self.waits_since is None or self._answering:
            return False
        return now - self.waits_since > self._wait_seconds

    def _unread_too_long(self, now: float) -> bool:
        size = self.transport.get_write_buffer_size()
        if size and self._unread_since is not None:
            return now - self._unread_since > self._limits.read_seconds + self._unread_bytes / MIN_BYTES_PER_SECOND
        self._unread_since, self._unread_bytes = now if size else None, size
        return False

    def _refuse(self, status: str) -> None:
        """Answer what never reaches the application, and close."""
        if not self.transport.is_closing():
            self.transport.write(f"HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            self.transport.close()


def connection_protocol(limits: ConnectionLimits, reject_early: RejectEarly = lambda _: None) -> Any:
    """What `uvicorn.Config` takes as ``http``; ``reject_early`` is asked about every request before it begins."""
    return partial(Connection, limits, reject_early)


def reap_expired(connections: Iterable[Any]) -> None:
    """End the connections whose time is over, and the oldest of those that hold too much; to be called regularly."""
    now = time.monotonic()
    held, limit, holding = 0, 0, []
    for connection in _ours(connections):
        connection.end_if_expired(now)
        if connection.held_bytes:
            held += connection.held_bytes
            limit = connection.max_held_bytes
            holding.append(connection)
    if held <= limit:
        return
    LOGGER.warning("unfinished requests and unread answers hold %d MiB: the oldest connections end", held >> 20)
    for connection in sorted(holding, key=lambda connection: connection.waits_since or now):
        held -= connection.held_bytes
        connection.transport.abort()
        if held <= limit:
            return


def max_connections(wanted: int) -> int:
    """How many connections the process's file descriptors are enough for, up to ``wanted``; they are raised if it may.

    Some stay free: without one the store and the drift tests cannot write, and no bundle can be loaded.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = wanted + RESERVED_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < needed:
        soft = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return wanted
    possible = max(1, soft - RESERVED_DESCRIPTORS)
    LOGGER.warning("%d connections at most: the process may have no more than %d open files", possible, soft)
    return possible


def _ours(connections: Iterable[Any]) -> list[Connection]:
    return [connection for connection in connections if isinstance(connection, Connection)]


def _make_room(connections: Iterable[Any]) -> bool:
    """End the connection that has waited longest for a request or the rest of one; False if none waits."""
    waiting = [
        (connection.waits_since, place, connection)
        for place, connection in enumerate(_ours(connections))
        if connection.waits_since
    ]
    if not waiting:
        return False
    longest = min(waiting)[2]
    # It is in the set until it is lost; the next who comes must not choose it again.
    longest.waits_since = None
    longest.transport.abort()
    return True
