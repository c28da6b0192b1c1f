"""What every exchange gets: ids, a trace, HEAD, conditional answers, compression, a log line without values."""

import gzip
import json
import logging
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zstandard
from litestar.testing import TestClient

from models.bundle.read import Bundle
from service.http.logs import JsonFormatter, NonBlockingHandler, RequestLog
from service.http.middleware import RequestContext
from service.http.tracing import TraceContext
from service.settings import Settings
from tests.service.inference.test_batcher import wait_until
from tests.service.serving import make_app
from tests.service.test_app import ALLISON, Deterministic, problem, samples, serving

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def client(tiny_bundle: Bundle) -> Iterator[TestClient[Any]]:
    with serving(tiny_bundle) as client:
        yield client


@pytest.fixture
def fresh(tiny_bundle: Bundle) -> Iterator[TestClient[Any]]:
    """That of a service which nobody else has asked."""
    with serving(tiny_bundle) as client:
        yield client


@pytest.mark.parametrize("path", ["/health/live", "/v1/model", "/nowhere", "/v1/predict"])
def test_every_response_bears_the_requests_id_and_trace(client: TestClient[Any], path: str) -> None:
    given = client.get(path, headers={"X-Request-ID": "mine-1.2", "traceparent": TRACE}).headers
    assert given["X-Request-ID"] == "mine-1.2"
    version, trace, span, flags = given["traceparent"].split("-")
    assert (version, trace, flags) == ("00", TRACE.split("-")[1], "01")
    assert span != TRACE.split("-")[2]
    made = client.get(path).headers
    assert uuid.UUID(made["X-Request-ID"]).version == 7
    assert made["traceparent"].split("-")[1] != trace


@pytest.mark.parametrize("forged", ["", "a b", "x" * 129, 'a"b', "é"])
def test_an_id_that_could_forge_a_log_line_is_replaced(client: TestClient[Any], forged: str) -> None:
    answered = client.get("/health/live", headers={"X-Request-ID": forged.encode()}).headers["X-Request-ID"]
    assert uuid.UUID(answered).version == 7


@pytest.mark.parametrize("path", ["/health/live", "/v1/model", "/metrics", "/v1/drift", "/schema/openapi.json"])
def test_head_is_get_without_the_body(client: TestClient[Any], path: str) -> None:
    get, head = client.get(path), client.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    assert int(head.headers["Content-Length"]) > 0


def test_options_and_405_name_the_methods(client: TestClient[Any]) -> None:
    for path, methods in (("/v1/model", "GET, HEAD, OPTIONS"), ("/v1/predict", "OPTIONS, POST")):
        options = client.options(path)
        assert (options.status_code, options.headers["Allow"]) == (204, methods)
        for method in ("PUT", "PATCH", "DELETE", "GET" if "POST" in methods else "POST"):
            refused = client.request(method, path)
            assert method in problem(refused, 405)["detail"]
            assert refused.headers["Allow"] == methods
    assert client.head("/v1/predict").status_code == 405


def test_an_unknown_path_is_answered_with_the_nearest(client: TestClient[Any]) -> None:
    assert "did you mean /v1/predict?" in problem(client.post("/v1/predcit"), 404)["detail"]
    assert "/health/ready" in problem(client.get("/zzz"), 404)["detail"]


def test_a_model_that_has_not_changed_is_not_sent_again(client: TestClient[Any]) -> None:
    first = client.get("/v1/model", headers={"Accept-Encoding": "identity"})
    tag = first.headers["ETag"]
    assert first.headers["Cache-Control"] == "no-cache"
    for asked in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get("/v1/model", headers={"If-None-Match": asked})
        assert (again.status_code, again.content) == (304, b""), asked
        assert again.headers["ETag"].removeprefix("W/") == tag
        assert "Content-Length" not in again.headers
    assert client.head("/v1/model", headers={"If-None-Match": tag}).status_code == 304
    assert client.get("/v1/model", headers={"If-None-Match": '"other"'}).status_code == 200
    compressed = client.get("/v1/model", headers={"Accept-Encoding": "gzip"})
    assert compressed.headers["ETag"] in (tag, f"W/{tag}")
    packed = {"Accept": "application/msgpack", "Accept-Encoding": "identity"}
    other = client.get("/v1/model", headers=packed)
    # A strong tag promises equal bytes.
    assert other.headers["ETag"] != tag
    assert client.get("/v1/model", headers={**packed, "If-None-Match": tag}).status_code == 200
    assert client.get("/v1/model", headers={**packed, "If-None-Match": other.headers["ETag"]}).status_code == 304


def test_large_answers_are_compressed_for_who_wants_it(client: TestClient[Any]) -> None:
    batch = {"rows": [{**ALLISON, "age": age / 9} for age in range(1000)]}
    undo = {"gzip": gzip.decompress, "zstd": lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body)}
    plain: Any = None
    for coding in (None, *undo):
        with client.stream(
            "POST", "/v1/predict/batch", json=batch, headers={"Accept-Encoding": coding or "identity"}
        ) as response:
            raw = b"".join(response.iter_raw())
        assert response.headers.get("Content-Encoding") == coding
        assert "Accept-Encoding" in response.headers["Vary"]
        assert int(response.headers["Content-Length"]) == len(raw)
        predictions = json.loads(undo[coding](raw) if coding else raw)["predictions"]
        found = [one["probability"] for one in predictions]
        plain = plain or (found, len(raw))
        assert found == plain[0]
        assert coding is None or len(raw) < plain[1] / 4
    small = client.post("/v1/predict", json=ALLISON, headers={"Accept-Encoding": "gzip, zstd"})
    assert "Content-Encoding" not in small.headers


def test_compressed_bodies_are_taken(client: TestClient[Any]) -> None:
    body = json.dumps(ALLISON).encode()
    expected = client.post("/v1/predict", json=ALLISON).json()["probability"]
    for coding, sent in (("gzip", gzip.compress(body)), ("zstd", zstandard.compress(body))):
        headers = {"Content-Type": "application/json", "Content-Encoding": coding}
        assert client.post("/v1/predict", content=sent, headers=headers).json()["probability"] == expected
        problem(client.post("/v1/predict", content=body, headers=headers), 400)
    refused = client.post("/v1/predict", content=body, headers={**headers, "Content-Encoding": "br"})
    problem(refused, 415)
    assert refused.headers["Accept-Encoding"] == "zstd, gzip"


def test_what_a_client_does_not_take_is_refused_before_it_is_computed(fresh: TestClient[Any]) -> None:
    detail = problem(fresh.post("/v1/predict", json=ALLISON, headers={"Accept": "text/html"}), 406)["detail"]
    assert "application/json" in detail
    assert "application/msgpack" in detail
    assert samples(fresh)["evenkeel_batch_rows_count", frozenset()] == 0
    packed = fresh.get("/v1/model", headers={"Accept": "application/x-msgpack"})
    assert packed.headers["Content-Type"] == "application/x-msgpack"
    assert msgspec.msgpack.decode(packed.content) == fresh.get("/v1/model").json()


@pytest.mark.parametrize(
    "body",
    [
        b'{"pclass":3,"sex":"male","sex":"female"}',
        b'{"sex":"female","pclass":3,"sex":"female"}',
        b'{"pclass":3,"sex":"male","name":"a: b","na\\u006de":"c"}',
        msgspec.msgpack.encode({"pclass": 3, "sex": "male"})[:1].replace(b"\x82", b"\x83")
        + msgspec.msgpack.encode({"pclass": 3, "sex": "male"})[1:]
        + msgspec.msgpack.encode("sex")
        + msgspec.msgpack.encode("female"),
        # In a map of 16 bits within an array of 32, and by another form of the same text.
        b"\x81\xaapassengers\xdd\0\0\0\x01\xde\0\x02\xa3sex\xa4male\xd9\x03sex\xa6female",
    ],
)
def test_a_key_that_stands_twice_is_refused_and_named(client: TestClient[Any], body: bytes) -> None:
    kind = "json" if body.startswith(b"{") else "msgpack"
    detail = problem(client.post("/v1/predict", content=body, headers={"Content-Type": f"application/{kind}"}), 400)
    assert "twice" in detail["detail"]
    assert '"sex"' in detail["detail"] or '"name"' in detail["detail"]


def test_colons_in_values_are_no_repeated_keys(client: TestClient[Any]) -> None:
    assert client.post("/v1/predict", json={**ALLISON, "name": "a: b, c: d", "cabin": ":"}).status_code == 200
    nested = b'{"rows":[{"pclass":3,"sex":"male"},{"pclass":3,"sex":"male","pclass":1}]}'
    refused = client.post("/v1/predict/batch", content=nested, headers={"Content-Type": "application/json"})
    assert '"pclass" twice' in problem(refused, 400)["detail"]


def test_log_lines_tell_of_requests_and_of_no_value(fresh: TestClient[Any], caplog: pytest.LogCaptureFixture) -> None:
    secret = {
        "pclass": 1,
        "sex": "female",
        "name": "Zebedee, Mrs. Xanthippe",
        "age": 61.375,
        "ticket": "QXZ 9",
        "fare": 999,
    }
    with caplog.at_level(logging.DEBUG):
        fresh.post("/v1/predict", json={**secret, "fare": 30}, headers={"X-Request-ID": "good", "traceparent": TRACE})
        fresh.post("/v1/predict", json=secret, headers={"X-Request-ID": "failed"})
        fresh.post("/v1/predict", json={**secret, "age": "Zebedee"}, headers={"X-Request-ID": "faulty"})
        fresh.get("/Zebedee?name=Zebedee", headers={"X-Request-ID": "nowhere"})
    lines = [
        json.loads(JsonFormatter().format(record)) for record in caplog.records if record.name.startswith("evenkeel")
    ]
    told = {line["request_id"]: line for line in lines if line["logger"] == "evenkeel.requests"}
    assert [told[one]["status"] for one in ("good", "failed", "faulty", "nowhere")] == [200, 503, 422, 404]
    good = told["good"]
    assert (good["method"], good["route"], good["level"]) == ("POST", "/v1/predict", "info")
    assert (good["trace_id"], good["parent_id"]) == tuple(TRACE.split("-")[1:3])
    assert told["failed"]["level"] == "warning"
    assert good["milliseconds"] > 0
    everything = json.dumps(lines)
    assert "ValueError" in everything
    assert "test_app.py" in everything  # The failed prediction's type and place are told, its message is not.
    for value in ("Zebedee", "Xanthippe", "61.375", "QXZ"):
        assert value not in everything


@pytest.mark.parametrize(("wanted", "statuses"), [("all", {200, 404}), ("problems", {404}), ("none", set())])
def test_which_requests_get_a_line(
    tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture, wanted: str, statuses: set[int]
) -> None:
    app = make_app(Settings(log_requests=wanted), lambda _: Deterministic(tiny_bundle))
    with TestClient(app) as client, caplog.at_level(logging.INFO):
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        caplog.clear()
        client.get("/v1/model")
        client.get("/nowhere")
        client.get("/health/live")
    found = {record.__dict__["fields"]["status"] for record in caplog.records if record.name == "evenkeel.requests"}
    assert found == statuses


def test_refusals_for_want_of_room_share_a_line_a_second(caplog: pytest.LogCaptureFixture) -> None:
    times: list[float] = []
    log = RequestLog("all", lambda: times[-1])

    def ended(status: int = 429, reason: str | None = None) -> None:
        log(
            RequestContext(
                request_id="mine", trace=TraceContext.of(""), method="POST", started=0.0, route="/v1/predict",
                status=status, seconds=0.0, reason=reason,
            )
        )  # fmt: skip

    with caplog.at_level(logging.INFO):
        for now in (100.0, 100.2, 100.9, 101.0, 101.5, 104.0, 106.0):
            times.append(now)
            ended()
        told = [record.__dict__["fields"] for record in caplog.records]
        assert [one["others"] for one in told] == [0, 2, 1, 0]
        assert "and 2 others refused alike" in caplog.messages[1]
        assert "others" not in caplog.messages[0]
        caplog.clear()
        # All else has its line: also who is over the rate of a key.
        for status, reason in ((200, None), (429, "rate"), (503, None), (504, None)) * 2:
            ended(status, reason)
        assert len(caplog.records) == 8


class Stuck(logging.Handler):
    """Writes nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let, self.written = threading.Event(), list[str]()

    def emit(self, record: logging.LogRecord) -> None:
        self.let.wait(20)
        self.written.append(record.getMessage())


def test_lines_that_nobody_takes_are_lost_and_counted() -> None:
    stuck = Stuck()
    handler = NonBlockingHandler(stuck, waiting=5)
    for number in range(20):
        handler.handle(logging.makeLogRecord({"msg": str(number)}))
    stuck.let.set()
    handler.queue.join()
    handler.handle(logging.makeLogRecord({"msg": "after"}))
    handler.close()
    *before, told, after = stuck.written
    assert before == [str(number) for number in range(len(before))]
    # One may have been taken out of the queue already.
    assert len(before) in (5, 6)
    assert (told, after) == (f"{20 - len(before)} log lines are lost: they were not read in time", "after")
