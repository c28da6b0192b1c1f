"""Answers have a decision where the costs of mistakes are given, in every form that an answer has."""

import csv
import json
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from models.bundle.read import Bundle
from models.predictor import Predictor
from service.scoring.csv import score_csv
from service.settings import Settings, SettingsError, read_settings
from tests import churn
from tests.service.routes.test_second_table import ANNA
from tests.service.scoring.test_csv import run
from tests.service.serving import make_app, serving

COSTS = "stays:leaves=1:100"


def test_every_route_says_the_decision(churn_bundle: Bundle) -> None:
    name = churn_bundle.name
    app = make_app(Settings(state=""), lambda _: Predictor.load(churn_bundle.folder, costs=COSTS))
    with serving(app) as served, httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60) as client:
        one = client.post("/v1/predict", json=ANNA).json()
        batch = client.post("/v1/predict/batch", json={"rows": [ANNA, ANNA]}).json()["predictions"]
        stream = client.post(
            "/v1/predict/stream", content=json.dumps(ANNA), headers={"Content-Type": "application/x-ndjson"}
        )
        infer = {"inputs": [{"name": "row", "shape": [1], "datatype": "BYTES", "data": [json.dumps(ANNA)]}]}
        outputs = client.post(f"/v2/models/{name}/infer", json=infer).json()["outputs"]
        metadata = client.get(f"/v2/models/{name}").json()["outputs"]
        document = client.get("/schema/openapi.json").json()
        described = client.get("/v1/model").json()["schema"]
    answers = [one, *batch, json.loads(stream.text)]
    assert [each["decision"] for each in answers] == ["leaves"] * 4
    assert list(one)[:4] == ["id", "model", "outcome", "decision"]
    assert outputs[-1] == {"name": "decision", "shape": [1], "datatype": "BYTES", "data": ["leaves"]}
    assert metadata[-1] == {"name": "decision", "datatype": "BYTES", "shape": [-1]}
    assert described["costs"] == {"stays": {"leaves": 1}, "leaves": {"stays": 100}}
    check(document, one)
    schema = document["components"]["schemas"]["PredictionResponse"]
    assert schema["properties"]["decision"]["enum"] == ["stays", "leaves"]
    assert "decision" in schema["required"]
    example = document["paths"]["/v1/predict"]["post"]["responses"]["200"]["content"]["application/json"]["examples"]
    assert example["prediction"]["value"]["decision"] == "leaves"


def check(document: dict[str, Any], answer: Any) -> None:
    form = {"$ref": "#/components/schemas/PredictionResponse", "components": document["components"]}
    jsonschema_rs.Draft202012Validator(form).validate(answer)


def test_files_have_a_column_for_it(churn_bundle: Bundle, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("city,Plan,bill\ncity 07,5,99.5\ncity 03,2,9\n")
    rejects = tmp_path / "rejected.csv"
    for costs, decision in ((COSTS, "leaves"), ("stays:leaves=100:1", "stays")):
        score_csv(source, out, rejects, Predictor.load(churn_bundle.folder, costs=costs))
        rows = list(csv.DictReader(out.read_text().splitlines()))
        assert [row["decision"] for row in rows] == [decision] * 2
        assert list(rows[0])[-1] == "decision"
    score_csv(source, out, rejects, Predictor.load(churn_bundle.folder))
    assert "decision" not in out.read_text()


def test_wrong_costs_are_refused_by_the_flag(churn_bundle: Bundle, tmp_path: Path) -> None:
    assert read_settings({}, ["--costs", COSTS]).costs == COSTS
    assert read_settings({"EVENKEEL_COSTS": COSTS}, []).costs == COSTS
    config = tmp_path / "settings.toml"
    config.write_text(f'costs = "{COSTS}"\n')
    assert read_settings({}, ["--config", str(config)]).costs == COSTS
    with pytest.raises(SettingsError, match=r"^costs \(--costs\) is '5:1': '5:1' is not of the form CLASS:OTHER="):
        read_settings({}, ["--costs", "5:1"])
    source = tmp_path / "in.csv"
    source.write_text("city\ncity 07\n")
    bundle = ["--bundle", str(churn_bundle.folder)]
    done = run(str(source), str(tmp_path / "out.csv"), *bundle, "--costs", "died:leaves=5:1")
    assert done.returncode == 1
    assert done.stderr == "score: --costs died:leaves=5:1: there is no class died; there are stays, leaves\n"
    assert not (tmp_path / "out.csv").exists()


def test_of_a_description_the_costs_are_the_bundles_own(churn_bundle: Bundle) -> None:
    """Costs that are given take their place."""
    own = churn_bundle.with_costs("stays:leaves=1:100")
    assert own.schema.costs == {"stays": {"leaves": 1}, "leaves": {"stays": 100}}
    assert own.with_costs("stays:leaves=2:3").schema.costs == {"stays": {"leaves": 2}, "leaves": {"stays": 3}}
    assert churn_bundle.schema.costs is None
    assert churn.SCHEMA.costs is None
