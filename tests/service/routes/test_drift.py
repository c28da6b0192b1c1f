"""The drift report over HTTP, its acknowledgement, and what of it outlives a restart."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from litestar.testing import TestClient

from models.bundle.read import Bundle
from models.reference import build_reference
from service.drift.monitor import STREAMS
from service.settings import Settings
from tests.service.drift.test_monitor import probability
from tests.service.inference.test_batcher import wait_until
from tests.service.serving import make_app
from tests.service.test_app import Deterministic, problem, samples
from tests.titanic import SCHEMA
from training.data.table import Table


@pytest.fixture(scope="module")
def bundle(tiny_bundle: Bundle, table: Table) -> Bundle:
    """With a reference of all rows of the table."""
    p = np.array([probability(row) for row in table.rows])
    return msgspec.structs.replace(tiny_bundle, reference=build_reference(p, table.rows, SCHEMA))


def app(bundle: Bundle, **settings: Any) -> TestClient[Any]:
    made = make_app(Settings(timeout_seconds=5, **settings), lambda _: Deterministic(bundle))
    return TestClient(made, raise_server_exceptions=False)


@pytest.fixture
def client(bundle: Bundle, tmp_path: Path) -> Iterator[TestClient[Any]]:
    with app(bundle, state=str(tmp_path)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


MEN = {"rows": [{"pclass": 3, "sex": "male", "age": 22}] * 200}


def gauges(client: TestClient[Any], name: str, bundle: Bundle) -> dict[str, float]:
    found = samples(client)
    return {
        stream: found[f"evenkeel_drift_{name}", frozenset({("version", bundle.version), ("stream", stream)})]
        for stream in STREAMS
    }


def test_gauges_exist_from_the_start_and_follow(client: TestClient[Any], bundle: Bundle) -> None:
    assert gauges(client, "alarm", bundle) == gauges(client, "log_evidence", bundle) == dict.fromkeys(STREAMS, 0.0)
    client.post("/v1/predict/batch", json=MEN)
    assert gauges(client, "alarm", bundle) == {"prediction": 1, "input": 1, "calibration": 0}
    assert gauges(client, "log_evidence", bundle)["input"] > np.log(Settings().run_length)


def test_the_report_and_the_acknowledgement(client: TestClient[Any], bundle: Bundle) -> None:
    quiet = client.get("/v1/drift").json()
    assert quiet["summary"] == "no drift test alarms"
    assert quiet["estimates"] is None
    client.post("/v1/predict/batch", json=MEN)
    body = client.get("/v1/drift").json()
    assert (body["version"], body["run_length"]) == (bundle.version, Settings().run_length)
    assert body["summary"].startswith("the mix of passengers moved")
    streams = {one["stream"]: one for one in body["streams"]}
    assert streams["input"]["alarm"] is True
    assert 0 < streams["input"]["at"] < 200
    assert "one false alarm in about" in streams["input"]["summary"]
    assert streams["input"]["days_to_false_alarm"] > 0
    assert streams["calibration"]["since"] is None
    sex = next(one for one in body["distributions"] if one["variable"] == "sex")
    assert [one["bin"] for one in sex["bins"]] == ["male", "female", "unknown"]
    assert [one["live"] for one in sex["bins"]] == [1, 0, 0]
    assert sex["stability_index"] > sex["expected_stability_index"] > 0
    answer = client.post("/v1/drift/acknowledge", json={"stream": "input", "begin": "recent"})
    assert answer.status_code == 200
    assert [one["alarm"] for one in answer.json()["streams"]] == [True, False, False]
    answer = client.post("/v1/drift/acknowledge", json={})
    assert not any(one["alarm"] for one in answer.json()["streams"])


def test_a_wrong_acknowledgement_is_refused(client: TestClient[Any]) -> None:
    for body in ({"stream": "inputs"}, {"streem": "input"}, {"begin": 1}, []):
        problem(client.post("/v1/drift/acknowledge", json=body), 422)
    problem(client.post("/v1/drift/acknowledge", content=b"{", headers={"Content-Type": "application/json"}), 400)
    problem(client.post("/v1/drift/acknowledge"), 415)
    problem(client.get("/v1/drift/acknowledge"), 405)


def test_before_the_bundle_is_there() -> None:
    def load(_: object) -> Deterministic:
        raise ValueError("no bundle")

    with TestClient(make_app(Settings(state=""), load)) as client:
        wait_until(lambda: client.get("/health/ready").json()["detail"] == "no bundle")
        problem(client.get("/v1/drift"), 503)
        problem(client.post("/v1/drift/acknowledge", json={}), 503)


def restarted(bundle: Bundle, folder: str) -> dict[str, Any]:
    with app(bundle, state=folder) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        found: dict[str, Any] = client.get("/v1/drift").json()
        client.post("/v1/predict/batch", json=MEN)
        return found


def test_an_alarm_outlives_a_restart_but_not_another_version(
    bundle: Bundle, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = str(tmp_path)
    assert restarted(bundle, folder)["streams"][1]["alarm"] is False
    again = restarted(bundle, folder)["streams"][1]
    assert (again["alarm"], again["seen"]) == (True, 200)
    other = msgspec.structs.replace(bundle, version="0123456789ab")
    assert restarted(other, folder)["streams"][1]["seen"] == 0
    assert restarted(bundle, folder)["streams"][1]["seen"] == 400
    path = tmp_path / f"drift-{bundle.version}.json"
    path.write_bytes(path.read_bytes()[:1000])
    with caplog.at_level(logging.WARNING):
        assert restarted(bundle, folder)["streams"][1]["seen"] == 0
    assert "is not used" in caplog.text
    assert path.with_suffix(".unusable").exists()


def test_no_folder_keeps_nothing(bundle: Bundle, tmp_path: Path) -> None:
    assert restarted(bundle, "")["streams"][1]["seen"] == 0
    assert restarted(bundle, "")["streams"][1]["seen"] == 0
    assert not list(tmp_path.iterdir())
