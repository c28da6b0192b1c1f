"""POST /v1/outcomes: what is acknowledged, counted and refused."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from models.bundle.read import Bundle
from service.settings import Settings
from service.uuid7 import uuid7
from tests.service.serving import make_app
from tests.service.store.test_store import wait_until, where
from tests.service.test_app import ALLISON, Deterministic, problem, samples
from tests.titanic import LABELS

__all__ = ["where"]


@contextmanager
def serving(bundle: Bundle, store: str, **options: Any) -> Iterator[TestClient[Any]]:
    settings = Settings(timeout_seconds=10, store=store, store_inputs="row", **options)
    app = make_app(settings, lambda _: Deterministic(bundle))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


@pytest.fixture
def client(tiny_bundle: Bundle, where: str) -> Iterator[TestClient[Any]]:
    with serving(tiny_bundle, where) as client:
        yield client


def predict(client: Any, count: int = 1) -> list[dict[str, Any]]:
    rows = [{**ALLISON, "age": float(n % 60)} for n in range(count)]
    found: list[dict[str, Any]] = client.post("/v1/predict/batch", json={"rows": rows}).json()["predictions"]
    return found


def send(client: Any, *outcomes: tuple[str, str]) -> Any:
    return client.post("/v1/outcomes", json={"outcomes": [{"id": id, "outcome": name} for id, name in outcomes]})


def test_each_outcome_is_answered(client: TestClient[Any]) -> None:
    a, b, c = (one["id"] for one in predict(client, 3))
    missing = uuid7()
    response = send(client, (a, "survived"), (b, "died"), (missing, "survived"), (a, "survived"), (b, "survived"))
    assert response.status_code == 200
    assert response.json() == {"counted": 2, "repeated": 1, "unknown": [missing], "conflicting": [b]}
    assert send(client, (a, "survived"), (c.upper(), "died")).json() == {
        "counted": 1, "repeated": 1, "unknown": [], "conflicting": [],
    }  # fmt: skip


def test_one_prediction_alone_and_message_pack(client: TestClient[Any]) -> None:
    id = client.post("/v1/predict", json=ALLISON).json()["id"]
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    body = msgspec.msgpack.encode({"outcomes": [{"id": id, "outcome": "survived"}]})
    response = client.post("/v1/outcomes", content=body, headers=headers)
    assert msgspec.msgpack.decode(response.content)["counted"] == 1


def test_the_counters_are_those_of_the_definitions(client: TestClient[Any], tiny_bundle: Bundle) -> None:
    version = ("version", tiny_bundle.version)
    before = samples(client)
    cells = [labels for name, labels in before if name == "evenkeel_outcomes_total"]
    assert len(cells) == 20
    assert all(before["evenkeel_outcomes_total", labels] == 0 for labels in cells)
    predictions = predict(client, 60)
    fates = {one["id"]: n % 3 == 0 for n, one in enumerate(predictions)}
    for _ in range(2):
        send(client, *((id, LABELS[fate]) for id, fate in fates.items()))
    send(client, *((id, LABELS[not fate]) for id, fate in fates.items()), ("nobody", "survived"))
    found = samples(client)
    for low in range(10):
        for fate in (False, True):
            labels = frozenset({version, ("bin", f"{low / 10:.1f}-{(low + 1) / 10:.1f}"), ("outcome", LABELS[fate])})
            expected = sum(
                fates[one["id"]] == fate and low / 10 <= one["probability"] < (low + 1) / 10 for one in predictions
            )
            assert found["evenkeel_outcomes_total", labels] == expected
    losses = [-math.log(one["probability"] if fates[one["id"]] else 1 - one["probability"]) for one in predictions]
    errors = [(one["probability"] - fates[one["id"]]) ** 2 for one in predictions]
    assert found["evenkeel_outcome_log_loss_sum_total", frozenset({version})] == pytest.approx(sum(losses))
    assert found["evenkeel_outcome_brier_sum_total", frozenset({version})] == pytest.approx(sum(errors))
    for result, count in {"counted": 60, "repeated": 60, "conflicting": 60, "unknown": 1}.items():
        assert found["evenkeel_outcomes_received_total", frozenset({("result", result)})] == count
    assert found["evenkeel_store_up", frozenset()] == 1
    for reason in ("queue_full", "refused", "stopped"):
        assert found["evenkeel_store_dropped_total", frozenset({("reason", reason)})] == 0


def test_after_a_restart_with_another_bundle_old_predictions_count_for_their_version(
    tiny_bundle: Bundle, where: str
) -> None:
    with serving(tiny_bundle, where) as client:
        (one,) = predict(client)
    successor = msgspec.structs.replace(tiny_bundle, version="0" * 12)
    with serving(successor, where) as client:
        predict(client)
        wait_until(lambda: sum(name == "evenkeel_outcomes_total" for name, _ in samples(client)) == 40)
        assert send(client, (one["id"], "survived")).json()["counted"] == 1
        found = samples(client)
        assert found["evenkeel_outcome_brier_sum_total", frozenset({("version", tiny_bundle.version)})] > 0
        assert found["evenkeel_outcome_brier_sum_total", frozenset({("version", "0" * 12)})] == 0


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/outcomes"]),
        ({"outcomes": []}, ["/outcomes"]),
        ({"outcomes": [{"id": "x", "outcome": "died"}] * 1025}, ["/outcomes"]),
        ({"outcomes": [{"id": "x"}]}, ["/outcomes/0/outcome"]),
        ({"outcomes": [{"id": "x", "outcome": 1}]}, ["/outcomes/0/outcome"]),
        ({"outcomes": [{"id": "x", "outcome": "Survived"}]}, ["/outcomes/0/outcome"]),
        ({"outcomes": [{"id": "x", "outcome": None}]}, ["/outcomes/0/outcome"]),
        ({"outcomes": [{"id": 3, "outcome": "died"}]}, ["/outcomes/0/id"]),
        ({"outcomes": [{"id": "", "outcome": "died"}]}, ["/outcomes/0/id"]),
        ({"outcomes": [{"id": "x" * 65, "outcome": "died"}]}, ["/outcomes/0/id"]),
        ({"outcomes": [{"id": "x", "outcome": "died", "outcmoe": 1}]}, ["/outcomes/0/outcmoe"]),
        ({"outcomes": [{"id": "x", "outcome": "died"}, {"id": "y"}], "more": 1}, ["/more", "/outcomes/1/outcome"]),
    ],
    ids=range(12),
)
def test_bodies_are_strict_and_a_faulty_one_takes_nothing(
    tiny_bundle: Bundle, tmp_path: Path, body: Any, pointers: list[str]
) -> None:
    with serving(tiny_bundle, str(tmp_path / "s.sqlite")) as client:
        found = problem(client.post("/v1/outcomes", json=body), 422)
        assert sorted(fault["pointer"] for fault in found["errors"]) == pointers
        problem(client.post("/v1/outcomes", content=b"{", headers={"Content-Type": "application/json"}), 400)
        problem(client.post("/v1/outcomes", content=b"{}", headers={"Content-Type": "text/plain"}), 415)


def test_strange_ids_are_unknown_and_nothing_breaks(client: TestClient[Any]) -> None:
    strange = ["\x00", "ü" * 40, "'; DROP TABLE evenkeel_predictions; --", "{" + uuid7() + "}", "%s", "?"]
    assert send(client, *((id, "survived") for id in strange)).json()["unknown"] == strange
    assert client.post("/v1/predict", json=ALLISON).status_code == 200


def test_without_a_store_there_are_no_outcomes(tiny_bundle: Bundle) -> None:
    with serving(tiny_bundle, "none") as client:
        (one,) = predict(client)
        assert math.isnan(samples(client)["evenkeel_store_up", frozenset()])
        assert "without a store" in problem(send(client, (one["id"], "survived")), 404)["detail"]


def test_while_the_store_is_unusable_predictions_go_on(tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.mkdir()
    with serving(tiny_bundle, str(path)) as client:
        wait_until(lambda: "store" in client.get("/health/ready").json()["detail"])
        (one,) = predict(client)
        response = send(client, (one["id"], "survived"))
        problem(response, 503)
        assert int(response.headers["Retry-After"]) >= 1
        ready = client.get("/health/ready")
        assert ready.status_code == 200
        assert "outcomes are refused, the store is unusable" in ready.json()["detail"]
        assert samples(client)["evenkeel_store_up", frozenset()] == 0
        path.rmdir()
        wait_until(lambda: client.get("/health/ready").json()["detail"] == "")
        assert send(client, (one["id"], "survived")).json()["counted"] == 1
