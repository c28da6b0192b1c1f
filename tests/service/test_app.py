"""The HTTP surface over a deterministic predictor with a real (tiny) bundle."""

import json
import math
import re
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np
import pytest
from litestar.testing import TestClient
from prometheus_client.parser import text_string_to_metric_families

from models.bundle.read import Bundle
from models.prediction import EncodedText, Prediction, PredictionError
from models.reference import PROBABILITY_BINS
from models.rows import Row
from service.inference.supervision import MAX_RESTARTS
from service.settings import Settings
from tests.service.inference.test_batcher import Echo, wait_until
from tests.service.predictions import diagnose
from tests.service.serving import make_app
from tests.titanic import COLUMNS, SCHEMA

ALLISON = {"pclass": 1, "sex": "female", "name": "Allison, Miss. Helen Loraine", "age": 2.0, "sibsp": 1, "parch": 2}


class Deterministic(Echo):
    """Logits from the age, so that answers can be told apart; a fare of 999 gives a failure."""

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        self.hold.wait(10)
        if any(one.fare == 999 for one in rows):
            raise ValueError(f"a bad row: {rows}")
        assert self.bundle is not None
        logits = np.array([(one.age or 0) / 10 - 3 for one in rows])
        return diagnose(self.bundle, logits, rows, [""] * len(rows))


@contextmanager
def serving(bundle: Bundle) -> Iterator[TestClient[Any]]:
    app = make_app(Settings(timeout_seconds=5), lambda _: Deterministic(bundle))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


@pytest.fixture(scope="module")
def client(tiny_bundle: Bundle) -> Iterator[TestClient[Any]]:
    with serving(tiny_bundle) as client:
        yield client


@pytest.fixture
def fresh(tiny_bundle: Bundle) -> Iterator[TestClient[Any]]:
    """That of a service which nobody else has asked."""
    with serving(tiny_bundle) as client:
        yield client


def post(client: TestClient[Any], body: bytes, content_type: str | None = "application/json", path: str = "") -> Any:
    headers = {"Content-Type": content_type} if content_type is not None else {}
    return client.post("/v1/predict" + path, content=body, headers=headers)


def test_one_passenger(client: TestClient[Any], tiny_bundle: Bundle) -> None:
    response = client.post("/v1/predict", json=ALLISON)
    assert response.status_code == 200
    body = response.json()
    assert list(body) == ["id", "model", "outcome", "probability", "probabilities", "confidence"]
    assert uuid.UUID(body["id"]).version == 7
    assert body["model"] == {"name": "tiny", "version": tiny_bundle.version}
    confidence = body["confidence"]
    assert list(confidence) == [
        "interval", "venn_abers", "prediction_set", "coverage", "margin", "entropy_bits", "typicality", "abstain",
        "uncalibrated_probability", "calibration", "warnings",
    ]  # fmt: skip
    assert confidence["interval"][0] <= body["probability"] <= confidence["interval"][1]
    assert confidence["calibration"][0] == {"step": "model", "probability": confidence["uncalibrated_probability"]}
    assert re.fullmatch(r"queue;dur=[\d.]+, inference;dur=[\d.]+", response.headers["Server-Timing"])


def test_ids_rise_with_time(client: TestClient[Any]) -> None:
    ids = [client.post("/v1/predict", json=ALLISON).json()["id"] for _ in range(5)]
    assert len(set(ids)) == 5
    assert [one[:13] for one in ids] == sorted(one[:13] for one in ids)


def test_a_batch_keeps_its_order(client: TestClient[Any]) -> None:
    rows = [{"pclass": 3, "sex": "male", "age": age} for age in range(100)]
    predictions = client.post("/v1/predict/batch", json={"rows": rows}).json()["predictions"]
    raw = [one["confidence"]["uncalibrated_probability"] for one in predictions]
    assert raw == sorted(raw)
    assert raw[50] == pytest.approx(1 / (1 + math.exp(-2)))
    alone = client.post("/v1/predict", json=rows[17]).json()
    assert {**alone, "id": ""} == {**predictions[17], "id": ""}


def test_message_pack_both_ways(client: TestClient[Any]) -> None:
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    response = client.post("/v1/predict", content=msgspec.msgpack.encode(ALLISON), headers=headers)
    assert response.headers["Content-Type"] == "application/msgpack"
    packed, plain = msgspec.msgpack.decode(response.content), client.post("/v1/predict", json=ALLISON).json()
    assert {**packed, "id": ""} == {**plain, "id": ""}


GOOD = json.dumps(ALLISON).encode()


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (GOOD, None, 415),
        (GOOD, "", 415),
        (GOOD, "text/plain", 415),
        (GOOD, "application/x-www-form-urlencoded", 415),
        (GOOD, "application/json; charset=latin-1", 415),
        (GOOD, "application/json; charset=UTF-8", 200),
        (GOOD, "Application/JSON", 200),
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (GOOD + b"{}", "application/json", 400),
        (GOOD[:-1], "application/json", 400),
        (b'{"pclass":3,"sex":"male","name":"\xff"}', "application/json", 400),
        (b"\xff\xfe" + GOOD, "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[" * 100_000 + b"]" * 100_000, "application/json", 400),
        (b'{"pclass":3,"sex":"male","age":NaN}', "application/json", 400),
        (b'{"pclass":3,"sex":"male","age":Infinity}', "application/json", 400),
        (b'{"pclass":3,"sex":"male","age":1e999}', "application/json", 422),
        (b"null", "application/json", 422),
        (b"[]", "application/json", 422),
        (b'"x"', "application/json", 422),
        (b"3", "application/json", 422),
        (GOOD, "application/msgpack", 400),
        (b"\xc1", "application/msgpack", 400),
        (b"\x91" * 100_000, "application/msgpack", 400),
        (msgspec.msgpack.encode({"pclass": 3, "sex": "male", "age": float("nan")}), "application/msgpack", 422),
        (msgspec.msgpack.encode({1: 2}), "application/msgpack", 422),
        (b"x" * (1 << 20) + b"x", "application/json", 413),
    ],
    ids=range(28),
)
def test_bodies_byte_by_byte(client: TestClient[Any], body: bytes, content_type: str | None, status: int) -> None:
    response = post(client, body, content_type)
    assert response.status_code == status, response.text
    if status != 200:
        problem(response, status)
    assert client.post("/v1/predict", json=ALLISON).status_code == 200


def test_a_value_without_a_json_form_is_named_without_its_address(client: TestClient[Any]) -> None:
    body = msgspec.msgpack.encode({"pclass": 3, "sex": "male", "x": [msgspec.msgpack.Ext(5, b"abc")]})
    errors = problem(post(client, body, "application/msgpack"), 422)["errors"]
    assert [(error["pointer"], error["value"]) for error in errors] == [("/x", '["extension 5"]')]


def problem(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["Content-Type"].startswith("application/problem+json")
    body: dict[str, Any] = response.json()
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["type"] == "about:blank"
    return body


@pytest.mark.parametrize(
    ("change", "pointer", "message"),
    [
        ({"pclass": "3"}, "/pclass", "^must be one of 1, 2, 3$"),
        ({"pclass": 3.0}, "/pclass", "^must be one of 1, 2, 3, written without a decimal point$"),
        ({"pclass": True}, "/pclass", "^must be one of 1, 2, 3$"),
        ({"pclass": 4}, "/pclass", "^must be one of 1, 2, 3$"),
        ({"pclass": None}, "/pclass", "^must be one of 1, 2, 3$"),
        ({"sex": "Male"}, "/sex", '^must be one of "male", "female"$'),
        ({"age": "22"}, "/age", "^must be a number from 0 to 120, or null$"),
        ({"age": -0.01}, "/age", "^must be a number from 0 to 120, or null$"),
        ({"age": 120.1}, "/age", "^must be a number from 0 to 120, or null$"),
        ({"age": True}, "/age", "^must be a number from 0 to 120, or null$"),
        ({"sibsp": 1.0}, "/sibsp", "^must be a whole number from 0 to 20, or null, written without a decimal point$"),
        ({"sibsp": 21}, "/sibsp", "^must be a whole number from 0 to 20, or null$"),
        ({"parch": 10**30}, "/parch", "^must be a whole number from 0 to 20, or null$"),
        ({"fare": 1e300}, "/fare", "^must be a number from 0 to 1000, or null$"),
        ({"name": "x" * 201}, "/name", "^must be a text of at most 200 characters, or null$"),
        ({"name": 3}, "/name", "^must be a text of at most 200 characters, or null$"),
        ({"embarked": "X"}, "/embarked", '^must be one of "S", "C", "Q", or null$'),
        ({"agee": 3}, "/agee", 'did you mean "age"'),
        ({"": 3}, "/", "is not a field"),
        ({"a/b~c": 3}, "/a~1b~0c", "is not a field"),
    ],
)
def test_each_fault_is_named(client: TestClient[Any], change: dict[str, Any], pointer: str, message: str) -> None:
    body = problem(client.post("/v1/predict", json={**ALLISON, **change}), 422)
    (fault,) = body["errors"]
    assert fault["pointer"] == pointer
    assert len(fault["value"]) <= 60
    assert re.search(message, fault["message"]), fault


def test_all_faults_are_named_at_once(client: TestClient[Any]) -> None:
    wrong = {"sex": "x", "age": "old", "fare": -1, "cabbin": "C85", "sibsp": 2.0}
    body = problem(client.post("/v1/predict", json=wrong), 422)
    pointers = {fault["pointer"] for fault in body["errors"]}
    assert pointers == {"/pclass", "/sex", "/age", "/fare", "/cabbin", "/sibsp"}
    batch = {"rows": [ALLISON, {**ALLISON, "age": 130}, ALLISON, {"sex": "male"}]}
    body = problem(client.post("/v1/predict/batch", json=batch), 422)
    assert [fault["pointer"] for fault in body["errors"]] == ["/rows/1/age", "/rows/3/pclass"]


@pytest.mark.parametrize("rows", [0, 1025])
def test_the_size_of_a_batch_is_bounded(client: TestClient[Any], rows: int) -> None:
    small = {"pclass": 1, "sex": "male"}
    body = problem(client.post("/v1/predict/batch", json={"rows": [small] * rows}), 422)
    (fault,) = body["errors"]
    assert fault["pointer"] == "/rows"
    assert "1024" in fault["message"]
    assert client.post("/v1/predict/batch", json={"rows": [small] * 1024}).status_code == 200


def test_unknown_routes_and_methods(client: TestClient[Any]) -> None:
    problem(client.get("/nope"), 404)
    response = client.get("/v1/predict")
    problem(response, 405)
    assert "POST" in response.headers["Allow"]


def test_a_failed_prediction_is_503_and_never_a_probability(client: TestClient[Any]) -> None:
    response = client.post("/v1/predict", json={**ALLISON, "fare": 999})
    assert "probability" not in problem(response, 503)
    assert response.headers["Retry-After"]
    assert client.post("/v1/predict", json=ALLISON).status_code == 200


def test_a_number_that_is_not_finite_is_a_503_for_who_brings_it_alone(tiny_bundle: Bundle) -> None:
    class Overflowing(Deterministic):
        def predict_checked(
            self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
        ) -> list[Prediction]:
            if any(one.fare == 998 for one in rows):
                raise PredictionError("the model's logits are not finite")
            return super().predict_checked(rows, encoded)

    with TestClient(make_app(Settings(), lambda _: Overflowing(tiny_bundle)), raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        for number in range(1, 4):
            assert "probability" not in problem(client.post("/v1/predict", json={**ALLISON, "fare": 998}), 503)
            assert client.post("/v1/predict", json=ALLISON).status_code == 200
            labels = frozenset({("reason", "not_finite")})
            assert samples(client)["evenkeel_prediction_failures_total", labels] == number
        assert samples(client)["evenkeel_inference_threads_lost_total", frozenset()] == 0


def test_health_and_model(client: TestClient[Any], tiny_bundle: Bundle) -> None:
    assert client.get("/health/live").json()["status"] == "live"
    assert client.get("/health/ready").json()["status"] == "ready"
    described = client.get("/v1/model").json()
    assert described["version"] == tiny_bundle.version
    assert described["name"] == described["schema"]["name"] == "tiny"
    # What the page makes its form of: the bundle's own description.
    assert described["schema"] == json.loads((tiny_bundle.folder / "schema.json").read_text())
    assert described["evaluation"] == {"rows": 60}
    assert (described["backend"]["threads"], described["backend"]["parallel"]) == (1, 1)
    assert client.get("/schema/openapi.json").json()["openapi"].startswith("3.1")


def test_before_the_model_is_there_it_lives_but_is_not_ready() -> None:
    def load(_: object) -> Echo:
        raise ValueError("no bundle")

    with TestClient(make_app(Settings(), load)) as client:
        wait_until(lambda: client.get("/health/ready").json()["detail"] == "no bundle")
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").status_code == 503
        problem(client.post("/v1/predict", json=ALLISON), 503)
        problem(client.get("/v1/model"), 503)


def samples(client: TestClient[Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    response = client.get("/metrics")
    assert response.headers["Content-Type"].startswith("text/plain")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def test_every_label_value_exists_at_zero(fresh: TestClient[Any], tiny_bundle: Bundle) -> None:
    found, version = samples(fresh), ("version", tiny_bundle.version)
    for outcome in ("died", "survived"):
        assert found["evenkeel_predictions_total", frozenset({version, ("outcome", outcome)})] == 0
    for name in PROBABILITY_BINS:
        assert found["evenkeel_predictions_by_probability_total", frozenset({version, ("bin", name)})] == 0
    shares = [
        found["evenkeel_reference_probability_proportion", frozenset({version, ("bin", n)})] for n in PROBABILITY_BINS
    ]
    assert sum(shares) == pytest.approx(1)
    assert found["evenkeel_reference_rows", frozenset({version})] == 60
    for bins in SCHEMA.input_bins:
        for name in bins.names:
            labels = frozenset({version, ("field", bins.field), ("bin", name)})
            assert found["evenkeel_inputs_total", labels] == 0
            assert 0 <= found["evenkeel_reference_input_proportion", labels] <= 1
    for field in COLUMNS:
        assert found["evenkeel_input_warnings_total", frozenset({version, ("field", field)})] == 0


def test_counters_add_up(fresh: TestClient[Any], tiny_bundle: Bundle) -> None:
    rows = [{"pclass": 3, "sex": "male", "age": age} for age in range(0, 120, 3)]
    predictions = fresh.post("/v1/predict/batch", json={"rows": rows}).json()["predictions"]
    fresh.post("/v1/predict", content=b"{")
    fresh.get("/some/path/of/a/fresh")
    found, version = samples(fresh), ("version", tiny_bundle.version)
    p = [one["probability"] for one in predictions]

    def total(name: str, **labels: str) -> float:
        wanted = set(labels.items())
        return sum(value for (sample, held), value in found.items() if sample == f"evenkeel_{name}" and wanted <= held)

    assert total("predictions_total") == total("predictions_by_probability_total") == len(p)
    assert total("predictions_total", outcome="survived") == sum(q >= 0.5 for q in p)
    assert total("predictions_by_probability_total", bin="0.3-0.4") == sum(0.3 <= q < 0.4 for q in p)
    for outcome, expected in (("survived", sum(p)), ("died", sum(1 - q for q in p))):
        counted = found["evenkeel_expected_outcomes_total", frozenset({version, ("outcome", outcome)})]
        assert counted == pytest.approx(expected)
    assert total("expected_correct_total") == pytest.approx(sum(max(q, 1 - q) for q in p))
    assert total("prediction_sets_total") == len(p)
    assert total("abstentions_total") == sum(one["confidence"]["abstain"] for one in predictions)
    assert total("input_warnings_total") == sum(len(one["confidence"]["warnings"]) for one in predictions) > 0
    assert total("inputs_total", field="age", bin="18-25") == sum(18 <= one["age"] < 25 for one in rows)
    assert total("inputs_total") == len(SCHEMA.fields) * len(p)
    assert total("batch_rows_sum") == len(p)
    assert total("queue_seconds_count") == 1
    assert total("http_requests_total", route="/v1/predict/batch", status="200") == 1
    assert total("http_requests_total", route="unmatched", status="404") == 1
    assert total("rejected_total", reason="media_type") + total("rejected_total", reason="malformed") == 1
    assert "some/path" not in fresh.get("/metrics").text


def test_a_client_may_shorten_the_deadline_and_not_lengthen_it(tiny_bundle: Bundle) -> None:
    predictor = Deterministic(tiny_bundle, seconds=0.3)
    app = make_app(Settings(timeout_seconds=0.5), lambda _: predictor)
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)

        def ask(milliseconds: str) -> Any:
            return client.post("/v1/predict", json=ALLISON, headers={"X-Request-Timeout-Ms": milliseconds})

        predictor.hold.clear()
        assert "within 0.05 seconds" in problem(ask("50"), 504)["detail"]
        assert "within 0.5 seconds" in problem(ask("60000"), 504)["detail"]
        predictor.hold.set()
        for wrong in ("0", "-1", "1.5", "soon", "", "1e3"):
            assert "whole number of milliseconds" in problem(ask(wrong), 400)["detail"]
        assert ask("9" * 13).status_code == 200


def test_live_turns_red_when_inference_is_lost_for_good(tiny_bundle: Bundle) -> None:
    class Dying(Deterministic):
        def predict_checked(
            self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
        ) -> list[Prediction]:
            raise SystemExit("the device is gone")

    with TestClient(make_app(Settings(), lambda _: Dying(tiny_bundle)), raise_server_exceptions=False) as client:
        for turn in range(MAX_RESTARTS + 1):
            wait_until(lambda: client.get("/health/ready").status_code == 200)
            assert client.get("/health/live").status_code == 200
            problem(client.post("/v1/predict", json=ALLISON), 503)
            assert samples(client)["evenkeel_inference_threads_lost_total", frozenset()] == turn + 1
        wait_until(lambda: client.get("/health/live").status_code == 503)
        assert client.get("/health/live").json() == {"status": "lost", "detail": "the device is gone"}
        counts = samples(client)
        assert counts["evenkeel_prediction_failures_total", frozenset({("reason", "lost")})] == MAX_RESTARTS + 1
