"""A service whose model is right about men and no longer about women says so; over a restart too."""

from pathlib import Path
from typing import Any

import numpy as np
from litestar.testing import TestClient

from models.bundle.read import Bundle
from tests.service.routes.test_online import send, serving
from tests.service.test_app import ALLISON


def predict(client: TestClient[Any], sexes: list[str], ages: list[float]) -> list[dict[str, Any]]:
    rows = [{**ALLISON, "sex": sex, "age": age} for sex, age in zip(sexes, ages, strict=True)]
    found: list[dict[str, Any]] = client.post("/v1/predict/batch", json={"rows": rows}).json()["predictions"]
    return found


def test_broken_for_women_alone(tiny_bundle: Bundle, tmp_path: Path) -> None:
    rng, store = np.random.default_rng(0), str(tmp_path / "predictions.sqlite")
    with serving(tiny_bundle, store, tmp_path, online=False) as client:
        assert client.get("/v1/drift").json()["by_group"]["broken"] is None
        sexes = rng.choice(["female", "male"], 900).tolist()
        predictions = predict(client, sexes, rng.uniform(1, 60, 900).round(1).tolist())
        rates = [
            one["probability"] * (0.3 if sex == "female" else 1) for one, sex in zip(predictions, sexes, strict=True)
        ]
        send(client, predictions, (rng.random(900) < np.array(rates)).tolist())
        report = client.get("/v1/drift").json()
        found = report["by_group"]
        assert (found["broken"], found["group"], found["outcomes"]) == ("group", "sex = female", 900)
        women = next(one for one in found["groups"] if (one["field"], one["bin"]) == ("sex", "female"))
        assert (women["outcomes"], women["broken"]) == (sexes.count("female"), True)
        of_women = [one["probability"] for one, sex in zip(predictions, sexes, strict=True) if sex == "female"]
        assert abs(women["expected"] - sum(of_women)) < 1e-9
        cause = next(one for one in report["causes"] if one["cause"] == "calibration")
        assert "by group: broken for sex = female" in cause["evidence"]
    with serving(tiny_bundle, store, tmp_path, online=False) as client:
        assert client.get("/v1/drift").json()["by_group"] == found
        client.post("/v1/drift/acknowledge", json={"stream": "calibration"})
        assert client.get("/v1/drift").json()["by_group"]["broken"] is None
