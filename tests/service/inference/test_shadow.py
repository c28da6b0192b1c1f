"""A shadow sees what is asked, answers nobody, is counted, and never disturbs."""

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest
from litestar.testing import TestClient

from models.bundle.read import Bundle
from models.prediction import EncodedText, Prediction
from models.rows import Row
from service.inference.shadow import WAITING_ROWS
from service.settings import Settings
from tests.service.inference.test_batcher import wait_until
from tests.service.predictions import prediction
from tests.service.serving import make_app
from tests.service.test_app import ALLISON, Deterministic, samples

PREFIX = "evenkeel_shadow_"


class Opposite(Deterministic):
    """1 − p of what is served; a fare of 13 fails."""

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        self.hold.wait(10)
        if any(one.fare == 13 for one in rows):
            raise ValueError("the shadow's own fault")
        served = super().predict_checked(rows, encoded)
        return [prediction(1 - one.probability, passenger) for one, passenger in zip(served, rows, strict=True)]


@pytest.fixture
def shadow(tiny_bundle: Bundle) -> Opposite:
    return Opposite(msgspec.structs.replace(tiny_bundle, version="shadow000000"))


@pytest.fixture
def client(tiny_bundle: Bundle, shadow: Opposite) -> Iterator[TestClient[Any]]:
    app = make_app(Settings(), lambda _: Deterministic(tiny_bundle), load_shadow=lambda: shadow)
    with TestClient(app) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        wait_until(lambda: app.services.shadow.version is not None)
        yield client
        shadow.hold.set()


def counted(client: TestClient[Any], name: str, **labels: str) -> float:
    return samples(client)[PREFIX + name, frozenset({("version", "shadow000000"), *labels.items()})]


def test_its_agreement_and_its_distribution_are_counted(client: TestClient[Any]) -> None:
    batch = {"rows": [{**ALLISON, "age": age} for age in range(1, 120, 7)]}
    served = [one["probability"] for one in client.post("/v1/predict/batch", json=batch).json()["predictions"]]
    assert {one["model"]["version"] for one in client.post("/v1/predict/batch", json=batch).json()["predictions"]} != {
        "shadow000000"
    }
    rows = 2 * len(served)
    wait_until(lambda: counted(client, "agreements_total", agrees="false") == rows)
    assert counted(client, "agreements_total", agrees="true") == 0
    assert counted(client, "absolute_difference_sum_total") == pytest.approx(2 * sum(abs(1 - 2 * p) for p in served))
    assert counted(client, "predictions_by_probability_total", bin="0.1-0.2") == 2 * sum(0.8 < p <= 0.9 for p in served)
    assert counted(client, "dropped_total") == 0


def test_its_faults_and_its_slowness_disturb_nobody(client: TestClient[Any], shadow: Opposite) -> None:
    assert client.post("/v1/predict", json={**ALLISON, "fare": 13}).status_code == 200
    wait_until(lambda: counted(client, "dropped_total") == 1)
    shadow.hold.clear()
    batch = {"rows": [ALLISON] * 1024}
    for _ in range(WAITING_ROWS // 1024 + 2):
        assert client.post("/v1/predict/batch", json=batch).status_code == 200
    assert counted(client, "dropped_total") in (1 + 1024, 1 + 2048)
    shadow.hold.set()
    wait_until(lambda: counted(client, "agreements_total", agrees="false") >= WAITING_ROWS)


def test_a_shadow_that_does_not_load_is_no_reason_not_to_serve(tiny_bundle: Bundle) -> None:
    tried = threading.Event()

    def load() -> Deterministic:
        tried.set()
        raise ValueError("no such folder")

    with TestClient(make_app(Settings(), lambda _: Deterministic(tiny_bundle), load_shadow=load)) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200 and tried.is_set())
        assert client.post("/v1/predict", json=ALLISON).status_code == 200


def test_a_shadow_of_another_table_is_refused(
    tiny_bundle: Bundle, churn_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    other = Opposite(churn_bundle)
    app = make_app(Settings(), lambda _: Deterministic(tiny_bundle), load_shadow=lambda: other)
    with TestClient(app) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        wait_until(lambda: app.services.shadow is not None and app.services.shadow.version is not None)
        assert client.post("/v1/predict", json=ALLISON).status_code == 200
        wait_until(lambda: app.services.shadow is not None and app.services.shadow.version is None)
        assert client.post("/v1/predict", json=ALLISON).status_code == 200
    (record,) = [each for each in caplog.records if "no bundle runs in the shadow" in each.message]
    assert 'row is "customer", not "passenger" as in the bundle that serves' in record.message
