"""The Open Inference Protocol, as its own client speaks it, and as nobody should."""

import json
import math
import random
import warnings
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from models.bundle.read import Bundle
from service.routes.oip.inputs import input_columns
from service.routes.oip.outputs import OUTPUTS_OF_TWO
from service.routes.table import Table
from service.settings import Settings
from tests.service.serving import Served, make_app, serving
from tests.service.test_app import Deterministic, samples
from tests.titanic import COLUMNS, ROWS
from training.data import table as data

with warnings.catch_warnings():
    # The client brings gevent, whose compiled modules warn on import.
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    from tritonclient.utils import InferenceServerException, np_to_triton_dtype

INFER = "/v2/models/tiny/infer"
INPUTS = input_columns(Table(ROWS))


@pytest.fixture(scope="module")
def served(tiny_bundle: Bundle) -> Iterator[Served]:
    with serving(make_app(Settings(timeout_seconds=5), lambda _: Deterministic(tiny_bundle))) as served:
        yield served


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client:
        yield client


@pytest.fixture
def raw(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{served.port}") as client:
        yield client


@pytest.fixture(scope="module")
def rows(table: data.Table) -> list[dict[str, Any]]:
    """Real passengers as /v1 takes them, unknown values among them."""
    return [msgspec.to_builtins(one) for one in table.rows[:200]]


def tensor(name: str, values: list[Any], binary: bool, dtype: Any = None) -> Any:
    field = INPUTS[name]
    if field.datatype == "BYTES":
        array = np.array(["" if one is None else one for one in values], object)
    elif field.datatype == "FP64":
        array = np.array([np.nan if one is None else one for one in values], dtype or np.float64)
    else:
        array = np.array([-1 if one is None else one for one in values], dtype or np.int64)
    made = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    if binary or not (array.dtype.kind == "f" and np.isnan(array).any()):
        return made.set_data_from_numpy(array, binary_data=binary)
    # The client would write NaN, which is no JSON.
    made._data = values
    return made


def check_answers(result: Any, rows: list[dict[str, Any]], raw: httpx.Client) -> None:
    """All outputs against what /v1/predict/batch says of the same rows."""
    expected = raw.post("/v1/predict/batch", json={"rows": rows}).json()["predictions"]

    def texts(name: str) -> list[str]:
        return [one.decode() if isinstance(one, bytes) else one for one in result.as_numpy(name)]

    assert result.as_numpy("probability").tolist() == [one["probability"] for one in expected]
    assert texts("outcome") == [one["outcome"] for one in expected]
    assert result.as_numpy("probabilities").tolist() == [
        [one["probabilities"][name] for name in ("died", "survived")] for one in expected
    ]
    assert len(set(texts("id"))) == len(rows)
    confidences = [one["confidence"] for one in expected]
    for name in ("interval", "abstain", "coverage", "margin", "entropy_bits", "typicality", "uncalibrated_probability"):
        assert result.as_numpy(name).tolist() == [one[name] for one in confidences], name
    assert texts("prediction_set") == [",".join(one["prediction_set"]) for one in confidences]
    assert texts("warnings") == [
        "; ".join(f"{one['field']}: {one['message']}" for one in confidence["warnings"]) for confidence in confidences
    ]


def test_the_server_and_its_model(client: Any, tiny_bundle: Bundle) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", tiny_bundle.version)
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("tiny", "1")
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    described = client.get_model_metadata("tiny", tiny_bundle.version)
    assert (described["name"], described["versions"]) == ("tiny", [tiny_bundle.version])
    assert [one["name"] for one in described["inputs"]] == [*COLUMNS, "row"]
    assert {"name": "age", "datatype": "FP64", "shape": [-1]} in described["inputs"]
    assert {"name": "interval", "datatype": "FP64", "shape": [-1, 2]} in described["outputs"]
    with pytest.raises(InferenceServerException, match="no model") as caught:
        client.get_model_metadata("other")
    assert caught.value.status() == "404"
    with pytest.raises(InferenceServerException, match="there is no /v2/models/tiny/config"):
        client.get_model_config("tiny")


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_one_tensor_per_field(
    client: Any, raw: httpx.Client, rows: list[dict[str, Any]], binary_in: bool, binary_out: bool
) -> None:
    inputs = [tensor(name, [row[name] for row in rows], binary_in) for name in COLUMNS]
    outputs = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in OUTPUTS_OF_TWO]
    result = client.infer("tiny", inputs, outputs=outputs, request_id="my own")
    assert result.get_response()["id"] == "my own"
    check_answers(result, rows, raw)


def test_one_tensor_of_whole_rows(client: Any, raw: httpx.Client, rows: list[dict[str, Any]]) -> None:
    values = [json.dumps(row) for row in rows]
    for binary in (True, False):
        check_answers(client.infer("tiny", [tensor("row", values, binary)]), rows, raw)


@pytest.mark.parametrize("binary", [True, False])
def test_narrow_types_and_columns(client: Any, raw: httpx.Client, binary: bool) -> None:
    """A short float stands for the decimal number it is nearest to, and a row may be a list of one."""
    ages = [0.42, 22.0, 38.0, 119.9]
    rows = [{"pclass": 3, "sex": "male", "age": age, "fare": 7.0, "sibsp": None} for age in ages]
    arrays = {
        "pclass": np.array([[3]] * 4, np.uint8),
        "sex": np.array([["male"]] * 4, object),
        "age": np.array([[age] for age in ages], np.float32),
        "fare": np.array([7] * 4, np.int16),
        "sibsp": np.array([-1] * 4, np.int32),
    }
    inputs = [triton.InferInput(n, list(a.shape), np_to_triton_dtype(a.dtype)) for n, a in arrays.items()]
    for made, array in zip(inputs, arrays.values(), strict=True):
        made.set_data_from_numpy(array, binary_data=binary)
    outputs = None if binary else [triton.InferRequestedOutput(name, binary_data=False) for name in OUTPUTS_OF_TWO]
    check_answers(client.infer("tiny", inputs, outputs=outputs), rows, raw)


def test_compressed_both_ways(client: Any, raw: httpx.Client, rows: list[dict[str, Any]]) -> None:
    inputs = [tensor(name, [row[name] for row in rows], True) for name in COLUMNS]
    result = client.infer("tiny", inputs, request_compression_algorithm="gzip", response_compression_algorithm="gzip")
    check_answers(result, rows, raw)
    with pytest.raises(InferenceServerException, match="Content-Encoding is deflate"):
        client.infer("tiny", inputs, request_compression_algorithm="deflate")


def test_outputs_are_chosen(client: Any) -> None:
    inputs = [tensor("pclass", [1], True), tensor("sex", ["female"], True)]
    chosen = [triton.InferRequestedOutput("interval"), triton.InferRequestedOutput("outcome", binary_data=False)]
    result = client.infer("tiny", inputs, outputs=chosen, parameters={"own": 1}, priority=2, timeout=5)
    assert [one["name"] for one in result.get_response()["outputs"]] == ["interval", "outcome"]
    assert "id" not in result.get_response()
    assert result.as_numpy("interval").shape == (1, 2)
    with pytest.raises(InferenceServerException, match='output "odds" is not one; the outputs are id, outcome'):
        client.infer("tiny", inputs, outputs=[triton.InferRequestedOutput("odds")])


def test_all_faults_are_told(client: Any) -> None:
    inputs = [
        tensor("pclass", [1, 9, 2], True), tensor("sex", ["male", "x", "female"], True),
        tensor("age", [130, 3, math.inf], True), tensor("name", ["x" * 300, "", ""], True),
    ]  # fmt: skip
    with pytest.raises(InferenceServerException) as caught:
        client.infer("tiny", inputs)
    assert caught.value.status() == "400"
    message = caught.value.message()
    assert message.startswith("the request has 5 faults: ")
    for part in (
        "input pclass, row 1 is 9: must be one of 1, 2, 3;", 'input sex, row 1 is "x":', "input age, row 0 is 130.0:",
        "input age, row 2 is inf: must be a number from 0 to 120, or null", 'input name, row 0 is "xxx',
    ):  # fmt: skip
        assert part in message
    assert "x" * 61 not in message
    with pytest.raises(InferenceServerException, match=r"input row, row 1/agee is 3: .*did you mean"):
        client.infer("tiny", [tensor("row", ['{"pclass":1,"sex":"male"}', '{"pclass":1,"agee":3}'], True)])


def test_nan_in_json_is_explained(client: Any) -> None:
    age = triton.InferInput("age", [1], "FP64").set_data_from_numpy(np.array([np.nan]), binary_data=False)
    with pytest.raises(InferenceServerException, match="JSON has no NaN: write null"):
        client.infer("tiny", [tensor("pclass", [1], False), tensor("sex", ["male"], False), age])


def request(**changes: Any) -> dict[str, Any]:
    pclass = {"name": "pclass", "shape": [2], "datatype": "INT64", "data": [1, 3]}
    sex = {"name": "sex", "shape": [2], "datatype": "BYTES", "data": ["male", "female"]}
    return {"inputs": [pclass, sex, *changes.pop("more", [])], **changes}


def age(**changes: Any) -> dict[str, Any]:
    return request(more=[{"name": "age", "shape": [2], "datatype": "FP32", "data": [1, 2.5], **changes}])


def behind(head: dict[str, Any], tail: bytes, length: int | str | None = None) -> tuple[bytes, dict[str, str]]:
    body = json.dumps(head).encode()
    return body + tail, {"Inference-Header-Content-Length": str(len(body) if length is None else length)}


def binary_age(size: Any, **changes: Any) -> dict[str, Any]:
    made = age(parameters={"binary_data_size": size}, **changes)
    if made["inputs"][2]["data"] == [1, 2.5]:
        del made["inputs"][2]["data"]
    return made


FLOATS = np.array([1, 2.5], "<f4").tobytes()
HOSTILE: list[tuple[Any, str]] = [
    (b"", "not JSON"),
    (b"[" * 50_000, "nested too deeply"),
    (b'{"inputs":\xff}', "not JSON"),
    ([], "/ is"),
    ({}, "/inputs is absent: is required"),
    ({"inputs": []}, "/inputs is"),
    ({"inputs": [{}]}, "/inputs/0/name is absent"),
    ({"inputs": request()["inputs"] * 101}, "/inputs is"),
    (request(ouputs=[]), 'did you mean "outputs"'),
    (request(id=3), "/id is 3"),
    (request(parameters=[]), "/parameters is"),
    (request(outputs=[{"name": "id"}, {"name": "id"}]), "wanted twice"),
    (request(outputs=[{"name": "id", "parameters": {"binary_data": 1}}]), "binary_data is 1"),
    (request(outputs=[{"name": "id", "parameters": {"classification": 2}}]), "classification is not offered"),
    (request(parameters={"binary_data_output": "yes"}), "binary_data_output"),
    (request(more=request()["inputs"]), 'input "pclass" is there twice'),
    (request(more=[{"name": "row", "shape": [2], "datatype": "BYTES", "data": ["", ""]}]), "stands for all"),
    ({"inputs": request()["inputs"][1:]}, "input pclass is absent"),
    (age(name="agee"), "is not one; the inputs are pclass"),
    (age(datatype="BYTES"), "datatype is"),
    (age(datatype="fp32"), "datatype is"),
    (age(shape=[]), "shape is []"),
    (age(shape=[3]), "shape is [3]"),
    (age(shape=[2, 2]), "shape is [2,2]"),
    (age(shape=[2, 1, 1]), "shape is"),
    (age(shape=[-2]), "shape is"),
    (age(shape=[2**62, 2**62]), "shape is"),
    (age(shape=[10**400]), "shape"),
    (age(shape=[2.0]), "/inputs/2/shape/0 is 2.0: must be an integer"),
    (age(shape="2"), "/inputs/2/shape is"),
    (age(data=[1]), "data has 1 values, and shape says 2"),
    (age(data=[[1, 2]]), "data has 1 values"),
    (age(data=[[1], [2]]), "row 0 is [1]"),
    (age(data=[[[1]], [2]], shape=[2, 1]), "row 0 is [1]"),
    (age(data=["1", True]), 'row 0 is "1"; row 1 is true, which is no FP32'),
    (age(data=[1e300, 1]), "row 0 is inf: must be a number from 0 to 120"),
    (age(data=[10**400, 1]), "which is no FP32"),
    (age(data=[10**400, 1], datatype="FP64"), "which is no FP64"),
    (age(data=[10**400, 1], datatype="INT64"), "which is no INT64"),
    (age(data=[1.5, 2], datatype="INT64"), "row 0 is 1.5, which is no INT64"),
    (age(data=[128, 2], datatype="INT8"), "row 0 is 128, which is no INT8"),
    (age(data=[-1, 2], datatype="UINT64"), "row 0 is -1, which is no UINT64"),
    (age(data=None), "either data or"),
    (age(data=[1, 2], parameters={"binary_data_size": 0}), "either data or"),
    (age(parameters={"shared_memory_region": "x"}), "shared memory"),
    (binary_age(8), "0 bytes are left"),
    (behind(binary_age(8), FLOATS[:7]), "7 bytes are left"),
    (behind(binary_age(8), FLOATS + b"x"), "1 bytes behind the JSON belong to no"),
    (behind(binary_age(7), FLOATS[:7]), "2 of FP32 have 8"),
    (behind(binary_age(8, datatype="FP64"), FLOATS), "2 of FP64 have 16"),
    (behind(binary_age(-8), FLOATS), "binary_data_size is -8"),
    (behind(binary_age(2**70), FLOATS), "binary_data_size"),
    (behind(binary_age("8"), FLOATS), 'binary_data_size is "8"'),
    (behind(binary_age(True), FLOATS), "binary_data_size is true"),
    (behind(binary_age(8), FLOATS, -1), "it must be a whole number"),
    (behind(binary_age(8), FLOATS, 10**6), "it must be a whole number"),
    (behind(binary_age(8), FLOATS, "9" * 5000), "it must be a whole number"),
    (behind(binary_age(8), FLOATS, "1_0"), "it must be a whole number"),
    (behind(binary_age(8), FLOATS, 10), "not JSON"),
    (behind(binary_age(8), FLOATS, 0), "not JSON"),
    (behind(binary_age(8, name="name", datatype="BYTES"), b"\x00\x00\x00\x00\x01\x00\x00\x00"), "row 1 ends behind"),
    (behind(binary_age(8, name="name", datatype="BYTES"), b"\xff" * 8), "row 0 ends behind"),
    (behind(binary_age(10, name="name", datatype="BYTES"), bytes(10)), "2 texts end after 8"),
    (behind(binary_age(9, name="name", datatype="BYTES"), b"\x01\x00\x00\x00\xff" + bytes(4)), "row 0 is not UTF-8"),
    (behind(binary_age(8), np.array([np.inf, 1], "<f4").tobytes()), "row 0 is inf: must be a number from 0 to 120"),
    (behind(binary_age(4, datatype="FP16"), np.array([65000, 1], "<f2").tobytes()), "row 0 is 65000.0"),
]  # fmt: skip


def post(raw: httpx.Client, body: Any, headers: dict[str, str] | None = None, path: str = INFER) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return raw.post(path, content=content, headers=headers or {})


def message(response: httpx.Response, status: int) -> str:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    body = response.json()
    assert list(body) == ["error"]
    return str(body["error"])


@pytest.mark.parametrize(("body", "text"), HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_bodies(raw: httpx.Client, body: Any, text: str) -> None:
    content, headers = body if isinstance(body, tuple) else (body, None)
    told = message(post(raw, content, headers), 400)
    assert text in told
    assert len(told) < 5000
    assert post(raw, age()).status_code == 200


def test_mutilated_bodies_never_break_it(raw: httpx.Client) -> None:
    """Bytes changed, cut and doubled at random, in the JSON, in the binary part and in the header."""
    rng = random.Random(11)
    whole, headers = behind(
        {
            "id": "x",
            "inputs": [
                {"name": "pclass", "shape": [2], "datatype": "INT64", "parameters": {"binary_data_size": 16}},
                {"name": "sex", "shape": [2, 1], "datatype": "BYTES", "data": [["male"], ["female"]]},
                {"name": "age", "shape": [2], "datatype": "FP16", "parameters": {"binary_data_size": 4}},
                {"name": "name", "shape": [2], "datatype": "BYTES", "parameters": {"binary_data_size": 12}},
            ],
            "outputs": [{"name": "probability", "parameters": {"binary_data": True}}, {"name": "interval"}],
        },
        np.array([1, 3], "<i8").tobytes() + np.array([1, 2], "<f2").tobytes() + b"\x04\x00\x00\x00Abbe" + bytes(4),
    )
    assert post(raw, whole, headers).status_code == 200
    length = int(headers["Inference-Header-Content-Length"])
    seen = set()
    for _ in range(400):
        body, told = bytearray(whole), length
        for _ in range(rng.choice((1, 1, 2, 5))):
            place = rng.randrange(len(body))
            change = rng.randrange(5)
            if change == 0:
                body[place] = rng.randrange(256)
            elif change == 1:
                del body[place : place + rng.choice((1, 4, 8))]
            elif change == 2:
                body[place:place] = body[place : place + 4]
            elif change == 3:
                body[place : place + 1] = rng.choice((b"-1", b"null", b"[]", b"1e400", b"\\ud800", b"\x00"))
            else:
                told = length + rng.randint(-3, 3)
        response = post(raw, bytes(body), {"Inference-Header-Content-Length": str(told)})
        seen.add(response.status_code)
        if response.status_code != 200:
            message(response, 400)
    assert seen == {200, 400}


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("GET", "/v2/nothing", {}, 404),
        ("GET", "/v2/models", {}, 404),
        ("GET", "/v2/models/tiny/config", {}, 404),
        ("POST", "/v2/models/other/infer", {}, 404),
        ("POST", "/v2/models/tiny/versions/1/infer", {}, 404),
        ("GET", INFER, {}, 405),
        ("DELETE", "/v2", {}, 405),
        ("POST", INFER, {"Content-Type": "text/plain"}, 415),
        ("POST", INFER, {"Content-Encoding": "br"}, 415),
        ("POST", INFER, {"Content-Type": "application/octet-stream"}, 400),
    ],
)
def test_other_refusals_have_the_protocols_form(
    raw: httpx.Client, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    response = raw.request(method, path, headers=headers)
    assert message(response, status)
    assert ("Allow" in response.headers) == (status == 405)


def test_errors_elsewhere_stay_problems(raw: httpx.Client) -> None:
    for path in ("/v2x", "/nothing", "/v1/v2"):
        assert raw.get(path).headers["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("rows", [0, 1025])
def test_the_rows_are_bounded(raw: httpx.Client, rows: int) -> None:
    def columns(n: int) -> dict[str, Any]:
        pclass = {"name": "pclass", "shape": [n], "datatype": "INT64", "data": [1] * n}
        return {"inputs": [pclass, {"name": "sex", "shape": [n], "datatype": "BYTES", "data": ["male"] * n}]}

    assert "from 1 to 1024" in message(post(raw, columns(rows)), 400)
    assert post(raw, columns(1024)).json()["outputs"][0]["shape"] == [1024]
    assert message(post(raw, b" " * (1 << 20) + b" "), 413)


def test_failures_and_counts(raw: httpx.Client) -> None:
    before = samples(raw)  # type: ignore[arg-type]
    failing = request(more=[{"name": "fare", "shape": [2], "datatype": "FP64", "data": [1, 999]}])
    assert message(post(raw, failing), 503)
    assert post(raw, age()).status_code == 200
    found = samples(raw)  # type: ignore[arg-type]
    grown = {key: value - before.get(key, 0) for key, value in found.items()}
    infer = ("route", "/v2/models/{name}/infer"), ("method", "POST")
    assert grown["evenkeel_http_requests_total", frozenset({*infer, ("status", "200")})] == 1
    assert grown["evenkeel_http_requests_total", frozenset({*infer, ("status", "503")})] == 1
    assert grown["evenkeel_rejected_total", frozenset({("reason", "unavailable")})] == 1
    assert sum(n for (name, _), n in grown.items() if name == "evenkeel_predictions_total") == 2


def test_before_the_model_is_there() -> None:
    def load(_: object) -> Deterministic:
        raise ValueError("no bundle")

    with (
        serving(make_app(Settings(), load)) as served,
        httpx.Client(base_url=f"http://127.0.0.1:{served.port}") as raw,
        triton.InferenceServerClient(f"127.0.0.1:{served.port}") as client,
    ):
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("tiny")
        assert raw.get("/v2/health/ready").json() == {"ready": False}
        response = post(raw, age())
        assert message(response, 503) == "no bundle"
        assert response.headers["Retry-After"]
