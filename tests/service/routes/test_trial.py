"""Predictions that are no traffic: asked for by a header, or all that a key may ask for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from models.bundle.read import Bundle
from service.http.keys import new_key, write_keys
from service.settings import Settings
from tests.service.inference.test_batcher import wait_until
from tests.service.serving import ApplicationClient, make_app
from tests.service.test_app import ALLISON, Deterministic, problem, samples

TRIAL = {"X-Trial": "true"}
TENSOR = {"name": "row", "shape": [1], "datatype": "BYTES", "data": [json.dumps(ALLISON)]}
ASK: dict[str, Any] = {
    "/v1/predict": {"json": ALLISON},
    "/v1/predict/batch": {"json": {"rows": [ALLISON]}},
    "/v1/predict/stream": {"content": json.dumps(ALLISON), "headers": {"Content-Type": "application/x-ndjson"}},
    "/v2/models/NAME/infer": {"json": {"inputs": [TENSOR]}},
}


def ask(client: ApplicationClient, path: str, **headers: str) -> Any:
    given, name = ASK[path], client.application.services.batcher.predictor.bundle.name
    return client.post(path.replace("NAME", name), **{**given, "headers": {**given.get("headers", {}), **headers}})


def serve(bundle: Bundle, **settings: Any) -> Iterator[ApplicationClient]:
    app = make_app(Settings(timeout_seconds=5, state="", **settings), lambda _: Deterministic(bundle))
    with ApplicationClient(app, raise_server_exceptions=False, base_url="http://127.0.0.1") as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


@pytest.fixture
def client(tiny_bundle: Bundle) -> Iterator[ApplicationClient]:
    yield from serve(tiny_bundle)


def seen(client: ApplicationClient, **headers: str) -> tuple[float, int]:
    """Predictions by the counters, and by the drift tests."""
    report = client.get("/v1/drift", headers=headers).json()
    found = {} if headers else samples(client)
    counted = sum(value for (name, _), value in found.items() if name == "evenkeel_predictions_total")
    return counted, report["streams"][0]["seen"]


@pytest.mark.parametrize("path", ASK)
def test_a_trial_is_answered_and_leaves_no_trace(client: ApplicationClient, path: str) -> None:
    before = seen(client)
    for value in ("true", " TRUE "):
        assert ask(client, path, **{"X-Trial": value}).status_code == 200
    assert seen(client) == before
    for headers in ({}, {"X-Trial": "false"}):
        assert ask(client, path, **headers).status_code == 200
    assert seen(client) == (before[0] + 2, before[1] + 2)


@pytest.mark.parametrize("path", [path for path in ASK if "infer" not in path])
@pytest.mark.parametrize("value", ["", "yes", "1", "x" * 1000])
def test_other_values_are_refused_by_name(client: ApplicationClient, path: str, value: str) -> None:
    refused = problem(ask(client, path, **{"X-Trial": value}), 400)
    assert refused["detail"].startswith("X-Trial is ")
    assert refused["detail"].endswith("; it must be true or false")


@pytest.mark.parametrize("path", ASK)
def test_where_there_are_keys_it_is_bound_to_a_scope(tiny_bundle: Bundle, tmp_path: Path, path: str) -> None:
    made = {name: new_key(name, scopes) for name, scopes in
            {"shop": ("predict",), "probe": ("trial",), "both": ("predict", "trial")}.items()}  # fmt: skip
    write_keys(tmp_path / "keys.json", [entry for _, entry in made.values()])
    keys = {name: {"X-API-Key": key} for name, (key, _) in made.items()}
    for client in serve(tiny_bundle, keys=str(tmp_path / "keys.json")):
        assert ask(client, path, **keys["shop"], **TRIAL).status_code == 403
        for headers in (keys["probe"], {**keys["probe"], **TRIAL}, {**keys["both"], **TRIAL}):
            assert ask(client, path, **headers).status_code == 200
        assert seen(client, **keys["both"])[1] == 0
        for name in ("shop", "both"):
            assert ask(client, path, **keys[name]).status_code == 200
        assert seen(client, **keys["both"])[1] == 2
        assert client.post("/v1/outcomes", json={"outcomes": []}, headers=keys["probe"]).status_code == 403
