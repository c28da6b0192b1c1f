"""A table that is nothing like the Titanic, over HTTP and with its own model: the wire follows its schema."""

import json
import math
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import numpy as np
import pytest
from schemathesis.specs.openapi import definitions

from models.bundle.read import Bundle
from models.predictor import Predictor
from service.routes.openapi.document import document
from service.routes.table import Table
from service.settings import Settings
from tests import churn
from tests.service.serving import Served, make_app, serving

with warnings.catch_warnings():
    # The client brings gevent, whose compiled modules warn on import.
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype

ANNA = {
    "city": "city 07", "plan": 5, "senior": True, "tenure": 12, "bill": 99.5, "probability": 0.25, "note": "said no",
}  # fmt: skip
LINES = "application/x-ndjson"


@pytest.fixture(scope="module")
def served(churn_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(store=str(tmp_path_factory.mktemp("store") / "s.sqlite"), state="")
    with serving(make_app(settings, lambda _: Predictor.load(churn_bundle.folder))) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [msgspec.to_builtins(row) for row in churn.customers(60, seed=3)]


@pytest.fixture(scope="module")
def expected(churn_bundle: Bundle, rows: list[dict[str, Any]]) -> list[Any]:
    """What the predictor says of the rows, without a service."""
    return Predictor.load(churn_bundle.folder).predict(rows)


def check_answer(answer: dict[str, Any], expected: Any) -> None:
    p = expected.probability
    assert answer["probability"] == pytest.approx(p, abs=1e-9)
    assert list(answer["probabilities"]) == ["stays", "leaves"]
    assert answer["probabilities"]["leaves"] == answer["probability"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert answer["outcome"] == expected.outcome == ("leaves" if p >= 0.5 else "stays")
    assert answer["confidence"]["prediction_set"] == list(expected.confidence.prediction_set)
    assert set(answer["confidence"]["prediction_set"]) <= {"stays", "leaves"}


def test_rows_alone_in_a_batch_and_in_a_stream_get_the_models_answers(
    client: httpx.Client, rows: list[dict[str, Any]], expected: list[Any]
) -> None:
    alone = [client.post("/v1/predict", json=row).json() for row in rows[:5]]
    batch = client.post("/v1/predict/batch", json={"rows": rows}).json()["predictions"]
    body = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    stream = client.post("/v1/predict/stream", content=body, headers={"Content-Type": LINES}).text.splitlines()
    for answers in (alone, batch, list(map(json.loads, stream))):
        for answer, prediction in zip(answers, expected, strict=len(answers) == len(rows)):
            check_answer(answer, prediction)


def test_what_is_unknown_is_null_or_absent(client: httpx.Client) -> None:
    absent = client.post("/v1/predict", json={"city": "city 00"}).json()
    null = client.post("/v1/predict", json=dict.fromkeys(churn.SCHEMA.by_name) | {"city": "city 00"}).json()
    assert {**absent, "id": ""} == {**null, "id": ""}


@pytest.mark.parametrize(
    ("change", "pointer", "value", "message"),
    [
        ({"city": "City 7"}, "/city", '"City 7"', f"one of {json.dumps(churn.CITIES[:20])[1:-1]} and 40 more"),
        ({"city": None}, "/city", "null", f"one of {json.dumps(churn.CITIES[:20])[1:-1]} and 40 more"),
        ({"plan": "5"}, "/plan", '"5"', "one of 2, 5, 10, or null"),
        ({"senior": "y"}, "/senior", '"y"', "true or false, or null"),
        ({"senior": 1}, "/senior", "1", "true or false, or null"),
        ({"tenure": -1}, "/tenure", "-1", "a whole number of at least 0, or null"),
        ({"tenure": 12.0}, "/tenure", "12.0", "a whole number of at least 0, or null, written without a decimal point"),
        ({"tenure": 10**30}, "/tenure", "1" + "0" * 30, "a whole number of at least 0, or null"),
        ({"bill": 500.5}, "/bill", "500.5", "a number from 0 to 500, or null"),
        ({"note": "x" * 201}, "/note", '"' + "x" * 58 + "…", "a text of at most 200 characters, or null"),
    ],
)
def test_faults_name_what_the_field_accepts(
    client: httpx.Client, change: dict[str, Any], pointer: str, value: str, message: str
) -> None:
    response = client.post("/v1/predict", json={**ANNA, **change})
    assert response.status_code == 422
    assert response.json()["errors"] == [{"pointer": pointer, "value": value, "message": f"must be {message}"}]


def test_a_field_of_the_other_table_is_unknown(client: httpx.Client) -> None:
    (fault,) = client.post("/v1/predict", json={**ANNA, "fare": 3}).json()["errors"]
    assert fault["pointer"] == "/fare"
    assert fault["message"] == f"is not a field; the fields are {', '.join(churn.SCHEMA.by_name)}"


@pytest.mark.parametrize("method", ["unknown", "shapley"])
def test_an_explanation_is_of_the_tables_fields(client: httpx.Client, method: str) -> None:
    body = client.post(f"/v1/explain?method={method}", json=ANNA).json()
    predicted = client.post("/v1/predict", json=ANNA).json()
    assert (body["positive"], body["prediction"]["outcome"]) == ("leaves", predicted["outcome"])
    assert {each["field"]: each["value"] for each in body["fields"]} == ANNA
    if method == "shapley":
        total = math.fsum(each["contribution"] for each in body["fields"])
        assert total == pytest.approx(body["prediction"]["log_odds"] - body["baseline"]["log_odds"], abs=1e-6)


def test_the_model_says_what_a_row_is(client: httpx.Client, churn_bundle: Bundle) -> None:
    described = client.get("/v1/model").json()["schema"]
    assert described == json.loads((churn_bundle.folder / "schema.json").read_text())
    packed = client.get("/v1/model", headers={"Accept": "application/msgpack"}).content
    assert msgspec.msgpack.decode(packed)["schema"] == described


def test_outcomes_name_a_class(client: httpx.Client) -> None:
    id = client.post("/v1/predict", json=ANNA).json()["id"]
    (fault,) = client.post("/v1/outcomes", json={"outcomes": [{"id": id, "outcome": "survived"}]}).json()["errors"]
    assert fault == {
        "pointer": "/outcomes/0/outcome",
        "value": '"survived"',
        "message": 'must be one of "stays", "leaves"',
    }
    for outcome, status in (("leaves", "counted"), ("leaves", "repeated")):
        response = client.post("/v1/outcomes", json={"outcomes": [{"id": id, "outcome": outcome}]})
        assert response.json()[status] == 1, response.text
    assert client.post("/v1/outcomes", json={"outcomes": [{"id": id, "outcome": "stays"}]}).json()["conflicting"] == [
        id
    ]
    counted = [line for line in client.get("/metrics").text.splitlines() if line.startswith("evenkeel_outcomes_total")]
    assert sum(float(line.split()[-1]) for line in counted if 'outcome="leaves"' in line) == 1
    assert sum(float(line.split()[-1]) for line in counted if 'outcome="stays"' in line) == 0


def tensor(name: str, array: np.ndarray) -> Any:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return made.set_data_from_numpy(array, binary_data=True)


def gaps(values: list[Any]) -> np.ndarray:
    """As pandas has a column of numbers with gaps."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def test_tensors_are_the_tables_columns(served: Served, client: httpx.Client, rows: list[dict[str, Any]]) -> None:
    columns = {name: [row[name] for row in rows] for name in churn.SCHEMA.by_name}
    inputs = [tensor(name, gaps(columns[name])) for name in ("plan", "senior", "tenure", "bill", "probability")]
    texts = [tensor(name, np.array([value or "" for value in columns[name]], object)) for name in ("city", "note")]
    answers = client.post("/v1/predict/batch", json={"rows": rows}).json()["predictions"]
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as oip:
        described = oip.get_model_metadata("tiny")
        assert {each["name"]: each["datatype"] for each in described["inputs"]} == {
            "city": "BYTES", "plan": "INT64", "senior": "BOOL", "tenure": "INT64", "bill": "FP64",
            "probability": "FP64", "note": "BYTES", "row": "BYTES",
        }  # fmt: skip
        assert {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]} in described["outputs"]
        for sent in ([*inputs, *texts], [tensor("row", np.array(list(map(json.dumps, rows)), object))]):
            result = oip.infer("tiny", sent)
            assert result.as_numpy("probability").tolist() == [each["probability"] for each in answers]
            assert [each.decode() for each in result.as_numpy("outcome")] == [each["outcome"] for each in answers]
            assert result.as_numpy("probabilities").tolist() == [[*each["probabilities"].values()] for each in answers]


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("senior", np.array([True]), ""),
        ("senior", np.array([1], np.int8), ""),
        ("senior", np.array([2], np.int8), "input senior, row 0 is 2: must be true or false, or null"),
        ("plan", np.array([5.0]), ""),
        ("plan", np.array([5.5]), "input plan, row 0 is 5.5: must be one of 2, 5, 10, or null"),
        ("plan", np.array([-1]), ""),
        ("tenure", np.array([np.inf]), "input tenure, row 0 is inf: must be a whole number of at least 0, or null"),
        ("bill", np.array([7], np.uint8), ""),
        ("city", np.array(["x"], object), 'input city, row 0 is "x": must be one of "city 00"'),
        ("city", np.array([1]), 'input "city": datatype is "INT64"; it must be BYTES'),
        (
            "pclass",
            np.array([1]),
            f'input "pclass": is not one; the inputs are {", ".join(churn.SCHEMA.by_name)}, or row',
        ),
    ],
)
def test_a_tensors_values_are_its_fields(served: Served, name: str, array: np.ndarray, message: str) -> None:
    city = [] if name == "city" else [tensor("city", np.array(["city 01"], object))]
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as oip:
        if not message:
            oip.infer("tiny", [*city, tensor(name, array)])
            return
        with pytest.raises(InferenceServerException) as caught:
            oip.infer("tiny", [*city, tensor(name, array)])
    assert message in caught.value.message()


def test_the_document_is_of_this_table(client: httpx.Client) -> None:
    described = client.get("/schema/openapi.json").json()
    assert [each.message for each in definitions.OPENAPI_31_VALIDATOR.iter_errors(described)] == []
    schemas = described["components"]["schemas"]
    assert list(schemas["Customer"]["properties"]) == list(churn.SCHEMA.by_name)
    assert schemas["Customer"]["required"] == ["city"]
    assert set(schemas["Outcome"]["properties"]["outcome"]["enum"]) == {"stays", "leaves"}
    assert schemas["PredictionResponse"]["properties"]["outcome"]["enum"] == ["stays", "leaves"]
    assert "A row is a customer. The classes are `stays`, `leaves`." in described["info"]["description"]
    text = json.dumps(described).casefold()
    assert not [word for word in ("passenger", "titanic", "surviv", "pclass", "died") if word in text]
    for path in ("/v1/predict", "/v1/predict/batch", "/v1/explain", "/v1/outcomes"):
        operation = described["paths"][path]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        response = client.post(path, json=content["example"])
        assert response.status_code == 200, response.text
        promised = operation["responses"]["200"]["content"]["application/json"]["schema"]
        validator = jsonschema_rs.Draft202012Validator({**promised, "components": described["components"]})
        assert [each.message for each in validator.iter_errors(response.json())] == []


@pytest.mark.parametrize("row", ["confidence", "problem", "schema", "prediction_response", "batch_request", "row"])
def test_a_row_may_be_called_as_a_part_of_the_document(client: httpx.Client, served: Served, row: str) -> None:
    routes = served.app.litestar.routes
    predictor = served.app.services.batcher.predictor
    assert predictor is not None
    schema = msgspec.structs.replace(predictor.bundle.schema, row=row)
    described = document(routes, Table(type(predictor.rows)(schema)))
    assert [each.message for each in definitions.OPENAPI_31_VALIDATOR.iter_errors(described)] == []
    operation = described["paths"]["/v1/predict"]["post"]
    schemas = operation["requestBody"]["content"]["application/json"], operation["responses"]["200"]["content"]
    answer = client.post("/v1/predict", json=ANNA).json()
    for schema, value in ((schemas[0]["schema"], ANNA), (schemas[1]["application/json"]["schema"], answer)):
        validator = jsonschema_rs.Draft202012Validator({**schema, "components": described["components"]})
        assert validator.is_valid(value)
        assert not validator.is_valid({**value, "outcome": "survived"})
