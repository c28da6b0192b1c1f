"""Online recalibration in a running service: outcomes change what is served, durably, and one call undoes it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from litestar.testing import TestClient
from prometheus_client import CollectorRegistry

from models.bundle.read import Bundle
from models.calibration.online import OnlinePlatt
from service.http.keys import SCOPES, new_key, write_keys
from service.settings import Settings, SettingsError, read_settings
from tests.service.serving import make_app
from tests.service.store.test_store import wait_until, where
from tests.service.test_app import ALLISON, Deterministic

__all__ = ["where"]
KEY, ENTRY = new_key("tests", SCOPES)
ROWS = 600


@contextmanager
def serving(bundle: Bundle, store: str, folder: Path, online: bool = True, **more: Any) -> Iterator[TestClient[Any]]:
    write_keys(folder / "keys.json", [ENTRY])
    settings = Settings(
        timeout_seconds=10, store=store, state=str(folder / "state"), keys=str(folder / "keys.json"),
        recalibrate_online=online, **more,
    )  # fmt: skip
    app = make_app(settings, lambda _: Deterministic(bundle), registry=CollectorRegistry())
    with TestClient(app, raise_server_exceptions=False) as client:
        client.headers["X-API-Key"] = KEY
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


def predict(client: TestClient[Any], count: int, seed: int = 0) -> list[dict[str, Any]]:
    ages = np.random.default_rng(seed).uniform(1, 60, count).round(1)
    found: list[dict[str, Any]] = client.post(
        "/v1/predict/batch", json={"rows": [{**ALLISON, "age": age} for age in ages.tolist()]}
    ).json()["predictions"]
    return found


def steps(prediction: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = prediction["confidence"]["calibration"]
    return found


def send(client: TestClient[Any], predictions: list[dict[str, Any]], labels: list[bool]) -> None:
    outcomes = [
        {"id": one["id"], "outcome": "survived" if label else "died"}
        for one, label in zip(predictions, labels, strict=True)
    ]
    assert client.post("/v1/outcomes", json={"outcomes": outcomes}).json()["counted"] == len(outcomes)


def test_outcomes_change_what_is_served_durably_until_it_is_undone(
    tiny_bundle: Bundle, where: str, tmp_path: Path
) -> None:
    expected, rng = OnlinePlatt(), np.random.default_rng(3)
    with serving(tiny_bundle, where, tmp_path) as client:
        for round in range(2):
            predictions = predict(client, ROWS, round)
            own = [steps(one)[-2]["probability"] for one in predictions]
            for one, p in zip(predictions, own, strict=True):
                last = steps(one)[-1]
                assert (last["step"], last["outcomes"]) == ("online", round * ROWS)
                assert one["probability"] == last["probability"] == pytest.approx(expected.step.probability(p))
            labels = [bool(one) for one in rng.random(ROWS) < np.array(own) * 0.3]
            send(client, predictions, labels)
            for p, label in zip(own, labels, strict=True):
                expected.observe(p, label)
        report = client.get("/v1/drift").json()
        assert report["online"]["outcomes"] == 2 * ROWS
        assert report["online"]["offset"] == pytest.approx(expected.offset, abs=1e-9)
        assert report["online"]["offset"] < -0.5
        assert report["online"]["log_loss"] < report["online"]["bundle_log_loss"]
        assert f"learnt from {2 * ROWS} outcomes since {report['online']['since']}" in report["online"]["summary"]
        thresholds = report["online"]["thresholds"]
        assert sum(one["outcomes"] for one in thresholds.values()) == 2 * ROWS
        for one in thresholds.values():
            assert abs(one["missed"] - one["allowed"]) <= one["bound"]
        # The bundle is miscalibrated, whatever is served.
        assert next(one for one in report["streams"] if one["stream"] == "calibration")["alarm"]
        assert sum(one["outcomes"] for one in report["reliability"]) == 2 * ROWS
        text = client.get("/metrics").text
        assert f'evenkeel_online_outcomes{{version="{tiny_bundle.version}"}} {2 * ROWS:.1f}' in text
        assert f'evenkeel_online_offset{{version="{tiny_bundle.version}"}} {report["online"]["offset"]!r}' in text

    with serving(tiny_bundle, where, tmp_path, online=False) as client:
        one = predict(client, 1)[0]
        assert all(step["step"] != "online" for step in steps(one))
        assert "online" not in client.get("/v1/drift").json()
        refused = client.post("/admin/online/undo")
        assert (refused.status_code, refused.json()["detail"]) == (
            404, "the service serves the bundle's own probabilities: it was started without recalibrate_online",
        )  # fmt: skip

    with serving(tiny_bundle, where, tmp_path) as client:
        last = steps(predict(client, 1)[0])[-1]
        assert (last["outcomes"], last["slope"]) == (2 * ROWS, pytest.approx(expected.slope, abs=1e-9))
        undone = client.post("/admin/online/undo")
        assert undone.status_code == 200
        assert undone.json() == {
            "version": tiny_bundle.version, "offset": last["offset"], "slope": last["slope"], "outcomes": 2 * ROWS,
        }  # fmt: skip
        assert (tmp_path / "state" / f"drift-{tiny_bundle.version}.json").read_text().count('"outcomes":0') == 1
        served = predict(client, 1)[0]
        assert served["probability"] == pytest.approx(steps(served)[-2]["probability"], abs=1e-15)

    with serving(tiny_bundle, where, tmp_path) as client:
        assert steps(predict(client, 1)[0])[-1]["outcomes"] == 0


def test_another_target_prevalence_begins_anew(tiny_bundle: Bundle, where: str, tmp_path: Path) -> None:
    with serving(tiny_bundle, where, tmp_path) as client:
        predictions = predict(client, 50)
        send(client, predictions, [True] * 50)
    with serving(tiny_bundle.shifted(0.2), where, tmp_path) as client:
        assert steps(predict(client, 1)[0])[-1]["outcomes"] == 0


def test_more_than_two_classes_are_refused_in_a_sentence(penguins_bundle: Bundle) -> None:
    failures: list[str] = []
    settings = Settings(store="none", recalibrate_online=True)
    app = make_app(settings, lambda _: Deterministic(penguins_bundle), registry=CollectorRegistry())
    with TestClient(app):
        wait_until(lambda: app.services.batcher.failure is not None)
        failures.append(str(app.services.batcher.failure))
    assert failures == [
        "recalibrate_online keeps the probabilities of two classes up to date, and tiny has 3: serve it without"
    ]


def test_it_needs_outcomes() -> None:
    with pytest.raises(SettingsError, match="a service whose store is none takes none"):
        read_settings({}, ["--recalibrate-online", "--store", "none"])
    assert read_settings({}, ["--recalibrate-online"]).recalibrate_online
