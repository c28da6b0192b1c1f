"""POST /v1/explain over a predictor whose answer is a function of the words: true differences, and no trace left."""

import concurrent.futures
import json
import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pytest

from models.bundle.read import Bundle
from models.bundle.write import write_bundle
from models.features.titanic import Companions
from models.prediction import EncodedText, Prediction
from models.rows import Row
from models.text import Renderer
from service.settings import Settings
from tests import reviews
from tests.service.inference.test_batcher import Echo, wait_until
from tests.service.predictions import diagnose
from tests.service.serving import ApplicationClient, make_app
from tests.service.test_app import ALLISON, post, problem, samples
from tests.tiny import ORIGIN, make_contents
from tests.titanic import Passenger

FULL = {**ALLISON, "fare": 151.55, "ticket": "113781", "cabin": "C22 C26", "embarked": "S"}


class Worded(Echo):
    """Logits from the words; a fare of 999 gives a failure."""

    def __init__(self, bundle: Bundle):
        super().__init__(bundle)
        self.render = Renderer(bundle.schema)
        self.asked: list[list[Row]] = []
        self.entered = threading.Event()

    def encode(self, rows: Sequence[Row]) -> list[EncodedText]:
        assert self.bundle is not None
        return [EncodedText(self.render(one, self.bundle.known), []) for one in rows]

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        assert self.bundle is not None
        self.entered.set()
        self.hold.wait(10)
        self.asked.append(list(rows))
        if any(getattr(one, "fare", None) == 999 for one in rows):
            raise ValueError("a bad row")
        texts = [one.text for one in encoded or self.encode(rows)]
        logits = np.array([crc32(text.encode()) / 2**30 - 2 for text in texts])
        return diagnose(self.bundle, logits, rows, texts)


@contextmanager
def serving(predictor: Echo, **knobs: Any) -> Iterator[ApplicationClient]:
    settings = Settings(**{"timeout_seconds": 5, "state": "", **knobs})
    app = make_app(settings, lambda _: predictor)
    with ApplicationClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client
        predictor.hold.set()


@pytest.fixture
def client(tiny_bundle: Bundle) -> Iterator[ApplicationClient]:
    with serving(Worded(tiny_bundle), store="none") as client:
        yield client


def log_odds(client: ApplicationClient, passenger: dict[str, Any]) -> float:
    p = client.post("/v1/predict", json=passenger).json()["probability"]
    return float(np.log(p) - np.log1p(-p))


def test_by_default_each_contribution_is_the_difference_of_two_predictions(
    client: ApplicationClient, tiny_bundle: Bundle
) -> None:
    body = client.post("/v1/explain", json=FULL).json()
    assert list(body) == ["model", "method", "positive", "prediction", "baseline", "fields", "text"]
    assert body["model"] == {"name": "tiny", "version": tiny_bundle.version}
    assert body["method"] == "unknown"
    whole = log_odds(client, FULL)
    predicted = client.post("/v1/predict", json=FULL).json()
    assert body["prediction"] == {
        "outcome": predicted["outcome"], "probability": predicted["probability"], "log_odds": whole,
    }  # fmt: skip
    contributions = {one["field"]: one["contribution"] for one in body["fields"]}
    assert {one["field"]: one["value"] for one in body["fields"]} == FULL
    for field in FULL.keys() - {"pclass", "sex"}:
        assert contributions[field] == whole - log_odds(client, {**FULL, field: None})
    (shares,) = (one.counts for one in tiny_bundle.reference.inputs if one.bins.field == "sex")
    average = sum(shares[sex] / 60 * log_odds(client, {**FULL, "sex": sex}) for sex in ("male", "female"))
    assert contributions["sex"] == pytest.approx(whole - average, abs=1e-12)
    assert [abs(one["contribution"]) for one in body["fields"]] == sorted(
        map(abs, contributions.values()), reverse=True
    )
    assert body["text"].endswith("Miss, small child, small family, luxury fare, deck C, Southampton")


def test_shapley_values_sum_to_the_difference_from_the_baseline(client: ApplicationClient) -> None:
    body = client.post("/v1/explain?method=shapley", json=FULL).json()
    assert body["method"] == "shapley"
    total = math.fsum(one["contribution"] for one in body["fields"])
    assert total == pytest.approx(body["prediction"]["log_odds"] - body["baseline"]["log_odds"], abs=1e-9)
    baseline = body["baseline"]
    assert baseline["probability"] == pytest.approx(1 / (1 + math.exp(-baseline["log_odds"])))
    assert baseline["description"].endswith("all else unknown")
    assert client.post("/v1/explain", json=FULL).json()["baseline"] == pytest.approx(baseline)


def test_an_explanation_leaves_no_trace(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with serving(Worded(tiny_bundle), store=str(tmp_path / "store.sqlite")) as client:
        client.post("/v1/predict", json=FULL)
        wait_until(lambda: samples(client)["evenkeel_store_rows", frozenset()] == 1)
        before, drift = samples(client), client.get("/v1/drift").json()
        for method in ("unknown", "shapley"):
            answer = client.post(f"/v1/explain?method={method}", json={**FULL, "age": 119})
            assert answer.status_code == 200
            assert "id" not in answer.json()
        after = samples(client)
        changed = {name for (name, labels), value in after.items() if str(before.get((name, labels))) != str(value)}
        told = ("evenkeel_http_", "evenkeel_batch_rows_", "evenkeel_queue_", "evenkeel_inference_seconds_")
        assert [name for name in sorted(changed) if not name.startswith((*told, "process_", "python_"))] == []
        assert [one["seen"] for one in drift["streams"]] == [1, 1, 0]
        for one, other in zip(drift["streams"], client.get("/v1/drift").json()["streams"], strict=True):
            assert [other[name] for name in ("seen", "log_evidence")] == [
                one[name] for name in ("seen", "log_evidence")
            ]


@pytest.mark.parametrize(
    ("query", "told"),
    [
        ("method=lime", 'method is "lime"; it must be unknown or shapley'),
        ("method=", 'method is ""; it must be unknown or shapley'),
        ("method=Shapley", "it must be unknown or shapley"),
        ("methud=shapley", '"methud" is not a query parameter of this route; did you mean "method"?'),
        ("x=1", '"x" is not a query parameter of this route; the only one is method'),
        ("method=shapley&method=unknown", "method is given 2 times"),
        ("method=%ff%00%22", "it must be unknown or shapley"),
        ("method=" + "x" * 5000, "it must be unknown or shapley"),
    ],
)
def test_queries_that_are_refused(client: ApplicationClient, query: str, told: str) -> None:
    detail = problem(client.post(f"/v1/explain?{query}", json=FULL), 400)["detail"]
    assert told in detail
    assert len(detail) < 200


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 422),
        (b'{"pclass": 4, "sex": "male"}', "application/json", 422),
        (b'{"pclass": 3, "sex": "male", "agee": 3}', "application/json", 422),
        (json.dumps(FULL).encode(), "text/plain", 415),
        (b"x" * ((1 << 20) + 1), "application/json", 413),
    ],
)
def test_bodies_are_refused_as_for_a_prediction(
    client: ApplicationClient, body: bytes, content_type: str, status: int
) -> None:
    headers = {"Content-Type": content_type}
    refused = problem(client.post("/v1/explain", content=body, headers=headers), status)
    assert refused == post(client, body, content_type).json()


def test_message_pack_both_ways(client: ApplicationClient) -> None:
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    response = client.post("/v1/explain", content=msgspec.msgpack.encode(FULL), headers=headers)
    assert msgspec.msgpack.decode(response.content) == client.post("/v1/explain", json=FULL).json()


def test_it_takes_its_place_in_the_queue_and_is_refused_when_there_is_none(tiny_bundle: Bundle) -> None:
    predictor = Worded(tiny_bundle)
    with (
        serving(predictor, store="none", max_queue_rows=1024, timeout_seconds=60) as client,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        predictor.hold.clear()
        first = pool.submit(client.post, "/v1/predict", json=FULL)
        assert predictor.entered.wait(5)
        batch = pool.submit(client.post, "/v1/predict/batch", json={"rows": [FULL] * 1020})
        wait_until(lambda: samples(client)["evenkeel_queue_rows", frozenset()] == 1020)
        response = client.post("/v1/explain", json=FULL)
        problem(response, 429)
        assert int(response.headers["Retry-After"]) >= 1
        predictor.hold.set()
        assert [one.result().status_code for one in (first, batch)] == [200, 200]
        assert client.post("/v1/explain", json=FULL).status_code == 200


def test_who_asks_meanwhile_does_not_wait_for_all(tiny_bundle: Bundle) -> None:
    predictor = Worded(tiny_bundle)
    with serving(predictor, store="none", max_batch_rows=4) as client, concurrent.futures.ThreadPoolExecutor() as pool:
        predictor.hold.clear()
        slow = pool.submit(client.post, "/v1/explain?method=shapley", json=FULL)
        assert predictor.entered.wait(5)
        waiting = samples(client)["evenkeel_queue_rows", frozenset()]
        quick = pool.submit(client.post, "/v1/predict", json={"pclass": 2, "sex": "male", "fare": 998})
        wait_until(lambda: samples(client)["evenkeel_queue_rows", frozenset()] == waiting + 1)
        predictor.hold.set()
        assert quick.result().status_code == slow.result().status_code == 200
    assert len(predictor.asked) > 20
    assert any(one.fare == 998 for batch in predictor.asked[:4] for one in batch)


def test_an_explanation_is_of_one_bundle(tiny_bundle: Bundle) -> None:
    party = [Passenger(pclass=1, sex="female", name="Allison, Mrs. Bess", ticket="113781")]
    other = msgspec.structs.replace(tiny_bundle, version="f" * 12, known=Companions.of(party, [1]))
    predictor = Worded(tiny_bundle)
    with serving(predictor, store="none") as client, concurrent.futures.ThreadPoolExecutor() as pool:
        predictor.hold.clear()
        asked = pool.submit(client.post, "/v1/explain?method=shapley", json=FULL)
        assert predictor.entered.wait(5)
        client.blocking_portal.call(client.application.services.batcher.replace, lambda: Worded(other))
        predictor.hold.set()
        answer = asked.result().json()
        assert answer["model"]["version"] == "f" * 12
        assert answer["text"].startswith("women and children survived, ")
        assert answer == client.post("/v1/explain?method=shapley", json=FULL).json()


def test_the_deadline_is_of_the_whole(tiny_bundle: Bundle) -> None:
    predictor = Worded(tiny_bundle)
    with serving(predictor, store="none", timeout_seconds=0.2) as client:
        predictor.hold.clear()
        assert "0.2 seconds" in problem(client.post("/v1/explain", json=FULL), 504)["detail"]


def test_a_failure_or_a_model_that_is_not_there_is_503(client: ApplicationClient) -> None:
    response = client.post("/v1/explain", json={**FULL, "fare": 999})
    problem(response, 503)
    assert response.headers["Retry-After"]

    def load(_: object) -> Echo:
        raise ValueError("no bundle")

    with ApplicationClient(make_app(Settings(store="none"), load)) as broken:
        wait_until(lambda: broken.get("/health/ready").json()["detail"] == "no bundle")
        problem(broken.post("/v1/explain", json=FULL), 503)


def test_words_of_a_text_are_told_in_their_order(tmp_path: Path) -> None:
    contents = make_contents(reviews.table(80), tmp_path, reviews.tokenizer().to_json().encode())
    bundle = write_bundle(tmp_path / "bundle", contents, ORIGIN)
    row = {"stars": 4, "review": "we loved the soup"}
    with serving(Worded(bundle), store="none") as client:
        body = client.post("/v1/explain?method=words", json=row).json()
        assert [(one["field"], one["value"]) for one in body["fields"]] == [
            ("review", word) for word in ("we", "loved", "the", "soup")
        ]
        assert [one["contribution"] for one in body["fields"]] == pytest.approx(
            [
                log_odds(client, row) - log_odds(client, row | {"review": rest})
                for rest in ("loved the soup", "we the soup", "we loved soup", "we loved the")
            ]
        )
        assert body["prediction"]["log_odds"] == pytest.approx(log_odds(client, row))
        assert body["baseline"]["log_odds"] == pytest.approx(log_odds(client, {"stars": 4}))
        assert body["baseline"]["description"].startswith("all words of the texts left out")
        assert (body["method"], body["text"]) == ("words", "4 stars, we loved the soup")


def test_the_document_names_the_methods(client: ApplicationClient) -> None:
    parameters = client.get("/schema/openapi.json").json()["paths"]["/v1/explain"]["post"]["parameters"]
    (parameter,) = [one for one in parameters if one["in"] == "query"]
    assert (parameter["name"], parameter["required"]) == ("method", False)
    assert parameter["schema"]["enum"] == ["unknown", "shapley", "words"]
