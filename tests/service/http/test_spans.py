"""OpenTelemetry as it is set by its own variables: what arrives at a receiver of its protocol over HTTP, decoded."""

import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from models.bundle.read import Bundle
from service.http.tracing import MAX_STAGES, wanted_traces
from tests.conftest import ROOT
from tests.service.processes import Service

TRACE_ID, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
NAME = "Allison, Miss. Helen Loraine"
ROW = {"pclass": 1, "sex": "female", "name": NAME, "age": 2.125}
ENDPOINT = "http://127.0.0.1:4318"


class Receiver:
    """Takes traces by OTLP over HTTP, as a collector does, and keeps the spans with their resource's attributes."""

    def __init__(self) -> None:
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
            ExportTraceServiceRequest,
            ExportTraceServiceResponse,
        )

        self.spans: list[Any] = []
        self.resources: list[dict[str, Any]] = []
        self.paths: set[str] = set()
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.headers["Content-Type"] == "application/x-protobuf"
                body = self.rfile.read(int(self.headers["Content-Length"]))
                body = gzip.decompress(body) if self.headers["Content-Encoding"] == "gzip" else body
                receiver.take(self.path, ExportTraceServiceRequest.FromString(body))
                content = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None: ...

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, request: Any) -> None:
        self.paths.add(path)
        for group in request.resource_spans:
            self.resources.append(attributes(group.resource))
            self.spans += [span for scope in group.scope_spans for span in scope.spans]

    def of(self, trace_id: str) -> dict[str, list[Any]]:
        """The spans of a trace by name."""
        found: dict[str, list[Any]] = {}
        for span in self.spans:
            if span.trace_id.hex() == trace_id:
                found.setdefault(span.name, []).append(span)
        return found


def attributes(holder: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in holder.attributes}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    try:
        made = Receiver()
    except ImportError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("OpenTelemetry is not installed: ./run setup test installs it")
    thread = threading.Thread(target=made.server.serve_forever, daemon=True)
    thread.start()
    yield made
    made.server.shutdown()
    made.server.server_close()
    thread.join()


Start = Callable[..., Any]


@pytest.fixture
def start(tiny_bundle: Bundle, tmp_path: Path, receiver: Receiver) -> Start:
    """Starts the real service, which sends its spans to the receiver every tenth of a second."""

    @contextmanager
    def started(more: Mapping[str, str] | None = None, **flags: object) -> Iterator[Service]:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "OTEL_BSP_SCHEDULE_DELAY": "100", **(more or {})}
        flags = {"log_requests": "all", "log_format": "json", **flags}
        with Service(tiny_bundle.folder, tmp_path, variables=variables, **flags) as service:
            yield service

    return started


def traceparent(sampled: bool = True) -> dict[str, str]:
    return {"traceparent": f"00-{TRACE_ID}-{CALLER}-0{int(sampled)}"}


def inside(span: Any, parent: Any) -> bool:
    times = (parent.start_time_unix_nano, span.start_time_unix_nano, span.end_time_unix_nano, parent.end_time_unix_nano)
    # Two clocks, one of them read some microseconds after the other.
    return all(first <= then + 1_000_000 for first, then in pairwise(times))


def test_a_request_is_a_span_with_its_stages_below(start: Start, receiver: Receiver, tmp_path: Path) -> None:
    with start(store=tmp_path / "predictions.sqlite") as service:
        status, answer = service.post("/v1/predict", ROW, **traceparent())
        assert status == 200
        outcome = {"outcomes": [{"id": answer["id"], "outcome": answer["outcome"]}]}
        assert service.post("/v1/outcomes", outcome, **traceparent())[0] == 200
        service.until(lambda: "POST /v1/outcomes" in receiver.of(TRACE_ID))
    found = receiver.of(TRACE_ID)
    (predict,), (outcomes,) = found.pop("POST /v1/predict"), found.pop("POST /v1/outcomes")
    assert predict.kind == predict.SPAN_KIND_SERVER
    assert predict.parent_span_id.hex() == outcomes.parent_span_id.hex() == CALLER
    assert {name: len(spans) for name, spans in found.items()} == {
        "queue": 1, "tokenise": 1, "inference": 1, "diagnostics": 1, "store": 2,
    }  # fmt: skip
    for name in ("queue", "tokenise", "inference", "diagnostics"):
        assert found[name][0].parent_span_id == predict.span_id
        assert inside(found[name][0], predict), name
    assert {span.parent_span_id for span in found["store"]} == {predict.span_id, outcomes.span_id}
    assert attributes(predict) == {
        "http.request.method": "POST", "http.route": "/v1/predict", "http.response.status_code": 200,
        "evenkeel.request_id": attributes(predict)["evenkeel.request_id"],
    }  # fmt: skip
    assert receiver.paths == {"/v1/traces"}
    assert {resource["service.name"] for resource in receiver.resources} == {"evenkeel"}
    sent = str(receiver.spans) + str(receiver.resources)
    assert not [value for value in (NAME, "2.125", "female") if value in sent]


def test_a_log_line_and_the_answer_name_the_span(start: Start, receiver: Receiver) -> None:
    with start() as service:
        service.post("/v1/predict", ROW, **traceparent())
        service.until(lambda: "POST /v1/predict" in receiver.of(TRACE_ID))
    (span,) = receiver.of(TRACE_ID)["POST /v1/predict"]
    lines = [json.loads(line) for line in service.said.splitlines()]
    (line,) = [one for one in lines if one.get("route") == "/v1/predict"]
    assert (line["trace_id"], line["span_id"], line["parent_id"]) == (TRACE_ID, span.span_id.hex(), CALLER)
    assert line["request_id"] == attributes(span)["evenkeel.request_id"]


def test_what_is_not_sampled_is_not_sent(start: Start, receiver: Receiver) -> None:
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
    with start({**sampler, "OTEL_SERVICE_NAME": "risk"}) as service:
        service.post("/v1/predict", ROW)
        service.post("/v1/predict", ROW, traceparent=f"00-{'1' * 32}-{CALLER}-00")
        service.post("/v1/predict", ROW, **traceparent())
        service.until(lambda: "POST /v1/predict" in receiver.of(TRACE_ID))
        asked = service.ask("GET", "/metrics", None, {"Accept": "application/openmetrics-text"})[1].decode()
    assert {span.trace_id.hex() for span in receiver.spans} == {TRACE_ID}
    assert {resource["service.name"] for resource in receiver.resources} == {"risk"}
    exemplars = {line.partition(' # {trace_id="')[2][:32] for line in asked.splitlines() if " # {" in line}
    assert exemplars == {TRACE_ID}


def test_a_stream_has_no_more_spans_than_a_trace_can_show(start: Start, receiver: Receiver) -> None:
    lines = "\n".join(json.dumps({**ROW, "age": number / 10}) for number in range(600))
    with start(max_batch_rows=1) as service:
        headers = {"Content-Type": "application/x-ndjson", **traceparent()}
        status, _ = service.ask("POST", "/v1/predict/stream", lines.encode(), headers)
        assert status == 200
        service.until(lambda: "POST /v1/predict/stream" in receiver.of(TRACE_ID))
    found = receiver.of(TRACE_ID)
    assert sum(map(len, found.values())) == 1 + MAX_STAGES


def test_a_receiver_that_is_gone_costs_no_answer(start: Start, receiver: Receiver) -> None:
    receiver.server.server_close()
    with start() as service:
        for _ in range(5):
            assert service.post("/v1/predict", ROW, **traceparent())[0] == 200


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"OTEL_SERVICE_NAME": "x", "OTEL_TRACES_SAMPLER": "always_on"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, ""),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{ENDPOINT}/v1/traces"}, ""),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, ""),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, None),
        ({"OTEL_SDK_DISABLED": "TRUE", "OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT}, None),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is zipkin; it must be otlp or none"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, ""),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"},
            "OTEL_EXPORTER_OTLP_PROTOCOL is grpc; it must be http/protobuf, for which collectors listen on 4318",
        ),
    ],
)
def test_the_variables_that_ask_for_traces(variables: dict[str, str], expected: str | None) -> None:
    assert wanted_traces(variables) == expected


CODE = """
import logging, os, sys
logging.basicConfig(format="%(message)s")
sys.modules.update(dict.fromkeys(sys.argv[1:], None))
import service.serve
from service.http.tracing import make_tracing
made = make_tracing(os.environ)
print(made is not None, sorted(name for name in sys.modules if name.startswith("opentelemetry") and sys.modules[name]))
"""


def make(*absent: str, **variables: str) -> tuple[str, str]:
    """What a process says that makes its tracing; ``absent`` modules are not installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, "-c", CODE, *absent],
        cwd=ROOT,
        env={**environment, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip(), done.stderr.strip()


def test_nothing_of_it_is_imported_where_no_traces_are_asked_for() -> None:
    assert make() == ("False []", "")
    assert make(OTEL_SERVICE_NAME="x", OTEL_TRACES_EXPORTER="none") == ("False []", "")


def test_a_warning_says_why_no_traces_are_sent() -> None:
    assert make("opentelemetry", OTEL_TRACES_EXPORTER="otlp") == (
        "False []", "no traces are sent: OpenTelemetry is not installed, which the extra otel does",
    )  # fmt: skip
    assert make(OTEL_TRACES_EXPORTER="console")[1].startswith("no traces are sent: OTEL_TRACES_EXPORTER is console")


@pytest.mark.parametrize(
    "variable", [{"OTEL_BSP_MAX_QUEUE_SIZE": "-1"}, {"OTEL_PROPAGATORS": "x"}, {"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "x"}]
)
def test_a_variable_that_is_not_valid_is_a_warning(receiver: Receiver, variable: dict[str, str]) -> None:
    said = make(OTEL_EXPORTER_OTLP_ENDPOINT=receiver.url, **variable)
    assert said[0].startswith("False")
    assert "a variable OTEL_* is not valid" in said[1]
