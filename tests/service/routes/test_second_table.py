"""Tables that are nothing like the Titanic, over HTTP and with their own models: the wire follows their schemas.

One of two classes, and one of three; what is of the first one's fields alone is asked of it alone.
"""

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import httpx
import jsonschema_rs
import msgspec
import numpy as np
import pytest
from schemathesis.specs.openapi import definitions

from models.bundle.read import Bundle
from models.predictor import Predictor
from models.schema import Schema
from service.routes.openapi.document import document
from service.routes.table import Table
from service.settings import Settings
from tests import churn, penguins
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


class Case(NamedTuple):
    """A table: its rows as JSON has them, one of which all is known, and the datatypes of its tensors."""

    bundle: Bundle
    rows: list[dict[str, Any]]
    whole: dict[str, Any]
    datatypes: dict[str, str]

    @property
    def schema(self) -> Schema:
        return self.bundle.schema

    @property
    def classes(self) -> list[str]:
        return list(self.schema.classes)


def make_case(name: str, request: pytest.FixtureRequest) -> Case:
    if name == "churn":
        datatypes = {
            "city": "BYTES", "plan": "INT64", "senior": "BOOL", "tenure": "INT64", "bill": "FP64",
            "probability": "FP64", "note": "BYTES",
        }  # fmt: skip
        made: Sequence[Any] = churn.customers(60, seed=3)
        whole = ANNA
    else:
        datatypes = {"island": "BYTES", "bill": "FP64", "flipper": "INT64", "female": "BOOL"}
        made = penguins.table(60, seed=3).rows
        whole = {"island": "Dream", "bill": 49.5, "flipper": 197, "female": True}
    rows = [msgspec.to_builtins(row) for row in made]
    return Case(request.getfixturevalue(f"{name}_bundle"), rows, whole, datatypes)


@pytest.fixture(scope="module", params=["churn", "penguins"])
def case(request: pytest.FixtureRequest) -> Case:
    return make_case(request.param, request)


OF_CHURN = pytest.mark.parametrize("case", ["churn"], indirect=True)
OF_PENGUINS = pytest.mark.parametrize("case", ["penguins"], indirect=True)


@pytest.fixture(scope="module")
def served(case: Case, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings = Settings(store=str(tmp_path_factory.mktemp("store") / "s.sqlite"), state="")
    with serving(make_app(settings, lambda _: Predictor.load(case.bundle.folder))) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def expected(case: Case) -> list[Any]:
    """What the predictor says of the rows, without a service."""
    return Predictor.load(case.bundle.folder).predict(case.rows)


OF_TWO = ["interval", "uncalibrated_probability"]
OF_MORE = ["intervals", "uncalibrated_probabilities"]


def check_answer(answer: dict[str, Any], expected: Any, classes: list[str]) -> None:
    probabilities, confidence = answer["probabilities"], answer["confidence"]
    assert list(probabilities) == classes
    assert list(probabilities.values()) == pytest.approx(list(expected.probabilities), abs=1e-9)
    assert sum(probabilities.values()) == pytest.approx(1)
    assert (
        answer["outcome"]
        == expected.outcome
        == max(classes, key=lambda name: (probabilities[name], classes.index(name)))
    )
    assert confidence["prediction_set"] == list(expected.confidence.prediction_set)
    assert set(confidence["prediction_set"]) <= set(classes)
    second, first = sorted(probabilities.values())[-2:]
    assert confidence["margin"] == pytest.approx(first - second, abs=1e-9)
    there = ["id", "model", "outcome", "probabilities", "confidence"]
    if len(classes) == 2:
        assert list(answer) == [*there[:3], "probability", *there[3:]]
        assert answer["probability"] == probabilities[classes[1]]
        assert not set(OF_MORE) & set(confidence)
        assert [list(step) for step in confidence["calibration"]] == [["step", "probability"]] * len(
            confidence["calibration"]
        )
        return
    assert list(answer) == there
    assert not set(OF_TWO) & set(confidence)
    for name in OF_MORE:
        assert list(confidence[name]) == classes
    assert list(confidence["venn_abers"]) == classes
    for name, (low, high) in confidence["intervals"].items():
        assert 0 <= low <= probabilities[name] <= high <= 1
    for step in confidence["calibration"]:
        assert list(step) == ["step", "probabilities"]
        assert list(step["probabilities"]) == classes
        assert sum(step["probabilities"].values()) == pytest.approx(1)
    assert confidence["calibration"][0]["probabilities"] == confidence["uncalibrated_probabilities"]
    assert confidence["calibration"][-1]["probabilities"] == probabilities


def test_rows_alone_in_a_batch_and_in_a_stream_get_the_models_answers(
    client: httpx.Client, case: Case, expected: list[Any]
) -> None:
    rows = case.rows
    alone = [client.post("/v1/predict", json=row).json() for row in rows[:5]]
    batch = client.post("/v1/predict/batch", json={"rows": rows}).json()["predictions"]
    body = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    stream = client.post("/v1/predict/stream", content=body, headers={"Content-Type": LINES}).text.splitlines()
    for answers in (alone, batch, list(map(json.loads, stream))):
        for answer, prediction in zip(answers, expected, strict=len(answers) == len(rows)):
            check_answer(answer, prediction, case.classes)


def test_an_answer_in_messagepack_is_the_one_in_json(client: httpx.Client, case: Case) -> None:
    packed = client.post("/v1/predict", json=case.whole, headers={"Accept": "application/msgpack"}).content
    assert {**msgspec.msgpack.decode(packed), "id": ""} == {
        **client.post("/v1/predict", json=case.whole).json(),
        "id": "",
    }


@OF_CHURN
def test_what_is_unknown_is_null_or_absent(client: httpx.Client) -> None:
    absent = client.post("/v1/predict", json={"city": "city 00"}).json()
    null = client.post("/v1/predict", json=dict.fromkeys(churn.SCHEMA.by_name) | {"city": "city 00"}).json()
    assert {**absent, "id": ""} == {**null, "id": ""}


@OF_CHURN
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


def test_a_field_of_the_other_table_is_unknown(client: httpx.Client, case: Case) -> None:
    (fault,) = client.post("/v1/predict", json={**case.whole, "fare": 3}).json()["errors"]
    assert fault["pointer"] == "/fare"
    assert fault["message"] == f"is not a field; the fields are {', '.join(case.schema.by_name)}"


@pytest.mark.parametrize("method", ["unknown", "shapley"])
def test_an_explanation_is_of_the_tables_fields(client: httpx.Client, case: Case, method: str) -> None:
    body = client.post(f"/v1/explain?method={method}", json=case.whole).json()
    predicted = client.post("/v1/predict", json=case.whole).json()
    explained = case.classes[1] if len(case.classes) == 2 else predicted["outcome"]
    assert (body["positive"], body["prediction"]["outcome"]) == (explained, predicted["outcome"])
    assert body["prediction"]["probability"] == predicted["probabilities"][explained]
    assert {each["field"]: each["value"] for each in body["fields"]} == case.whole
    if method == "shapley":
        total = math.fsum(each["contribution"] for each in body["fields"])
        assert total == pytest.approx(body["prediction"]["log_odds"] - body["baseline"]["log_odds"], abs=1e-6)


@OF_PENGUINS
def test_any_class_of_three_can_be_explained(client: httpx.Client, case: Case) -> None:
    predicted = client.post("/v1/predict", json=case.whole).json()
    for name in case.classes:
        body = client.post(f"/v1/explain?outcome={name}", json=case.whole).json()
        p = predicted["probabilities"][name]
        assert (body["positive"], body["prediction"]["probability"]) == (name, p)
        assert body["prediction"]["log_odds"] == pytest.approx(math.log(p / (1 - p)), abs=1e-6)
        flipper = next(each["contribution"] for each in body["fields"] if each["field"] == "flipper")
        q = client.post("/v1/predict", json={**case.whole, "flipper": None}).json()["probabilities"][name]
        assert flipper == pytest.approx(math.log(p / (1 - p)) - math.log(q / (1 - q)), abs=1e-4)
    refused = client.post("/v1/explain?outcome=King", json=case.whole)
    assert refused.status_code == 400
    assert refused.json()["detail"] == 'outcome is "King"; it must be Gentoo or Adelie or Chinstrap'
    assert "there are method, outcome" in client.post("/v1/explain?kind=x", json=case.whole).json()["detail"]


@OF_CHURN
def test_of_two_classes_none_is_chosen_to_be_explained(client: httpx.Client, case: Case) -> None:
    refused = client.post("/v1/explain?outcome=stays", json=case.whole)
    assert refused.status_code == 400
    assert refused.json()["detail"] == '"outcome" is not a query parameter of this route; the only one is method'


def test_the_model_says_what_a_row_is(client: httpx.Client, case: Case) -> None:
    described = client.get("/v1/model").json()["schema"]
    assert described == json.loads((case.bundle.folder / "schema.json").read_text())
    packed = client.get("/v1/model", headers={"Accept": "application/msgpack"}).content
    assert msgspec.msgpack.decode(packed)["schema"] == described


def test_outcomes_name_a_class(client: httpx.Client, case: Case) -> None:
    first, *_, last = case.classes
    id = client.post("/v1/predict", json=case.whole).json()["id"]
    (fault,) = client.post("/v1/outcomes", json={"outcomes": [{"id": id, "outcome": "survived"}]}).json()["errors"]
    assert fault == {
        "pointer": "/outcomes/0/outcome",
        "value": '"survived"',
        "message": f"must be one of {json.dumps(case.classes)[1:-1]}",
    }
    for outcome, status in ((last, "counted"), (last, "repeated")):
        response = client.post("/v1/outcomes", json={"outcomes": [{"id": id, "outcome": outcome}]})
        assert response.json()[status] == 1, response.text
    again = client.post("/v1/outcomes", json={"outcomes": [{"id": id, "outcome": first}]})
    assert again.json()["conflicting"] == [id]
    counted = [line for line in client.get("/metrics").text.splitlines() if line.startswith("evenkeel_outcomes_total")]
    assert sum(float(line.split()[-1]) for line in counted if f'outcome="{last}"' in line) == 1
    assert sum(float(line.split()[-1]) for line in counted if f'outcome="{first}"' in line) == 0
    report = client.get("/v1/drift").json()
    if len(case.classes) == 2:
        assert sum(bin["outcomes"] for bin in report["reliability"]) == 1
    else:
        assert sum(sum(row.values()) for row in report["confusion"].values()) == 1
        assert [sum(bin["positive"] for bin in bins) for bins in report["reliabilities"].values()] == [0, 0, 1]


def tensor(name: str, array: np.ndarray) -> Any:
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    return made.set_data_from_numpy(array, binary_data=True)


def gaps(values: list[Any]) -> np.ndarray:
    """As pandas has a column of numbers with gaps."""
    return np.array([np.nan if value is None else value for value in values], np.float64)


def test_tensors_are_the_tables_columns(served: Served, client: httpx.Client, case: Case) -> None:
    rows, classes = case.rows, case.classes
    columns = {name: [row[name] for row in rows] for name in case.schema.by_name}
    inputs = [
        tensor(
            name, np.array([value or "" for value in columns[name]], object) if kind == "BYTES" else gaps(columns[name])
        )
        for name, kind in case.datatypes.items()
    ]
    answers = client.post("/v1/predict/batch", json={"rows": rows}).json()["predictions"]
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as oip:
        described = oip.get_model_metadata(case.bundle.name)
        datatypes = {each["name"]: each["datatype"] for each in described["inputs"]}
        assert datatypes == {**case.datatypes, "row": "BYTES"}
        outputs = {each["name"]: each["shape"] for each in described["outputs"]}
        assert outputs["probabilities"] == [-1, len(classes)]
        for sent in (inputs, [tensor("row", np.array(list(map(json.dumps, rows)), object))]):
            result = oip.infer(case.bundle.name, sent)
            for name, shape in outputs.items():
                assert list(result.as_numpy(name).shape) == [len(rows), *shape[1:]]
            assert [each.decode() for each in result.as_numpy("outcome")] == [each["outcome"] for each in answers]
            assert result.as_numpy("probabilities").tolist() == [[*each["probabilities"].values()] for each in answers]
            if len(classes) == 2:
                assert result.as_numpy("probability").tolist() == [each["probability"] for each in answers]
                continue
            assert not {"probability", *OF_TWO} & set(outputs)
            for name in OF_MORE:
                found = [list(each["confidence"][name].values()) for each in answers]
                assert result.as_numpy(name).tolist() == found


@OF_CHURN
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


def test_the_document_is_of_this_table(client: httpx.Client, case: Case) -> None:
    described = client.get("/schema/openapi.json").json()
    assert [each.message for each in definitions.OPENAPI_31_VALIDATOR.iter_errors(described)] == []
    schemas, row = described["components"]["schemas"], case.schema.row
    assert list(schemas[row.capitalize()]["properties"]) == list(case.schema.by_name)
    assert schemas[row.capitalize()]["required"] == [each.name for each in case.schema.fields if each.required]
    assert set(schemas["Outcome"]["properties"]["outcome"]["enum"]) == set(case.classes)
    assert schemas["PredictionResponse"]["properties"]["outcome"]["enum"] == case.classes
    names = ", ".join(f"`{name}`" for name in case.classes)
    assert f"A row is a {row}. The classes are {names}." in described["info"]["description"]
    text = json.dumps(described).casefold()
    assert not [word for word in ("passenger", "titanic", "surviv", "pclass", "died") if word in text]
    for path in ("/v1/predict", "/v1/predict/batch", "/v1/explain", "/v1/outcomes"):
        operation = described["paths"][path]["post"]
        content = operation["requestBody"]["content"]["application/json"]
        response = client.post(path, json=content["example"])
        assert response.status_code == 200, response.text
        check_promised(described, operation, response.json())
        for example in operation["responses"]["200"]["content"]["application/json"].get("examples", {}).values():
            check_promised(described, operation, example["value"])
    for _ in range(3):
        client.post("/v1/predict/batch", json={"rows": case.rows})
    check_promised(described, described["paths"]["/v1/drift"]["get"], client.get("/v1/drift").json())


def check_promised(described: dict[str, Any], operation: dict[str, Any], value: Any) -> None:
    """The answer is of the form that the document says, and of no property that it does not name."""
    promised = operation["responses"]["200"]["content"]["application/json"]["schema"]
    components = json.loads(json.dumps(described["components"]))
    for component in components["schemas"].values():
        if component.get("type") == "object" and "properties" in component:
            component.setdefault("additionalProperties", False)
    validator = jsonschema_rs.Draft202012Validator({**promised, "components": components})
    assert [each.message for each in validator.iter_errors(value)] == []


@OF_CHURN
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
