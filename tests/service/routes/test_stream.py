"""Streams: in order, line by line, in bounded memory, over real sockets."""

import asyncio
import json
import math
import random
import signal
import socket
import struct
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bundle.read import Bundle
from models.prediction import EncodedText, Prediction
from models.rows import Row
from service.app import Application
from service.http.keys import new_key, write_keys
from service.routes.lines import MAX_LINE_BYTES, Line, Lines
from service.routes.stream import MAX_CHUNKS, NDJSON
from service.settings import Settings
from tests.deploy.programs import free_port
from tests.service.inference.test_batcher import wait_until
from tests.service.serving import Served, Talk, make_app, serving
from tests.service.test_app import ALLISON, Deterministic, samples
from tests.service.test_real import start, wait_ready

ROWS = 8


class Watched(Deterministic):
    """Counts the rows it was given, may be held, and may be slow."""

    def __init__(self, bundle: Bundle, seconds: float = 0.0):
        super().__init__(bundle, seconds)
        self.computed_rows = 0
        self.sizes: list[int] = []

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        self.hold.wait(10)
        if self.seconds:
            threading.Event().wait(self.seconds)
        self.computed_rows += len(rows)
        self.sizes.append(len(rows))
        return super().predict_checked(rows, encoded)


def make(bundle: Bundle, predictor: Watched | None = None, **changes: Any) -> Application:
    settings = Settings(**{"timeout_seconds": 10, "max_batch_rows": ROWS, **changes})
    return make_app(settings, lambda _: predictor or Watched(bundle))


@pytest.fixture(scope="module", params=["httptools", "h11"])
def served(request: pytest.FixtureRequest, tiny_bundle: Bundle) -> Iterator[Served]:
    with serving(make(tiny_bundle), request.param) as served:
        yield served


def line(number: int, of: int = 120) -> bytes:
    """A passenger whose age tells the number: the answer's uncalibrated probability gives it back."""
    return json.dumps({"pclass": 3, "sex": "male", "age": number * 120 / of}).encode() + b"\n"


def number(answer: dict[str, Any], of: int = 120) -> int:
    p = answer["confidence"]["uncalibrated_probability"]
    return round((math.log(p / (1 - p)) + 3) * 10 * of / 120)


@given(
    st.lists(st.sampled_from([b"\n", b"\r\n", b" ", b"a", b"\xff", b"{}", b"abcdefgh"]), max_size=30),
    st.lists(st.integers(0, 200), max_size=12),
    st.integers(1, 8),
)
def test_lines_do_not_depend_on_how_they_come(parts: list[bytes], cuts: list[int], max_bytes: int) -> None:
    body = b"".join(parts)
    expected = [
        Line(at, one if len(one) <= max_bytes else None)
        for at, one in enumerate(body.split(b"\n"), 1)
        if len(one) > max_bytes or one.strip()
    ]
    for places in (sorted({min(cut, len(body)) for cut in cuts}), range(len(body))):
        lines, found, start = Lines(max_bytes), [], 0
        for place in [*places, len(body)]:
            found += lines.split(body[start:place])
            start = place
        assert [*found, *lines.finish()] == expected


def test_a_line_without_an_end_is_not_stored() -> None:
    lines, piece = Lines(), b"x" * (1 << 20)
    tracemalloc.start()
    for _ in range(64):
        assert not list(lines.split(piece))
    assert list(lines.split(b'\n{"a":1}\n')) == [Line(1, None), Line(2, b'{"a":1}')]
    assert tracemalloc.get_traced_memory()[1] < 4 * MAX_LINE_BYTES
    tracemalloc.stop()


def test_answers_come_in_order_and_while_the_client_still_sends(served: Served) -> None:
    with Talk(served.port) as talk:
        assert talk.head()[0] == 200
        for at in range(30):
            talk.send(line(at))
            assert number(talk.line()) == at
        for first in range(30, 120, 9):
            talk.send(b"".join(line(at) for at in range(first, min(first + 9, 120))))
        talk.end()
        assert [number(one) for one in talk.lines()] == list(range(30, 120))
        assert talk.ended


def test_nothing_that_comes_while_a_group_is_computed_is_lost(tiny_bundle: Bundle) -> None:
    predictor = Watched(tiny_bundle)
    with serving(make(tiny_bundle, predictor)) as served, Talk(served.port) as talk:
        predictor.hold.clear()
        for at in range(4):
            talk.send(line(at))
            threading.Event().wait(0.1)  # So that each is taken by itself.
        predictor.hold.set()
        talk.end()
        assert talk.head()[0] == 200
        assert [number(one) for one in talk.lines()] == [0, 1, 2, 3]


def test_an_answer_is_that_of_predict(served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}/v1/predict"
    alone = httpx.post(url, json=ALLISON).json()
    response = httpx.post(f"{url}/stream", content=json.dumps(ALLISON), headers={"Content-Type": "application/jsonl"})
    assert response.headers["Content-Type"] == NDJSON
    assert {**response.json(), "id": ""} == {**alone, "id": ""}
    assert httpx.post(f"{url}/stream", content=b"", headers={"Content-Type": NDJSON}).content == b""


GOOD = json.dumps(ALLISON).encode()
BAD = [
    (b'{"pclass":4,"sex":"male","agee":3}', 422, {"/pclass", "/agee"}),
    (b"{", 400, set()),
    (b'{"pclass":3,"sex":"male","name":"\xff"}', 400, set()),
    (b"[" * 30_000, 400, set()),
    (b"x" * (MAX_LINE_BYTES + 1), 413, set()),
    (b"null", 422, {""}),
    (b'{"pclass":3,"sex":"male"}{}', 400, set()),
    (b'{"pclass":3.0,"sex":"male"}', 422, {"/pclass"}),
    (b'{"pclass":3,"sex":"male","fare":999}', 503, set()),
    (b"\x00", 400, set()),
]
MIXED = b"".join(GOOD + b"\r\n\n" + bad + b"\n  \n" for bad, _, _ in BAD) + GOOD


def check_mixed(answers: list[Any]) -> None:
    assert len(answers) == 2 * len(BAD) + 1
    assert all("probability" in one for one in answers[::2])
    for place, (answer, (_, status, pointers)) in enumerate(zip(answers[1::2], BAD, strict=True)):
        assert answer["status"] == status, answer
        assert answer["line"] == 4 * place + 3
        assert {fault["pointer"] for fault in answer["errors"]} == pointers
        assert answer["type"] == "about:blank"
        assert answer["title"]
        assert "body" not in answer["detail"]


def test_a_bad_line_is_answered_in_its_place(served: Served) -> None:
    url = f"http://127.0.0.1:{served.port}/v1/predict/stream"
    response = httpx.post(url, content=MIXED, headers={"Content-Type": f"{NDJSON}; charset=utf-8"})
    check_mixed([json.loads(one) for one in response.content.splitlines()])


def test_pieces_of_any_size(served: Served) -> None:
    rng = random.Random(7)
    with Talk(served.port) as talk:
        rest = MIXED
        while rest:
            size = rng.choice((1, 2, 3, 50, 20_000))
            talk.send(rest[:size])
            rest = rest[size:]
        talk.end()
        assert talk.head()[0] == 200
        check_mixed(talk.lines())


@pytest.mark.parametrize(
    ("headers", "text"),
    [
        ({"Content_Type": "application/json"}, "application/json; it must be"),
        ({"Content_Type": ""}, "absent"),
        ({"Content_Type": f"{NDJSON}; charset=latin-1"}, "latin-1"),
        ({"Content_Encoding": "gzip"}, "gzip"),
        ({"X_Request_Timeout_Ms": "soon"}, "X-Request-Timeout-Ms is soon"),
    ],
)
def test_what_is_no_stream_is_an_ordinary_problem(served: Served, headers: dict[str, str], text: str) -> None:
    with Talk(served.port, **headers) as talk:
        talk.end()
        status, found = talk.head()
        expected = 400 if "X_Request_Timeout_Ms" in headers else 415
        assert (status, found["content-type"]) == (expected, "application/problem+json")
        assert text in talk._file.read(int(found["content-length"])).decode()


def test_before_the_model_is_there_a_stream_is_refused() -> None:
    def load(_: object) -> Watched:
        raise ValueError("no bundle")

    with serving(make_app(Settings(), load)) as served:
        url = f"http://127.0.0.1:{served.port}/v1/predict/stream"
        response = httpx.post(url, content=GOOD, headers={"Content-Type": NDJSON})
        assert (response.status_code, response.json()["detail"]) == (503, "no bundle")


def test_lines_are_counted(tiny_bundle: Bundle) -> None:
    with serving(make(tiny_bundle)) as served:
        url = f"http://127.0.0.1:{served.port}"
        httpx.post(f"{url}/v1/predict/stream", content=MIXED, headers={"Content-Type": NDJSON})
        with httpx.Client(base_url=url) as client:
            found = samples(client)  # type: ignore[arg-type]
    results = {
        dict(labels)["result"]: n for (name, labels), n in found.items() if name == "evenkeel_stream_lines_total"
    }
    assert results == {"prediction": len(BAD) + 1, "problem": len(BAD)}
    assert sum(n for (name, _), n in found.items() if name == "evenkeel_predictions_total") == len(BAD) + 1


class Client:
    """An ASGI client in the test's own event loop, that sends without end and takes answers when it is let."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.sent = self.received = 0

    async def receive(self) -> Any:
        await asyncio.sleep(0)
        self.sent += 5
        return {"type": "http.request", "body": b"".join(line(at % 120) for at in range(5)), "more_body": True}

    async def send(self, message: Any) -> None:
        if message.get("body"):
            await self.reads.wait()
            self.received += message["body"].count(b"\n")


SCOPE = {
    "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": "POST",
    "scheme": "http", "path": "/v1/predict/stream", "raw_path": b"/v1/predict/stream", "query_string": b"",
    "root_path": "", "headers": [(b"content-type", NDJSON.encode())], "client": ("x", 1), "server": ("x", 1),
}  # fmt: skip


@pytest.mark.parametrize("held", ["client", "model"])
def test_no_more_rows_are_in_flight_than_the_window_holds(tiny_bundle: Bundle, held: str) -> None:
    """Of a client that does not read, and of a model that does not answer, no more is read than the window holds."""
    predictor, window = Watched(tiny_bundle), MAX_CHUNKS * ROWS
    app = make(tiny_bundle, predictor)

    async def talk() -> None:
        async with app.litestar.lifespan():
            while not app.services.batcher.ready:
                await asyncio.sleep(0.01)
            client = Client()
            if held == "model":
                predictor.hold.clear()
                client.reads.set()
            stream = asyncio.create_task(app({**SCOPE, "app": app}, client.receive, client.send))  # type: ignore[arg-type, typeddict-item]
            for _ in range(20):
                await asyncio.sleep(0.02)
                assert client.sent <= window + 10
            # Pieces of five make chunks of five; one more piece waits for room, and one for that.
            assert client.sent == 5 * (MAX_CHUNKS + 2)
            assert client.received == 0
            assert predictor.computed_rows == (0 if held == "model" else 5 * MAX_CHUNKS)
            client.reads.set()
            predictor.hold.set()
            while client.received < 20 * window:
                await asyncio.sleep(0)
                assert client.sent - client.received <= window + 10
            stream.cancel()
            with suppress(asyncio.CancelledError):
                await stream
            assert not [one for one in asyncio.all_tasks() if "Stream" in repr(one)]

    asyncio.run(talk())


class Counted(Watched):
    """Notes how many batches were computed before the one with a passenger of 77."""

    waited: list[int]

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        if any(one.age == 77 for one in rows):
            self.waited[-1] = len(self.sizes) - self.waited[-1]
        return super().predict_checked(rows, encoded)


def test_streams_leave_single_requests_their_place(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    predictor = Counted(tiny_bundle, seconds=0.01)
    predictor.waited = []
    with serving(make(tiny_bundle, predictor)) as served, ExitStack() as stack:
        talks = [stack.enter_context(Talk(served.port)) for _ in range(6)]
        predict = served.app.services.batcher.predict

        async def noted(rows: Sequence[Row], *rest: Any) -> Any:
            if rows[0].age == 77:
                predictor.waited.append(len(predictor.sizes))
            return await predict(rows, *rest)

        monkeypatch.setattr(served.app.services.batcher, "predict", noted)
        for talk in talks:
            talk.send(b"".join(line(at % 60) for at in range(40 * ROWS)))
        wait_until(lambda: len(predictor.sizes) > 5)
        assert predictor.sizes[-3:] == [ROWS] * 3
        for _ in range(3):
            httpx.post(f"http://127.0.0.1:{served.port}/v1/predict", json={**ALLISON, "age": 77})
        # The batch that is computed when the request comes, and the two that streams may have waiting.
        assert max(predictor.waited) <= 3


def test_a_full_queue_is_waited_for(tiny_bundle: Bundle) -> None:
    predictor = Watched(tiny_bundle)
    with serving(make(tiny_bundle, predictor, max_queue_rows=1024)) as served, Talk(served.port) as talk:
        predictor.hold.clear()
        body = {"rows": [ALLISON] * 1024}
        url = f"http://127.0.0.1:{served.port}/v1/predict/batch"
        other = threading.Thread(target=httpx.post, args=(url,), kwargs={"json": body, "timeout": 20})
        other.start()
        # The model holds a batch of it, so there is room for one group of the stream and not for the next.
        wait_until(lambda: served.app.services.batcher._queue.rows == 1024 - ROWS)
        talk.send(b"".join(line(at) for at in range(3 * ROWS)))
        talk.end()
        wait_until(lambda: len(served.tasks()) > 2)
        predictor.hold.set()
        assert talk.head()[0] == 200
        assert [number(one) for one in talk.lines()] == list(range(3 * ROWS))
        other.join(20)


def leave(talk: Talk, how: str) -> None:
    """Half-closed is left too: a server answers the end of what it reads by closing."""
    if how == "half":
        talk.socket.shutdown(socket.SHUT_WR)
        return
    if how == "reset":
        talk.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    talk.close()


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_a_client_that_leaves_takes_its_rows_along(tiny_bundle: Bundle, how: str) -> None:
    predictor = Watched(tiny_bundle)
    with serving(make(tiny_bundle, predictor)) as served, Talk(served.port) as talk:
        predictor.hold.clear()
        talk.send(b"".join(line(at) for at in range(3 * ROWS)))
        wait_until(lambda: len(served.tasks()) == 5)
        leave(talk, how)
        wait_until(lambda: not served.tasks())
        predictor.hold.set()
        wait_until(lambda: served.app.services.batcher._queue.rows == 0)
        assert httpx.post(f"http://127.0.0.1:{served.port}/v1/predict", json=ALLISON).status_code == 200
        assert predictor.computed_rows <= ROWS + 1


def test_a_client_that_leaves_a_full_window_is_seen(tiny_bundle: Bundle) -> None:
    predictor = Watched(tiny_bundle)
    with serving(make(tiny_bundle, predictor)) as served, Talk(served.port) as talk:
        predictor.hold.clear()
        talk.send(b"".join(line(at) for at in range(120)))
        wait_until(lambda: len(served.tasks()) > MAX_CHUNKS + 1)
        leave(talk, "reset")
        wait_until(lambda: not served.tasks())
        predictor.hold.set()
        wait_until(lambda: served.app.services.batcher._queue.rows == 0)
        assert predictor.computed_rows <= ROWS


def test_a_client_that_leaves_after_it_has_sent_all(tiny_bundle: Bundle) -> None:
    predictor = Watched(tiny_bundle)
    with serving(make(tiny_bundle, predictor)) as served:
        predictor.hold.clear()
        with Talk(served.port) as talk:
            talk.send(line(1))
            talk.end()
            wait_until(lambda: len(served.tasks()) == 2)
        wait_until(lambda: not served.tasks())
        predictor.hold.set()


def test_a_silent_client_is_told_and_left(tiny_bundle: Bundle) -> None:
    with serving(make(tiny_bundle, timeout_seconds=0.3)) as served, Talk(served.port) as talk:
        talk.send(line(5) + b'{"pclass"')
        assert talk.head()[0] == 200
        assert number(talk.line()) == 5
        (last,) = talk.lines()
        assert (last["status"], last["line"]) == (408, 2)
        assert talk.ended
        assert not served.tasks()


def test_a_client_that_waits_for_its_answer_is_not_silent(tiny_bundle: Bundle) -> None:
    predictor = Watched(tiny_bundle, seconds=0.5)
    with serving(make(tiny_bundle, predictor, timeout_seconds=1)) as served, Talk(served.port) as talk:
        for at in range(3):
            talk.send(line(at))
        talk.end()
        talk.head()
        assert [number(one) for one in talk.lines()] == [0, 1, 2]


def test_a_client_that_takes_nothing_is_cut_off(tiny_bundle: Bundle) -> None:
    with serving(make(tiny_bundle, timeout_seconds=0.5)) as served, Talk(served.port, timeout=0.2) as talk:
        piece = b"".join(line(at) for at in range(120))
        with suppress(TimeoutError):
            while True:
                talk.send(piece)
        wait_until(lambda: not served.tasks())
        talk.socket.settimeout(5)
        # What was on its way arrives, and then the response is cut: it has no end that looks like one.
        talk.head()
        with suppress(ConnectionError, ValueError):
            assert talk.lines()
        assert not talk.ended


def test_a_service_that_stops_answers_what_it_has_read(tiny_bundle: Bundle) -> None:
    predictor = Watched(tiny_bundle)
    with serving(make(tiny_bundle, predictor)) as served, Talk(served.port) as talk, Talk(served.port) as silent:
        assert silent.head()[0] == 200
        predictor.hold.clear()
        talk.send(b"".join(line(at) for at in range(100)))
        wait_until(lambda: len(served.tasks()) > MAX_CHUNKS + 1)
        served.app.services.batcher.draining = True
        predictor.hold.set()
        assert talk.head()[0] == 200
        *answers, last = talk.lines()
        assert [number(one) for one in answers] == list(range(len(answers)))
        assert (last["status"], last["line"]) == (503, len(answers) + 1)
        assert MAX_CHUNKS * ROWS <= len(answers) < 100
        assert talk.ended
        (only,) = silent.lines()
        assert (only["status"], only["line"]) == (503, 1)
        late = httpx.post(f"http://127.0.0.1:{served.port}/v1/predict/stream", headers={"Content-Type": NDJSON})
        assert late.status_code == 503


@contextmanager
def real(*flags: object) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A process of the service, which the block may end."""
    port = free_port()
    process = start("--port", port, *flags)
    try:
        wait_ready(f"http://127.0.0.1:{port}", process)
        yield port, process
    finally:
        process.kill()
        process.communicate()


def stop(process: subprocess.Popen[str]) -> None:
    """Wait for a process that was told to end: nothing of its streams hangs, and nothing had to be cancelled."""
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    assert "Cancel" not in stderr


def test_sigterm_ends_open_streams(bundle_folder: Path) -> None:
    with (
        real("--bundle", bundle_folder, "--grace-seconds", 0.2) as (port, process),
        Talk(port) as talk, Talk(port) as silent, Talk(port) as busy,
    ):  # fmt: skip
        talk.head()
        talk.send(line(1))
        assert "probability" in talk.line()
        silent.head()
        told = threading.Event()

        def send() -> None:
            while not told.is_set():
                busy.send(line(3) * 50)
            busy.end()

        sender = threading.Thread(target=send)
        sender.start()
        busy.head()
        assert "probability" in busy.line()
        process.send_signal(signal.SIGTERM)
        read = 1
        while "probability" in (last := busy.line()):
            read += 1
        told.set()
        assert (last["status"], last["line"]) == (503, read + 1)
        assert busy.line() is None
        assert [one["status"] for one in talk.lines()] == [503]
        assert [one["status"] for one in silent.lines()] == [503]
        sender.join(10)
        stop(process)


@pytest.mark.slow
def test_many_lines_in_little_memory(bundle_folder: Path) -> None:
    """20,000 lines, 60 MB of them, through a real process whose peak of memory hardly grows."""
    rows = 20_000
    with real("--bundle", bundle_folder, "--grace-seconds", 0) as (port, process):
        check_memory(port, process, rows)
        process.send_signal(signal.SIGTERM)
        stop(process)


def check_memory(port: int, process: subprocess.Popen[str], rows: int) -> None:
    def peak_megabytes() -> float:
        status = Path(f"/proc/{process.pid}/status").read_text()
        return next(int(one.split()[1]) / 1024 for one in status.splitlines() if one.startswith("VmHWM"))

    def whole(count: int, padding: int) -> list[int]:
        with Talk(port, timeout=60) as talk:

            def send() -> None:
                for first in range(0, count, 20):
                    lines = (line(at % 120)[:-1] + b" " * padding + b"\n" for at in range(first, first + 20))
                    talk.send(b"".join(lines))
                talk.end()

            sender = threading.Thread(target=send)
            sender.start()
            assert talk.head()[0] == 200
            found = talk.lines()
            sender.join()
        return [round(one["confidence"]["typicality"], 12) for one in found]

    pattern = whole(120, 0) * (rows // 120 + 1)
    whole(2000, 3000)
    before = peak_megabytes()
    assert whole(rows, 3000) == pattern[:rows]
    grown = peak_megabytes() - before
    print(f"peak of memory grew by {grown:.1f} MB from {before:.0f} MB")
    assert grown < 20


def test_a_stream_waits_for_its_keys_rate_and_keeps_no_other_waiting(tiny_bundle: Bundle, tmp_path: Path) -> None:
    made = {
        "limited": new_key("limited", ["predict"], rows_per_second=50, burst_rows=ROWS),
        "free": new_key("free", ["predict", "metrics"]),
    }
    write_keys(tmp_path / "keys.json", [entry for _, entry in made.values()])
    with serving(make(tiny_bundle, keys=str(tmp_path / "keys.json"))) as served, ExitStack() as stack:
        address = f"http://127.0.0.1:{served.port}"
        headers = {name: {"X-API-Key": key, "Content-Type": NDJSON} for name, (key, _) in made.items()}
        body = b"".join(line(at) for at in range(5 * ROWS))
        client = stack.enter_context(httpx.Client(timeout=20))
        begun = time.monotonic()
        limited = stack.enter_context(
            client.stream("POST", f"{address}/v1/predict/stream", content=body, headers=headers["limited"])
        )
        for _ in range(20):
            answer = httpx.post(f"{address}/v1/predict/stream", content=body, headers=headers["free"])
            assert [number(json.loads(one)) for one in answer.text.splitlines()] == list(range(5 * ROWS))
        found = [json.loads(one) for one in limited.iter_lines()]
        took = time.monotonic() - begun
        metrics = httpx.get(f"{address}/metrics", headers=headers["free"]).text
    assert [number(one) for one in found] == list(range(5 * ROWS))
    # A burst at once, and a group that overdraws it; the rest at the rate. It cannot be sooner.
    assert took >= (5 * ROWS - 2 * ROWS) / 50 - 0.1
    assert 'evenkeel_rejected_total{reason="rate"} 0.0' in metrics
