"""Clients that take their time, and too many of them: each is ended in the end, and others are served meanwhile."""

import asyncio
import contextlib
import http.client
import re
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from models.bundle.read import Bundle
from service.http import connections
from service.http.connections import (
    MAX_HEAD_BYTES,
    Connection,
    ConnectionLimits,
    begin_no_handshake,
    max_connections,
    reap_expired,
    take_all_packets,
)
from tests.service.http.test_raw_bytes import GOOD, JSON, request
from tests.service.processes import Service

CONNECTIONS = 12


@pytest.fixture(scope="module")
def service(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    limits: dict[str, Any] = {"read_seconds": 1, "idle_seconds": 2, "max_connections": CONNECTIONS}
    with Service(tiny_bundle.folder, tmp_path_factory.mktemp("service"), **limits) as service:
        yield service


@contextlib.contextmanager
def connected(service: Service) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        yield connection


def trickle(connection: socket.socket, sent: bytes, pause: float = 0.1) -> None:
    """Send byte by byte until all is sent or the other side has had enough."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for byte in sent:
            connection.send(bytes([byte]))
            time.sleep(pause)
            connection.setblocking(False)
            try:
                if connection.recv(1, socket.MSG_PEEK) is not None:
                    return
            except BlockingIOError:
                pass
            finally:
                connection.settimeout(30)


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            found += piece
    return found


def status(connection: socket.socket) -> int:
    """That of the answer, which is read whole."""
    response = http.client.HTTPResponse(connection)
    response.begin()
    response.read()
    return response.status


def test_a_head_that_trickles_in_gets_408(service: Service) -> None:
    with connected(service) as connection:
        trickle(connection, request(GOOD, JSON))
        assert received(connection).startswith(b"HTTP/1.1 408 Request Timeout\r\n")


def test_so_does_that_of_a_later_request(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(request(GOOD, JSON))
        assert status(connection) == 200
        trickle(connection, request(GOOD, JSON))
        assert b"HTTP/1.1 408 Request Timeout\r\n" in received(connection)


def test_a_body_that_trickles_in_gets_a_problem_and_is_counted(service: Service) -> None:
    before = service.value("rejected_total", reason="too_slow")
    with connected(service) as connection:
        connection.sendall(request(GOOD, JSON)[: -len(GOOD)])
        trickle(connection, GOOD)
        head, _, body = received(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 Request Timeout\r\n")
    assert b"connection: close" in head.lower()
    assert b'"status":408' in body
    assert service.value("rejected_total", reason="too_slow") == before + 1


def test_a_body_at_a_fair_rate_is_awaited(service: Service) -> None:
    body = b'{"rows":[' + b",".join([GOOD] * 100) + b"]}"
    whole = request(body, JSON, path="/v1/predict/batch")
    with connected(service) as connection:
        for first in range(0, len(whole), 3000):
            connection.sendall(whole[first : first + 3000])
            time.sleep(0.4)
        assert status(connection) == 200


@pytest.mark.parametrize("first", [b"", b"\r\n", request(GOOD, JSON)], ids=["silent", "lines", "after an answer"])
def test_a_connection_without_a_request_is_closed(service: Service, first: bytes) -> None:
    with connected(service) as connection:
        connection.sendall(first)
        answer = received(connection)
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(b"HTTP/1.1") == (first != b"" and first != b"\r\n")


def test_what_follows_a_refusal_is_not_awaited_for_ever(service: Service) -> None:
    with connected(service) as connection:
        connection.sendall(request(b"{", JSON, length=9_999_999))
        assert status(connection) == 413
        trickle(connection, b" " * 600)
        assert received(connection) == b""


@pytest.mark.parametrize("before", [b"", request(GOOD, JSON)], ids=["alone", "behind another"])
@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nHost: x\r\nA: "], ids=["path", "header"])
def test_a_head_without_end_is_refused(service: Service, before: bytes, start: bytes) -> None:
    with connected(service) as connection:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            connection.sendall(before + start)
            for _ in range(100):
                connection.sendall(b"a" * MAX_HEAD_BYTES)
        answer = received(connection)
    if not before:
        refused = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        assert answer == refused
    assert service.get("/health/ready")[0] == 200


@pytest.mark.parametrize(
    "after",
    [b"\0 nonsense\r\n\r\n", request(b"zz\r\n{}\r\n0\r\n\r\n", JSON, b"Transfer-Encoding: chunked")],
    ids=["no head", "no chunk"],
)
def test_requests_before_what_is_no_http_are_answered(service: Service, after: bytes) -> None:
    # The first is slow, so that what follows it is read before it is answered.
    slow = request(b'{"rows":[' + b",".join([GOOD] * 900) + b"]}", JSON, path="/v1/predict/batch")
    with connected(service) as connection:
        connection.sendall(slow + request(GOOD, JSON) + after)
        answer = received(connection)
    assert re.findall(rb"HTTP/1.1 (\d\d\d) [A-Z]", answer) == [b"200", b"200"]
    assert b"Exception" not in service.log.read_bytes()


def test_one_more_connection_ends_the_one_that_has_waited_longest(service: Service) -> None:
    service.until(lambda: service.descriptors() < 60)
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(connected(service))
        busy = stack.enter_context(connected(service))
        for _ in range(3 * CONNECTIONS):
            stack.enter_context(connected(service))
            # A connection that is used has not waited long.
            busy.sendall(request(GOOD, JSON))
            assert status(busy) == 200
        assert received(first) == b""
        assert service.post("/v1/predict", {"pclass": 1, "sex": "male"})[0] == 200


class Transport:
    """A connection's other side that reads nothing."""

    def __init__(self) -> None:
        self.unread, self.aborted = 0, False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, _: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None: ...


@pytest.fixture
def lone() -> Connection:
    async def make() -> Connection:
        async def nothing(scope: Any, receive: Any, send: Any) -> None: ...

        held = Connection(
            ConnectionLimits(10, 60, 4, 100), lambda _: None, config=uvicorn.Config(nothing),
            server_state=ServerState(), app_state={},
        )  # fmt: skip
        held.connection_made(Transport())
        return held

    return asyncio.run(make())


def test_an_answer_that_is_not_read_is_given_up(lone: Connection) -> None:
    transport = cast(Any, lone.transport)._transport
    transport.unread, now = 40 << 10, time.monotonic()
    for seconds, ended in ((0, False), (19, False), (21, True)):
        lone.end_if_expired(now + seconds)
        assert transport.aborted == ended


def test_an_answer_that_is_read_slowly_is_not(lone: Connection) -> None:
    transport = cast(Any, lone.transport)._transport
    lone.waits_since, now = None, time.monotonic()
    for seconds in range(0, 100, 5):
        transport.unread = 40 << 10
        lone.end_if_expired(now + seconds)
        lone.resume_writing()
    transport.unread = 0
    lone.end_if_expired(now + 200)
    assert not transport.aborted


def test_what_all_hold_together_is_bounded(lone: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_HELD_BYTES", 1000)
    transport = cast(Any, lone.transport)._transport
    transport.unread = 1000
    reap_expired([lone])
    assert not transport.aborted
    transport.unread = 1001
    reap_expired([lone])
    assert transport.aborted


def test_a_stream_holds_no_more_than_a_body(lone: Connection) -> None:
    lone.on_message_begin()
    lone._body_bytes = 1 << 40
    assert lone.held_bytes == 100


def test_open_files_are_raised_or_connections_lowered() -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        assert max_connections(100) == 100
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, hard)
        assert max_connections(500) == 500
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 500
        assert max_connections(1 << 30) < hard
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.skipif(sys.platform != "linux", reason="the option is Linux's")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_before_a_socket_closes_no_handshake_begins_and_none_is_lost(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listening:
        address = listening.getsockname()[:2]
        with socket.create_connection(address) as waiting:
            begin_no_handshake(listening)
            with pytest.raises(TimeoutError):
                socket.create_connection(address, timeout=0.3)
            waiting.sendall(b"waited")
            with listening.accept()[0] as accepted:
                assert accepted.recv(16) == b"waited"
                # As one whose handshake ended after the rule was made.
                begin_no_handshake(accepted)
                waiting.sendall(b"dropped at first")
                accepted.settimeout(0.1)
                with pytest.raises(TimeoutError):
                    accepted.recv(16)
                take_all_packets(accepted)
                accepted.settimeout(10)
                assert accepted.recv(16) == b"dropped at first"
