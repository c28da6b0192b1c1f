"""The drift report as server-sent events, of a real process."""

import contextlib
import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.drift.events import MAX_SUBSCRIBERS
from tests.deploy.programs import free_port
from tests.service.test_app import problem
from tests.service.test_real import start, wait_ready

WOMAN = {"pclass": 1, "sex": "female"}


@pytest.fixture(scope="module")
def service(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    state = tmp_path_factory.mktemp("state")
    process = start(
        "--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--state", state, "--log-level", "warning"
    )
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    yield url
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr


def reports(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The reports of an event stream, as they come."""
    for line in lines:
        if line.startswith("data: "):
            yield json.loads(line[len("data: ") :])


def test_the_report_comes_at_once_and_again_when_it_changed(service: str) -> None:
    with httpx.stream("GET", f"{service}/v1/drift/events", timeout=10) as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        found = reports(response.iter_lines())
        first = next(found)
        now = httpx.get(f"{service}/v1/drift").json()
        assert [one["stream"] for one in first["streams"]] == [one["stream"] for one in now["streams"]]
        httpx.post(f"{service}/v1/predict", json=WOMAN, timeout=30)
        second = next(found)
    assert second["streams"][0]["seen"] == first["streams"][0]["seen"] + 1
    assert second["streams"][0]["history"][-1] == [
        second["streams"][0]["seen"],
        pytest.approx(second["streams"][0]["log_evidence"], abs=1e-3),
    ]


def test_a_trial_is_answered_and_leaves_no_trace(service: str) -> None:
    before = httpx.get(f"{service}/v1/drift").json()["streams"]
    counted = httpx.post(f"{service}/v1/predict", json=WOMAN, timeout=30).json()
    trial = httpx.post(f"{service}/v1/predict?trial=true", json=WOMAN, timeout=30).json()
    assert {**trial, "id": ""} == {**counted, "id": ""}
    assert httpx.get(f"{service}/v1/drift").json()["streams"][0]["seen"] == before[0]["seen"] + 1
    lines = httpx.get(f"{service}/metrics").text.splitlines()
    predictions = sum(float(one.split()[1]) for one in lines if one.startswith("evenkeel_predictions_total{"))
    assert predictions == before[0]["seen"] + 1
    problem(httpx.post(f"{service}/v1/predict?trial=perhaps", json=WOMAN), 400)


def test_head_ends(service: str) -> None:
    response = httpx.head(f"{service}/v1/drift/events", timeout=10)
    # As of the stream itself, which has none.
    assert "content-length" not in response.headers
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")


def test_subscribers_are_bounded_and_those_who_left_make_room(service: str) -> None:
    port = int(service.rsplit(":", 1)[1])
    with ExitStack() as open_streams:
        for _ in range(MAX_SUBSCRIBERS):
            one = open_streams.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            one.sendall(b"GET /v1/drift/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert one.recv(4096).startswith(b"HTTP/1.1 200")
        refused = httpx.get(f"{service}/v1/drift/events")
        problem(refused, 503)
        assert refused.headers["Retry-After"]
    for _ in range(100):
        with httpx.stream("GET", f"{service}/v1/drift/events") as response:
            if response.status_code == 200:
                return
        time.sleep(0.05)
    raise AssertionError("nobody's place became free")


def test_a_stop_ends_open_streams(bundle_folder: Path) -> None:
    port = free_port()
    process = start("--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--state", "")
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    with httpx.stream("GET", f"{url}/v1/drift/events", timeout=20) as response:
        lines = response.iter_lines()
        next(reports(lines))
        process.send_signal(signal.SIGTERM)
        # The stream ends whole: a reader that waits for more sees its end and no broken connection.
        with contextlib.closing(response):
            assert not list(reports(lines))
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 0, stderr
