"""Early rejection: the same answer as the queue's, nothing of the request read, and nobody else kept out."""

import asyncio
import contextlib
import re
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from models.bundle.read import Bundle
from models.prediction import EncodedText, Prediction
from models.rows import Row
from service.app import Application
from service.http.access import Access, Keyring
from service.http.connections import ConnectionLimits, connection_protocol
from service.http.errors import refusal_messages
from service.http.keys import new_key, write_keys
from service.http.load_shedding import LoadShedder
from service.inference.batcher import Batcher
from service.inference.errors import QueueFull
from service.settings import Settings
from tests.service.http.test_raw_bytes import GOOD, JSON, request
from tests.service.inference.test_batcher import Echo, running
from tests.service.serving import Served, make_app, serving
from tests.service.test_app import ALLISON, Deterministic
from tests.titanic import Passenger

QUEUE_ROWS = 40
LIMITS = ConnectionLimits(10, 60, 100, 1 << 20)
TAKEN = request(GOOD, JSON)
REFUSED = request(GOOD, JSON, b"Refuse: me")


class Slow(Deterministic):
    """A hundredth of a second for a row."""

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        self.seconds = 0.01 * len(rows)
        return super().predict_checked(rows, encoded)


def client(served: Served, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{served.port}",
        headers=headers,
        timeout=20,
        limits=httpx.Limits(max_connections=None),
    )


async def filled(app: Application, one: httpx.AsyncClient) -> list["asyncio.Task[httpx.Response]"]:
    """Requests of one row each, of which one is computed, and as many wait as may."""
    batcher = app.services.batcher
    tasks = [asyncio.create_task(one.post("/v1/predict", json=ALLISON))]
    while batcher._supervisor.instance is None or not batcher._supervisor.instance.batches:
        await asyncio.sleep(0.01)
    tasks += [asyncio.create_task(one.post("/v1/predict", json=ALLISON)) for _ in range(QUEUE_ROWS + 8)]
    while batcher._queue.rows < QUEUE_ROWS:
        await asyncio.sleep(0.01)
    return tasks


@pytest.mark.parametrize("before_a_task", [False, True], ids=["by the application", "by its server"])
def test_an_early_rejection_is_that_of_the_queue_and_nothing_is_read(tiny_bundle: Bundle, before_a_task: bool) -> None:
    async def scenario(app: Application, served: Served) -> None:
        async with client(served) as one:
            predictor.hold.clear()
            waiting = await filled(app, one)
            app.services.batcher._max_batch_rows = 8
            # Not JSON, which nobody finds out.
            refused = await one.post("/v1/predict/batch", content=b"{", headers={"X-Request-ID": "mine"})
            app.services.batcher._max_batch_rows = 10**6  # It is not saturated now, and the queue as full as before.
            beside = await one.post("/v1/predict", json=ALLISON)
            app.services.batcher._max_batch_rows = 8
            assert refused.status_code == beside.status_code == 429
            assert refused.json() == beside.json()
            assert refused.headers["X-Request-ID"] == "mine"
            own = {"x-request-id", "traceparent", "date"}
            assert {k: v for k, v in refused.headers.items() if k not in own} == {
                k: v for k, v in beside.headers.items() if k not in own
            }
            # Whoever could not be answered anyhow is told that.
            bad = await one.post("/v1/predict", json=ALLISON, headers={"X-Request-Timeout-Ms": "soon"})
            assert (bad.status_code, (await one.get("/v1/predict")).status_code) == (400, 405)
            assert (await one.get("/health/ready")).status_code == 200
            counted = (await one.get("/metrics")).text
            assert 'http_requests_total{method="POST",route="/v1/predict/batch",status="429"} 1.0' in counted
            predictor.hold.set()
            statuses = [(await task).status_code for task in waiting]
            assert sorted(statuses) == [200] * (1 + QUEUE_ROWS) + [429] * 8

    predictor = Slow(tiny_bundle)
    app = make_app(Settings(max_queue_rows=QUEUE_ROWS, max_batch_rows=8), lambda _: predictor)
    with serving(app, connection_protocol(LIMITS, app.reject_early) if before_a_task else "auto") as served:
        asyncio.run(scenario(app, served))


@pytest.fixture
def refusing(tiny_bundle: Bundle) -> Iterator[Served]:
    """Rejects early whoever sends REFUSED."""
    app = make_app(Settings(), lambda _: Deterministic(tiny_bundle))

    def reject_early(scope: Any, started: bool = False) -> Any:
        return refusal_messages(QueueFull(7)) if (b"refuse", b"me") in scope["headers"] else None

    app.reject_early = reject_early  # type: ignore[method-assign]
    with serving(app, connection_protocol(LIMITS, reject_early)) as served:
        yield served


def answers(served: Served, *parts: bytes, until: int | None = None) -> tuple[list[int], bytes]:
    """Statuses of what comes, and the bytes, of requests that are sent in these parts; read ``until`` so many came,
    or else until the service closes."""
    found = b""
    with socket.create_connection(("127.0.0.1", served.port), timeout=10) as connection:
        for part in parts:
            connection.sendall(part)
            time.sleep(0.02)
        while piece := connection.recv(1 << 16):
            found += piece
            if until is not None and len(re.findall(rb"HTTP/1.1 \d\d\d ", found)) == until and found[-1:] in b"]}":
                break
    return [int(one) for one in re.findall(rb"HTTP/1.1 (\d\d\d) ", found)], found


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_requests_of_a_connection_are_answered_in_order_refused_or_not(refusing: Served, pieces: int) -> None:
    whole = (REFUSED + TAKEN) * 3 + REFUSED * 2
    cuts = [len(whole) * place // pieces for place in range(pieces + 1)]
    sent = [whole[start:stop] for start, stop in pairwise(cuts)]
    assert answers(refusing, *sent, until=8)[0] == [429, 200] * 3 + [429] * 2


def test_what_is_left_of_a_refused_body_is_not_taken_for_a_request(refusing: Served) -> None:
    chunked = request(b"4\r\nGET \r\n0\r\n\r\n", JSON, b"Refuse: me", b"Transfer-Encoding: chunked")
    long = request(b"GET / HTTP/1.1\r\n\r\n" * 9999, JSON, b"Refuse: me")
    for body in (chunked, long):
        head = body.index(b"\r\n\r\n") + 4
        assert answers(refusing, body[:head], body[head:] + TAKEN, until=2)[0] == [429, 200]


@pytest.mark.parametrize("header", [b"Connection: close", b"Expect: 100-continue\r\nConnection: close"])
def test_a_connection_that_shall_end_does(refusing: Served, header: bytes) -> None:
    statuses, content = answers(refusing, request(GOOD, JSON, b"Refuse: me", header))
    assert statuses == [429]
    assert b"connection: close" in content
    assert content.endswith(b"}")


def test_what_is_no_http_is_told_so_after_a_refusal(refusing: Served) -> None:
    assert answers(refusing, REFUSED + b"\0 nonsense\r\n\r\n")[0] == [429, 400]
    bad = request(b"zz\r\n", JSON, b"Refuse: me", b"Transfer-Encoding: chunked")
    assert answers(refusing, bad)[0] == [429, 400]


def test_who_reads_no_refusals_can_send_no_more_requests(refusing: Served) -> None:
    count, sent = 100_000, 0
    whole = memoryview(REFUSED * count)
    with socket.create_connection(("127.0.0.1", refusing.port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        connection.settimeout(1)
        with contextlib.suppress(TimeoutError):
            while sent < len(whole):
                sent += connection.send(whole[sent : sent + (1 << 16)])
        assert sent < len(whole)
        connection.settimeout(20)
        reader = threading.Thread(target=lambda: connection.sendall(whole[sent:]))
        reader.start()
        found, tail = 0, b""
        while found < count and (piece := connection.recv(1 << 18)):
            tail += piece
            found += tail.count(b"HTTP/1.1 429")
            tail = tail[-11:]
        reader.join()
    assert found == count


def asked(key: str | None = None, path: str = "/v1/predict", wait_ms: int | None = 1500, **changes: Any) -> Any:
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    headers += [(b"x-request-timeout-ms", str(wait_ms).encode())] if wait_ms is not None else []
    state = {"context": SimpleNamespace(key=None)}
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": headers,
        "state": state,
        "client": None,
        **changes,
    }


def test_a_client_that_floods_has_nobody_else_rejected(tmp_path: Path) -> None:
    made = {name: new_key(name, ["predict"]) for name in ("flood", "calm")}
    keys = {name: key for name, (key, _) in made.items()}
    write_keys(tmp_path / "keys.json", [entry for _, entry in made.values()])

    async def scenario(batcher: Batcher, echo: Echo) -> None:
        shedder = LoadShedder(batcher, Access(Keyring(tmp_path / "keys.json"), frozenset()), 30.0)

        def refuses(scope: Any) -> QueueFull | None:
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            return shedder.refusal(scope, headers, started=True) if shedder.applies(scope, started=True) else None

        for _ in range(10):  # The batcher learns what a row takes: at least a hundredth of a second.
            await batcher.predict([Passenger(pclass=1, sex="male")], 30)
        assert refuses(asked(keys["flood"])) is None
        echo.hold.clear()
        tasks = [asyncio.create_task(batcher.predict([Passenger(pclass=1, sex="male")], 30, "flood"))
                 for _ in range(200)]  # fmt: skip
        await asyncio.sleep(0.05)
        flooding = asked(keys["flood"])
        assert isinstance(refuses(flooding), QueueFull)
        assert flooding["state"]["context"].key == "flood"
        assert refuses(asked(keys["calm"])) is None
        # Whoever has no key, or asks for something else, or badly, learns elsewhere what is wrong.
        assert refuses(asked("ek_01234567_unknown")) is None
        assert refuses(asked(keys["flood"], "/v1/outcomes")) is None
        assert refuses(asked(keys["flood"], method="GET")) is None
        assert refuses(asked(keys["flood"], wait_ms=-1)) is None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        echo.hold.set()

    echo = Echo(seconds=0.01)
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))


def test_of_requests_that_are_read_at_once_as_many_are_let_in_as_have_room() -> None:
    async def scenario(batcher: Batcher) -> None:
        shedder = LoadShedder(batcher, Access(None, frozenset()), 30.0)

        def admitted(count: int) -> int:
            scopes = [asked(client=("198.51.100.7", place)) for place in range(count)]
            return sum(
                not shedder.applies(scope, started=False) or not shedder.refusal(scope, {}, started=False)
                for scope in scopes
            )

        for _ in range(2):
            assert admitted(20) == 20
            # Nothing is counted before more than a batch is there.
            assert admitted(200) == 8 + QUEUE_ROWS - 20
            assert admitted(5) == 0
            # By now those let in are at the queue, or would be.
            await asyncio.sleep(0)

    echo = Echo()
    with running(echo, max_batch_rows=8, max_queue_rows=QUEUE_ROWS) as batcher:
        asyncio.run(scenario(batcher))


class Asked:
    """An admission that refuses all, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, float]] = []

    def saturated(self, more: int = 0) -> bool:
        return True

    def refusal(self, client: str, rows: int, timeout_seconds: float) -> QueueFull | None:
        self.asked.append((client, timeout_seconds))
        return QueueFull(len(self.asked))


def test_what_is_refused_in_one_moment_is_decided_once_for_each_client_and_its_patience() -> None:
    async def scenario() -> None:
        admission = Asked()
        shedder = LoadShedder(admission, Access(None, frozenset()), 30.0)

        def refused(address: str, milliseconds: int) -> int:
            scope = asked(client=(address, 1))
            assert shedder.applies(scope, started=False)
            refusal = shedder.refusal(scope, {"x-request-timeout-ms": str(milliseconds)}, started=False)
            assert refusal is not None
            return refusal.retry_after_seconds

        told = [refused(*one) for one in (("a", 500), ("a", 500), ("b", 500), ("a", 900), ("a", 500), ("b", 500))]
        assert told == [1, 1, 2, 3, 1, 2]
        assert admission.asked == [("a", 0.5), ("b", 0.5), ("a", 0.9)]
        await asyncio.sleep(0)
        assert refused("a", 500) == 4

    asyncio.run(scenario())
