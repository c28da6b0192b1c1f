"""What clients of a table of two classes get is what they got before there could be more: names, order and types.

``two_classes.json`` was written by the version before, and has what was added since; numbers and texts in it stand for
any others.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from models.bundle.read import Bundle
from models.predictor import Predictor
from service.scoring.columns import ADDED, added_columns
from service.settings import Settings
from service.store.export import LOGGED, logged_columns
from tests import churn
from tests.service.routes.test_second_table import ANNA
from tests.service.serving import make_app, serving

FROZEN = Path(__file__).with_name("two_classes.json")
COMPONENTS = ("PredictionResponse", "Confidence", "CalibrationStep", "DriftReport", "LabelFreeEstimates", "OutcomeBin")
OWN = ("predictions", "expected", "reference", "prediction_sets", "abstentions", "outcome", "drift")
"""Beginnings of the names of the series of predictions."""


def shape(value: Any) -> Any:
    """Names in their order, and the type of everything else; of a list each different form once."""
    if isinstance(value, dict):
        # How many these hold is the row's and the model's.
        return {name: "list" if name in ("warnings", "prediction_set") else shape(each) for name, each in value.items()}
    if isinstance(value, list):
        forms = [shape(each) for each in value]
        return [form for at, form in enumerate(forms) if form not in forms[:at]]
    if isinstance(value, bool):
        return "boolean"
    if value is None:
        return "null"
    return "number" if isinstance(value, int | float) else "text"


def series(text: str) -> list[str]:
    """Names and labels of the series of predictions, but for the values of numbers."""
    found = [line.rpartition(" ")[0] for line in text.splitlines() if not line.startswith("#")]
    own = [one for one in found if one.removeprefix("evenkeel_").startswith(OWN)]
    return sorted(re.sub(r'version="[0-9a-f]+"', 'version="v"', one) for one in own if "_created" not in one)


def promised(described: Any, name: str) -> Any:
    component = described["components"]["schemas"][name]
    return [list(component["properties"]), component["required"]]


def answers(client: httpx.Client, name: str) -> Iterator[tuple[str, Any]]:
    """What each route answers, in its form."""
    one = client.post("/v1/predict", json=ANNA)
    yield "predict", shape(one.json())
    packed = client.post("/v1/predict", json=ANNA, headers={"Accept": "application/msgpack"}).content
    yield "predict in MessagePack", shape(msgspec.msgpack.decode(packed))
    rows = [msgspec.to_builtins(row) for row in churn.customers(150, seed=3)]
    yield "batch", shape(client.post("/v1/predict/batch", json={"rows": rows}).json())
    for method in ("unknown", "shapley"):
        yield method, shape(client.post(f"/v1/explain?method={method}", json=ANNA).json())
    sent = {"outcomes": [{"id": one.json()["id"], "outcome": "leaves"}]}
    yield "outcomes", shape(client.post("/v1/outcomes", json=sent).json())
    report = shape(client.get("/v1/drift").json())
    # How much was seen differs from run to run.
    report["streams"] = [list(each) for each in report["streams"]][:1]
    yield "drift", report
    infer = {"inputs": [{"name": "row", "shape": [1], "datatype": "BYTES", "data": [json.dumps(ANNA)]}]}
    outputs = client.post(f"/v2/models/{name}/infer", json=infer).json()["outputs"]
    yield "tensors", [[each["name"], each["datatype"], each["shape"]] for each in outputs]
    yield "metadata", client.get(f"/v2/models/{name}").json()["outputs"]
    described = client.get("/schema/openapi.json").json()
    yield "components", {each: promised(described, each) for each in COMPONENTS}
    explain = described["paths"]["/v1/explain"]["post"]
    yield "parameters", [each["name"] for each in explain["parameters"] if each["in"] == "query"]
    yield "series", series(client.get("/metrics").text)


def test_answers_are_what_they_were(churn_bundle: Bundle, tmp_path: Path) -> None:
    app = make_app(Settings(store=str(tmp_path / "s.sqlite"), state=""), lambda _: Predictor.load(churn_bundle.folder))
    with serving(app) as served, httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=60) as client:
        found = dict(answers(client, churn_bundle.name))
    frozen = json.loads(FROZEN.read_text())
    assert list(found) == list(frozen)
    for route, form in frozen.items():
        # As texts, so that the order of names counts.
        assert json.dumps(found[route]) == json.dumps(form), route


def test_columns_of_files_are_what_they_were() -> None:
    assert added_columns(churn.SCHEMA.classes) == ADDED == (
        "outcome", "probability", "interval_low", "interval_high", "prediction_set", "typicality", "warnings",
    )  # fmt: skip
    assert logged_columns(churn.SCHEMA) == LOGGED == (
        "id", "time", "version", "probability", "uncalibrated_probability", "row_sha256",
    )  # fmt: skip
