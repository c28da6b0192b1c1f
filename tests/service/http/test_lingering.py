"""Clients that send all they have before they read: each finds its answer, and none is listened to for ever."""

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
import uvicorn
from uvicorn.server import ServerState

from models.bundle.read import Bundle
from service.http import lingering
from service.http.connections import Connection, ConnectionLimits
from service.http.keys import new_key, write_keys
from service.http.lingering import MAX_DROPPED_BYTES, LingeringTransport
from tests.service.http.test_connections import connected, received
from tests.service.http.test_raw_bytes import JSON, request
from tests.service.processes import Service

BIG = bytes(5_000_000)
CHUNKED = b"Transfer-Encoding: chunked"
CLOSE = b"Connection: close"
EARLY = {
    "413": request(BIG, JSON, CLOSE),
    "413, chunked": request(b"%x\r\n%s\r\n0\r\n\r\n" % (len(BIG), BIG), JSON, CHUNKED, CLOSE),
    "404": request(BIG, JSON, CLOSE, path="/nowhere"),
    "405": request(BIG, JSON, CLOSE, path="/v1/model"),
    "415": request(BIG[:900_000], b"Content-Type: text/csv", CLOSE),
    "400": request(b"zz\r\n" + BIG, JSON, CHUNKED),
    "431": b"GET / HTTP/1.1\r\nHost: localhost\r\nA: " + b"a" * len(BIG),
    "HTTP/1.0 413": request(BIG, JSON).replace(b"HTTP/1.1", b"HTTP/1.0", 1),
}


@pytest.fixture(scope="module")
def service(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tiny_bundle.folder, tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.mark.parametrize("name", EARLY)
def test_an_answer_before_the_end_of_a_request_is_read_by_who_sends_it_all_first(service: Service, name: str) -> None:
    for _ in range(10):
        with connected(service) as connection:
            connection.sendall(EARLY[name])
            head, _, body = received(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 " + name.split(",")[0][-3:].encode())
        assert b"connection: close" in head.lower()
        assert len(body) == int(head.lower().partition(b"content-length: ")[2].split()[0])


def test_pythons_own_client_sees_a_401(tiny_bundle: Bundle, tmp_path: Path) -> None:
    write_keys(tmp_path / "keys.json", [new_key("one", ("predict",))[1]])
    with Service(tiny_bundle.folder, tmp_path, keys=tmp_path / "keys.json") as service:
        asked = Request(f"http://127.0.0.1:{service.port}/v1/predict", BIG, {"Content-Type": "application/json"})
        for _ in range(10):
            with pytest.raises(HTTPError) as raised:
                urlopen(asked, timeout=30)
            assert raised.value.code == 401
            raised.value.close()


def test_a_connection_too_many_is_told_so(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with Service(tiny_bundle.folder, tmp_path, max_connections=1) as service, contextlib.ExitStack() as stack:
        busy = stack.enter_context(connected(service))
        # Its answer does not end, so it never waits for a request.
        busy.sendall(b"GET /v1/drift/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert busy.recv(12) == b"HTTP/1.1 200"
        for _ in range(10):
            with connected(service) as more:
                more.sendall(request(BIG, JSON))
                assert received(more).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        busy.close()


class Clock:
    """An event loop and a transport, with the time in the test's hand."""

    def __init__(self) -> None:
        self.now, self.later, self.calls = 100.0, list[tuple[float, Any]](), list[str]()

    def monotonic(self) -> float:
        return self.now

    def call_later(self, seconds: float, call: Any) -> None:
        self.later.append((self.now + seconds, call))

    def pass_to(self, now: float) -> None:
        self.now = now
        due, self.later = [c for at, c in self.later if at <= now], [one for one in self.later if one[0] > now]
        for call in due:
            call()

    def __getattr__(self, name: str) -> Any:
        def call() -> bool:
            self.calls.append(name)
            return name == "can_write_eof"

        return call

    def is_closing(self) -> bool:
        return "close" in self.calls or "abort" in self.calls


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(lingering, "time", clock)
    return clock


def begun(clock: Any, unfinished: bool = True) -> LingeringTransport:
    transport = LingeringTransport(clock, clock, 10, lambda: unfinished)
    transport.close()
    return transport


def test_who_has_sent_all_is_not_waited_for(clock: Clock) -> None:
    assert not begun(clock, unfinished=False).lingers
    assert clock.calls == ["close"]


def test_who_says_nothing_is_waited_for_a_moment(clock: Clock) -> None:
    transport = begun(clock)
    assert (transport.lingers, transport.is_closing(), clock.is_closing()) == (True, True, False)
    assert clock.calls == ["can_write_eof", "write_eof", "resume_reading"]
    clock.pass_to(101.9)
    transport.dropped(1)
    for now, ended in ((102.0, False), (103.8, False), (103.9, True)):
        clock.pass_to(now)
        assert clock.is_closing() == ended


def test_who_never_ends_is_not_listened_to_for_ever(clock: Clock) -> None:
    transport = begun(clock)
    for tenth in range(1001, 1101):
        assert not clock.is_closing()
        clock.pass_to(tenth / 10)
        transport.dropped(1)
    assert clock.is_closing()


def test_nor_beyond_a_size(clock: Clock) -> None:
    transport = begun(clock)
    transport.dropped(MAX_DROPPED_BYTES)
    assert not clock.is_closing()
    transport.dropped(1)
    assert clock.calls[-1] == "abort"


def test_what_is_dropped_is_counted_by_request(clock: Clock) -> None:
    transport = LingeringTransport(cast(Any, clock), cast(Any, clock), 10, lambda: True)
    for _ in range(3):
        transport.begin_request()
        transport.dropped(MAX_DROPPED_BYTES)
    assert not clock.is_closing()


def test_a_request_that_waits_for_its_body_hears_of_the_end() -> None:
    async def talk() -> tuple[bytes, list[str]]:
        heard, waiting = list[str](), asyncio.Event()

        async def application(scope: Any, receive: Any, send: Any) -> None:
            while (message := await receive())["type"] == "http.request":
                waiting.set()
            heard.append(message["type"])

        limits = ConnectionLimits(30, 60, 4, 100)
        config = uvicorn.Config(application, log_config=None)
        made: Any = partial(Connection, limits, lambda _: None, config=config, server_state=ServerState(), app_state={})
        server = await asyncio.get_running_loop().create_server(made, "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(request(b"2\r\n{}\r\n", JSON, CHUNKED))
            await waiting.wait()
            writer.write(b"zz\r\n")
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
        return answer, heard

    answer, heard = asyncio.run(asyncio.wait_for(talk(), 60))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert heard == ["http.disconnect"]
