"""The OpenAPI document says what the service does: every route, every refusal, every answer's form; and its page."""

import asyncio
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest
from litestar.routes import HTTPRoute
from schemathesis.specs.openapi import definitions

from models.bundle.manifest import BundleError
from models.bundle.read import Bundle
from models.prediction import EncodedText, Prediction
from models.rows import Row
from service.drift.events import MAX_SUBSCRIBERS
from service.http import access
from service.http.keys import SCOPES, new_key, write_keys
from service.routes.openapi.pages import FILES, FOLDER
from service.settings import Settings
from service.store.store import Store
from tests.browser import chromium_page
from tests.conftest import ROOT
from tests.deploy.programs import free_port
from tests.service.inference.test_batcher import wait_until
from tests.service.serving import ApplicationClient, make_app
from tests.service.test_app import Deterministic
from tests.service.test_real import start, wait_ready
from tests.titanic import SCHEMA

BINARY = "application/octet-stream"
JSON, MESSAGEPACK, PROBLEM = "application/json", "application/msgpack", "application/problem+json"

PAGES = {"/", "/page/{name}", "/page/{section}/{name}", "/schema", "/schema/{name}"}
"""Routes for people, which the document leaves out."""

ENDLESS = "/v1/drift/events"
LINES = "application/x-ndjson"

READ_NO_BODY = {"/admin/reload", "/admin/online/undo"}
"""Routes with POST for what they do, not for what they are sent."""

NOT_READY = {"/health/live", "/health/ready", "/v2/health/ready"}
"""Routes whose 503 is an answer and no refusal."""

MADE = {scope: new_key(scope, [scope]) for scope in SCOPES} | {
    "all": new_key("all", SCOPES), "slow": new_key("slow", SCOPES, rows_per_second=0.01),
}  # fmt: skip
KEYS = {name: key for name, (key, _) in MADE.items()}
BROWN = SCHEMA.examples[0].row
"""The row of the document's examples."""


class Held(Deterministic):
    """Answers once ``hold`` is set."""

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        self.hold.wait(10)
        return super().predict_checked(rows)


@contextmanager
def serving(load: Callable[[Any], Any], **options: Any) -> Iterator[ApplicationClient]:
    """A client that has a key of all scopes."""
    with TemporaryDirectory() as folder:
        keys = Path(folder) / "keys.json"
        write_keys(keys, [entry for _, entry in MADE.values()])
        app = make_app(Settings(keys=str(keys), **options), load)
        with ApplicationClient(app, raise_server_exceptions=False) as client:
            client.headers["X-API-Key"] = KEYS["all"]
            yield client


@pytest.fixture(scope="module")
def client(tiny_bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApplicationClient]:
    where = tmp_path_factory.mktemp("store") / "s.sqlite"
    with serving(lambda _: Deterministic(tiny_bundle), store=str(where), recalibrate_online=True) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


@pytest.fixture(scope="module")
def document(client: ApplicationClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/schema/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [(path, method, operation) for path, item in document["paths"].items() for method, operation in item.items()]


def faults(document: dict[str, Any], schema: dict[str, Any], value: Any) -> list[str]:
    validator = jsonschema_rs.Draft202012Validator({**schema, "components": document["components"]})
    return [f"{list(one.instance_path)}: {one.message}" for one in validator.iter_errors(value)]


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert [one.message for one in definitions.OPENAPI_31_VALIDATOR.iter_errors(document)] == []
    for name, schema in document["components"]["schemas"].items():
        jsonschema_rs.meta.validate({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema})
        assert schema["title"] == name
    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(ids) == len(set(ids))
    references = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert references <= set(document["components"]["schemas"])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert document["info"]["version"] == project["version"]
    assert document["info"]["license"]["identifier"] == project["license"]


def test_it_is_the_same_in_every_process(client: ApplicationClient) -> None:
    code = (
        "import sys; import msgspec; from models.rows import Rows; from service.settings import Settings\n"
        "from service.routes.openapi.pages import json_document; from service.routes.table import Table\n"
        "from tests.titanic import SCHEMA\n"
        "from tests.service.serving import ApplicationClient, make_app\n"
        "routes = make_app(Settings(), lambda _: None).litestar.routes\n"
        "table = Table(Rows(msgspec.structs.replace(SCHEMA, name='tiny')))\n"
        "sys.stdout.buffer.write(json_document(routes, table).content)"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, check=True)
        assert done.stdout == client.get("/schema/openapi.json").content


def test_the_yaml_is_the_same_document(client: ApplicationClient, document: dict[str, Any]) -> None:
    response = client.get("/schema/openapi.yaml")
    assert response.headers["Content-Type"] == "application/yaml"
    assert msgspec.yaml.decode(response.content) == document


def test_every_route_is_documented_in_full(client: ApplicationClient, document: dict[str, Any]) -> None:
    routes = [route for route in client.application.litestar.routes if isinstance(route, HTTPRoute)]
    known = {(route.path_format, method.lower()) for route in routes for method in route.methods - {"OPTIONS", "HEAD"}}
    described = {(path, method) for path, method, _ in operations(document)}
    assert described == {one for one in known if one[0] not in PAGES}, "include_in_schema, or PAGES here"
    assert {access.PARAMETER.sub("{}", path) for path, _ in known} == set(access.ROUTES) - {"/schema/openapi.json"}
    tags = {one["name"] for one in document["tags"] if one["description"]}
    lacking = []
    for path, method, operation in operations(document):
        responses = operation["responses"]
        lacking += [
            f"{method} {path} lacks {what}"
            for what, found in {
                "operation_id": operation["operationId"],
                "summary": operation["summary"],
                "a docstring": len(operation["description"]) > 20,
                "tags that the document describes": operation["tags"] and set(operation["tags"]) <= tags,
                "a described response of status 200": responses.get("200", {}).get("description"),
                "the refusals of a body: **BODY_REFUSALS": "requestBody" not in operation
                or body_refusals(path) <= set(responses),
                "the refusals of access": access_refusals(operation) <= set(responses),
                "a sentence on keys": "key" in operation["description"],
                "opt={TAKES: Body(…)}": method == "get" or path in READ_NO_BODY or "requestBody" in operation,
            }.items()
            if not found
        ]
        for status, response in responses.items():
            if int(status) >= 400 and not (status == "503" and path in NOT_READY):
                content = response["content"].get(JSON if path.startswith("/v2") else PROBLEM, {})
                if not content.get("examples"):
                    lacking.append(f"{method} {path} lacks a problem with an example for {status}")
                if status in ("429", "503") and "Retry-After" not in response.get("headers", {}):
                    lacking.append(f"{method} {path} lacks Retry-After for {status}")
    assert not lacking


def body_refusals(path: str) -> set[str]:
    """By nature: a stream has no length to refuse and tells of each line by itself, /v2 has its own negotiation."""
    if path == "/v1/predict/stream":
        return {"400", "415"}
    return {"400", "408", "411", "413", "415"} | (set() if path.startswith("/v2") else {"406", "422"})


def access_refusals(operation: dict[str, Any]) -> set[str]:
    scope = operation["x-scope"]
    return {"421"} | ({"401", "429"} if scope != "open" else set()) | ({"403"} if scope in SCOPES else set())


def test_the_constraints_are_there(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    item = schemas["BatchRequest"]["properties"]["rows"]
    assert (item["minItems"], item["maxItems"]) == (1, 1024)
    passenger = schemas["Passenger"]
    assert passenger["required"] == ["pclass", "sex"]
    assert passenger["properties"]["age"]["anyOf"][0] == {"type": "number", "minimum": 0, "maximum": 120}
    assert all(field["description"] for field in passenger["properties"].values())
    batch = {"$ref": "#/components/schemas/BatchRequest"}
    good = {"pclass": 1, "sex": "male"}
    assert faults(document, batch, {"rows": [good]}) == []
    for wrong in ({"agee": 3}, {"age": 121}, {"pclass": 4}, {"pclass": "1"}, {"sibsp": 1.5}, {"name": "x" * 201}):
        assert faults(document, batch, {"rows": [{**good, **wrong}]})
    for _, _, operation in operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            name = content["schema"].get("items", content["schema"])["$ref"].rsplit("/", 1)[1]
            assert schemas[name]["additionalProperties"] is False


def test_the_examples_have_the_forms_that_are_promised(document: dict[str, Any]) -> None:
    for path, _, operation in operations(document):
        for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
            if "example" in content:
                example = read_lines(content["example"]) if media_type == LINES else content["example"]
                assert faults(document, content["schema"], example) == [], path
        for status, response in operation["responses"].items():
            for content in response.get("content", {}).values():
                for example in content.get("examples", {}).values():
                    assert faults(document, content["schema"], example["value"]) == [], (path, status)


def read_lines(text: str) -> list[Any]:
    return [json.loads(line) for line in text.splitlines()]


def of_model(client: Any, path: str) -> str:
    """The path with the name and version of what is served, if it has places for them."""
    predictor = client.application.services.batcher.predictor
    return path.format(name="tiny", version=predictor.bundle.version if predictor else "none")


def send(
    client: Any, method: str, path: str, operation: dict[str, Any], accept: str, media_type: str = JSON, **more: str
) -> Any:
    """A request that the document's example describes."""
    content = operation.get("requestBody", {}).get("content")
    headers = {"Accept": accept, **more}
    path = of_model(client, path)
    if content is None:
        return client.request(method, path, headers=headers)
    if LINES in content:
        headers["Content-Type"] = LINES
        return client.request(method, path, content=content[LINES]["example"], headers=headers)
    encode = msgspec.msgpack.encode if media_type == MESSAGEPACK else msgspec.json.encode
    headers["Content-Type"] = media_type
    return client.request(method, path, content=encode(content[JSON]["example"]), headers=headers)


def test_the_answers_of_every_route_have_the_forms_that_are_promised(
    client: ApplicationClient, document: dict[str, Any]
) -> None:
    decoders: dict[str, Callable[[bytes], Any]] = {
        JSON: msgspec.json.decode, MESSAGEPACK: msgspec.msgpack.decode, LINES: lambda body: read_lines(body.decode()),
    }  # fmt: skip
    for path, method, operation in operations(document):
        if path == ENDLESS:
            continue
        for accept in operation["responses"]["200"]["content"]:
            if accept == BINARY:
                continue  # tests/service/routes/oip/test_routes.py
            response = send(client, method, path, operation, accept, accept if accept == MESSAGEPACK else JSON)
            assert response.status_code == 200, (path, response.text)
            promised = operation["responses"]["200"]
            found = response.headers["Content-Type"].split(";")[0]
            assert found == accept, path
            value = decoders[found](response.content) if found in decoders else response.text
            assert faults(document, promised["content"][found]["schema"], value) == [], path
            optional = {"Inference-Header-Content-Length"}
            assert {one for one in promised["headers"] if one not in response.headers} <= optional, path
            if "304" in operation["responses"]:
                known = {"If-None-Match": response.headers["ETag"], "Accept": accept}
                again = client.request(method, path, headers=known)
                assert (again.status_code, again.content) == (304, b"")
                assert [one for one in operation["responses"]["304"]["headers"] if one not in again.headers] == [], path


def test_the_report_has_its_form_when_there_is_something_to_report(
    client: ApplicationClient, document: dict[str, Any]
) -> None:
    rows = [{"pclass": 1, "sex": "male", "age": 110, "fare": n % 900} for n in range(1024)]
    for _ in range(6):
        client.post("/v1/predict/batch", json={"rows": rows})
    response = client.get("/v1/drift")
    assert response.json()["distributions"]
    assert response.json()["estimates"]
    assert faults(document, {"$ref": "#/components/schemas/DriftReport"}, response.json()) == []


def test_a_stream_with_a_faulty_line_has_its_form(client: ApplicationClient, document: dict[str, Any]) -> None:
    operation = document["paths"]["/v1/predict/stream"]["post"]
    body = operation["requestBody"]["content"][LINES]["example"] + '{"pclass": 4}\n{\n'
    response = client.post("/v1/predict/stream", content=body, headers={"Content-Type": LINES})
    found = read_lines(response.text)
    assert [one.get("status") for one in found] == [None, None, 422, 400]
    assert faults(document, operation["responses"]["200"]["content"][LINES]["schema"], found) == []


def test_keys_are_described_as_they_are_needed(client: ApplicationClient, document: dict[str, Any]) -> None:
    for path, method, operation in operations(document):
        scope, ways = operation["x-scope"], operation["security"]
        schemes = [{name: []} for name in document["components"]["securitySchemes"]]
        without_keys = [] if path.startswith("/admin/") else [{}]
        assert ways == ([] if scope == "open" else [*schemes, *without_keys]), path
        if scope in SCOPES:
            assert f"`{scope}`" in operation["description"]
            with_header = client.build_request(method, path, headers={"X-API-Key": KEYS[scope]})
            bearing = client.build_request(method, path, headers={"Authorization": f"Bearer {KEYS[scope]}"})
            del bearing.headers["X-API-Key"]
            for request in (with_header, bearing):
                assert client.send(request).status_code not in (401, 403), path


def test_every_refusal_is_one_that_a_client_gets(
    client: ApplicationClient, document: dict[str, Any], tiny_bundle: Bundle, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        situations = Situations(stack, client, tiny_bundle, tmp_path)
        compared = 0
        for path, method, operation in operations(document):
            for status, response in operation["responses"].items():
                form = JSON if path.startswith("/v2") else PROBLEM
                for name, example in response.get("content", {}).get(form, {}).get("examples", {}).items():
                    if status == "200":
                        continue
                    found = situations.provoke(name, method, path, operation, example)
                    assert found.status_code == int(status), (path, name, found.text)
                    assert found.headers["Content-Type"] == form
                    assert [one for one in response.get("headers", {}) if one not in found.headers] == [], (path, name)
                    # What is set for a test, seconds above all, is another than by default.
                    assert settled(found.json()) == settled(example["value"]), (path, name)
                    compared += 1
        assert compared > 130


def settled(problem: dict[str, Any]) -> dict[str, Any]:
    key = "error" if "error" in problem else "detail"
    detail = re.sub(r"within [\d.]+ seconds", "within N seconds", problem[key]).replace("has tiny", "has y")
    return {**problem, key: re.sub(r"in \d+ s$", "in N s", detail)}


class Situations:
    """Services in the states that refusals come from, and for each example's name the request that leads to it."""

    def __init__(self, stack: ExitStack, client: ApplicationClient, bundle: Bundle, folder: Path):
        self._stack, self._client, self._bundle, self._folder = stack, client, bundle, folder
        self._made: dict[str, ApplicationClient] = {}

    def provoke(self, name: str, method: str, path: str, operation: dict[str, Any], example: dict[str, Any]) -> Any:
        """The response to the request that gets the example ``name``."""
        about_outcomes = operation["tags"] == ["outcomes"]
        json_body = {"Content-Type": JSON}
        if name == "unknown_model":
            return send(self._client, method, path.replace("{name}", "x"), operation, JSON)
        described, path = path, of_model(self._client, path)
        if name == "not_authenticated":
            return send(self._client, method, path, operation, JSON, **{"X-API-Key": "ek_00000000_no"})
        if name == "not_permitted":
            other = next(scope for scope in ("outcomes", "admin") if scope != operation["x-scope"])
            return send(self._client, method, path, operation, JSON, **{"X-API-Key": KEYS[other]})
        if name == "rate_limited":
            # The first request of all takes what the key's rate allows.
            self._client.get("/v1/model", headers={"X-API-Key": KEYS["slow"]})
            return send(self._client, method, path, operation, JSON, **{"X-API-Key": KEYS["slow"]})
        if name == "malformed_body":
            return self._client.request(method, path, content=b"{", headers=json_body)
        if name == "not_acceptable":
            return send(self._client, method, path, operation, "text/html")
        if name == "length_required":
            request = self._client.build_request(method, path, headers=json_body)
            del request.headers["Content-Length"]
            return self._client.send(request)
        if name == "unknown_coding":
            return self._client.request(method, path, content=b"{}", headers={**json_body, "Content-Encoding": "br"})
        if name == "body_too_slow":
            return self._stopping_halfway(method, path)
        if name == "body_too_large":
            return self._client.request(method, path, content=b" " * (1 << 20 | 1), headers=json_body)
        if name == "wrong_media_type":
            return self._client.request(method, path, content=b"{}", headers={"Content-Type": "text/plain"})
        if name == "invalid_body":
            body = example["summary"].removeprefix("the body was ").encode()
            return self._client.request(method, path, content=body, headers=json_body)
        if name == "bad_header":
            return send(self._client, method, path, operation, JSON, **{"X-Request-Timeout-Ms": "soon"})
        if name == "invalid_query":
            return send(self._client, method, f"{path}?{example['value']['detail'].split()[0]}=x", operation, JSON)
        if name == "prediction_failed":
            example = json.dumps(operation["requestBody"]["content"][JSON]["example"])
            broken = example.replace(str(BROWN["fare"]), "999")
            return self._client.request(method, path, content=broken, headers=json_body)
        makers = {
            "not_ready": self._stopped if about_outcomes else self._loading,
            "queue_full": self._full_store if about_outcomes else self._full,
            "deadline_passed": self._stalled_store if about_outcomes else self._stalled,
            "outcomes_not_kept": self._storeless,
            "not_recalibrating": self._storeless,
            "store_unavailable": self._broken_store,
            "reload_running": self._reloading,
            "bundle_refused": self._refusing,
            "misdirected": self._named,
            "too_many_subscribers": self._followed,
        }
        maker = makers[name]
        if maker.__name__ not in self._made:
            self._made[maker.__name__] = maker()
        more = {"Host": "other.example"} if name == "misdirected" else {}
        return send(self._made[maker.__name__], method, described, operation, JSON, **more)

    def _serve(self, load: Callable[[Any], Any], **options: Any) -> ApplicationClient:
        return self._stack.enter_context(serving(load, **options))

    def _ready(self, predictor: Any = None, **options: Any) -> ApplicationClient:
        client = self._serve(lambda _: predictor or Deterministic(self._bundle), **options)
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        return client

    def _stopping_halfway(self, method: str, path: str) -> httpx.Response:
        """The response to a body of which the first half comes and nothing more, which no client here would send."""
        if "halfway" not in self._made:
            self._made["halfway"] = self._ready(store=str(self._folder / "halfway.sqlite"), read_seconds=0.05)
        client = self._made["halfway"]
        request = client.build_request(method, path, content=b" " * 8192, headers={"Content-Type": JSON})
        sent: list[Any] = []
        pieces = iter([{"type": "http.request", "body": b" " * 4096, "more_body": True}])

        async def receive() -> Any:
            return next(pieces, None) or await asyncio.sleep(30)

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method.upper(),
            "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "client": ("127.0.0.1", 1), "server": ("localhost", 80),
        }  # fmt: skip
        client.blocking_portal.call(client.app, scope, receive, send)
        body = b"".join(one.get("body", b"") for one in sent)
        headers = [(name.decode(), value.decode()) for name, value in sent[0]["headers"]]
        return httpx.Response(sent[0]["status"], headers=headers, content=body)

    def _loading(self) -> ApplicationClient:
        loaded = threading.Event()
        client = self._serve(lambda _: loaded.wait(120) and Deterministic(self._bundle))
        self._stack.callback(loaded.set)
        return client

    def _named(self) -> ApplicationClient:
        return self._serve(lambda _: Deterministic(self._bundle), allowed_hosts="evenkeel.example")

    def _followed(self) -> ApplicationClient:
        client = self._ready()
        events = client.application.services.drift_events
        self._followers = [events.subscribe() for _ in range(MAX_SUBSCRIBERS)]
        return client

    def _stalled(self, **options: Any) -> ApplicationClient:
        predictor = Held(self._bundle)
        client = self._ready(predictor=predictor, timeout_seconds=0.5, **options)
        self._stack.callback(predictor.hold.set)
        predictor.hold.clear()
        return client

    def _full(self) -> ApplicationClient:
        predictor = Held(self._bundle)
        client = self._ready(predictor=predictor, max_queue_rows=1024)
        fillers = []

        def fill(rows: int, queued: int) -> None:
            body = {"rows": [{"pclass": 1, "sex": "male"}] * rows}
            fillers.append(threading.Thread(target=client.post, args=("/v1/predict/batch",), kwargs={"json": body}))
            fillers[-1].start()
            wait_until(lambda: f"\nevenkeel_queue_rows {queued}.0\n" in client.get("/metrics").text)

        self._stack.callback(lambda: [one.join() for one in fillers])
        self._stack.callback(predictor.hold.set)
        predictor.hold.clear()
        # The first 64 rows leave the queue and are held.
        fill(1024, 960)
        fill(64, 1024)
        return client

    def _reloading(self) -> ApplicationClient:
        begun, end, loads = threading.Event(), threading.Event(), []

        def load(_: Any) -> Deterministic:
            loads.append(1)
            if len(loads) > 1:
                begun.set()
                end.wait(30)
            return Deterministic(self._bundle)

        client = self._serve(load)
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        first = threading.Thread(target=client.post, args=("/admin/reload",))
        self._stack.callback(first.join)
        self._stack.callback(end.set)
        first.start()
        assert begun.wait(5)
        return client

    def _refusing(self) -> ApplicationClient:
        loads: list[int] = []

        def load(_: Any) -> Deterministic:
            loads.append(1)
            if len(loads) > 1:
                raise BundleError("model.safetensors was changed")
            return Deterministic(self._bundle)

        client = self._serve(load)
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        return client

    def _storeless(self) -> ApplicationClient:
        return self._ready()

    def _broken_store(self) -> ApplicationClient:
        client = self._ready(store=str(self._folder))
        wait_until(lambda: "store" in client.get("/health/ready").json()["detail"])
        return client

    def _stalled_store(self, timeout_seconds: float = 0.2) -> ApplicationClient:
        """A store whose thread never runs."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "start", lambda _: None)
            client = self._ready(store=str(self._folder / "stalled.sqlite"), timeout_seconds=timeout_seconds)
        client.application.services.store.stop = lambda _: None
        return client

    def _full_store(self) -> ApplicationClient:
        client = self._stalled_store(timeout_seconds=0.01)
        outcomes = {"outcomes": [{"id": str(n), "outcome": "survived"} for n in range(1024)]}
        for _ in range(100):
            if client.post("/v1/outcomes", json=outcomes).status_code == 429:
                return client
        raise AssertionError("the store takes any number of outcomes")

    def _stopped(self) -> ApplicationClient:
        client = self._ready(store=str(self._folder / "stopped.sqlite"))
        client.application.services.store.stop(5)
        return client


def test_the_page_is_made_of_our_own_files(client: ApplicationClient) -> None:
    page = client.get("/schema")
    assert page.status_code == 200
    assert page.headers["Content-Type"].startswith("text/html")
    policy = page.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert not re.search(r"""(?:src|href)="(?!/schema/|data:)""", page.text)
    for name, media_type in FILES.items():
        first = client.get(f"/schema/{name}")
        assert first.status_code == 200
        assert first.headers["Content-Type"].startswith(media_type)
        again = client.get(f"/schema/{name}", headers={"If-None-Match": first.headers["ETag"]})
        assert (again.status_code, again.content) == (304, b"")
    for name in ("README.md", "nothing.js", "..%2Fapp.py"):
        assert client.get(f"/schema/{name}").status_code == 404


def test_the_files_of_others_are_unchanged() -> None:
    told = dict(re.findall(r"\| `([^`]+)` \| `([0-9a-f]{64})` \|", (FOLDER / "README.md").read_text()))
    assert {path.name for path in FOLDER.iterdir()} == {"README.md", "index.html", "start.js", *told}
    for name, digest in told.items():
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest


@pytest.fixture(scope="module")
def service(bundle_folder: Path) -> Iterator[str]:
    port = free_port()
    process = start("--bundle", bundle_folder, "--port", port, "--grace-seconds", 0)
    wait_ready(f"http://127.0.0.1:{port}", process)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.communicate(timeout=30)


@pytest.mark.slow
def test_events_hold_the_report_that_is_promised(service: str, document: dict[str, Any]) -> None:
    with httpx.stream("GET", f"{service}{ENDLESS}", timeout=10) as response:
        promised = document["paths"][ENDLESS]["get"]["responses"]["200"]
        assert response.headers["Content-Type"].split(";")[0] in promised["content"]
        assert [one for one in promised["headers"] if one not in response.headers] == []
        data = next(line for line in response.iter_lines() if line.startswith("data: "))
    report = json.loads(data.removeprefix("data: "))
    told = document["components"]["schemas"]["DriftEvent"]["properties"]["data"]["contentSchema"]
    assert faults(document, told, report) == []


@pytest.mark.slow
def test_the_page_works_in_a_browser(service: str, document: dict[str, Any]) -> None:
    with chromium_page(service) as (page, wrong):
        page.goto(f"{service}/schema")
        page.wait_for_selector(".opblock")
        listed = page.locator(".opblock-summary-path").all_inner_texts()
        # The page writes paths with zero-width spaces, so that they may wrap.
        assert sorted(one.replace("\u200b", "") for one in listed) == sorted(
            path for path, _, _ in operations(document)
        )
        operation = page.locator("#operations-predictions-predict")
        operation.locator(".opblock-summary-control").click()
        operation.locator("button.execute").click()
        status = operation.locator(".live-responses-table tbody .response-col_status").first
        status.wait_for()
        assert status.inner_text().startswith("200")
        assert '"probability"' in operation.locator(".live-responses-table .highlight-code").first.inner_text()
        assert wrong == []


USE = """
import sys
from evenkeel_client import Client
from evenkeel_client.api.predictions import predict, predict_batch
from evenkeel_client.models import BatchRequest, Passenger, PassengerPclass, PassengerSex, PredictionResponse, Problem
from evenkeel_client.types import UNSET

with Client(base_url=sys.argv[1]) as client:
    child = Passenger(pclass=PassengerPclass.VALUE_1, sex=PassengerSex.FEMALE, age=2.0)
    man = Passenger(pclass=PassengerPclass.VALUE_3, sex=PassengerSex.MALE)
    one = predict.sync(client=client, body=child)
    assert isinstance(one, PredictionResponse), one
    batch = predict_batch.sync(client=client, body=BatchRequest(rows=[child, man]))
    assert batch.predictions[0].probability == one.probability
    problem = predict.sync(client=client, body=Passenger.from_dict({"pclass": 1, "sex": "male", "age": 200}))
    assert isinstance(problem, Problem), problem
    print(one.probability, len(batch.predictions), problem.status, problem.errors[0].pointer)

    optional = {"name", "age", "sibsp", "parch", "fare", "ticket", "cabin", "embarked"}
    unknown = Passenger.from_dict({"pclass": 1, "sex": "female"} | dict.fromkeys(optional))
    assert unknown.to_dict() == {"pclass": 1, "sex": "female"} | dict.fromkeys(optional)
    nothing_known = predict.sync(client=client, body=unknown)
    absent = predict.sync(client=client, body=Passenger(pclass=PassengerPclass.VALUE_1, sex=PassengerSex.FEMALE))
    # What is left out is the field's default, which for some is a value.
    assert isinstance(nothing_known, PredictionResponse) and isinstance(absent, PredictionResponse)

    # A set of classes comes as the classes' names, and goes back as it came.
    assert set(one.confidence.prediction_set) <= set(one.probabilities.to_dict()), one
    assert PredictionResponse.from_dict(one.to_dict()) == one

    # A later service may add fields: an older client reads the rest.
    later = one.to_dict() | {"reviewed": True}
    later["confidence"] = later["confidence"] | {"second_opinion": [0.1, 0.9]}
    read = PredictionResponse.from_dict(later)
    assert (read.probability, read.confidence.interval) == (one.probability, one.confidence.interval)
"""


@pytest.mark.slow
def test_a_generated_client_predicts_and_reads_a_problem(service: str, tmp_path: Path) -> None:
    (tmp_path / "openapi.json").write_bytes(httpx.get(f"{service}/schema/openapi.json").content)
    # No formatter is run after: it would be one more program to have.
    (tmp_path / "config.json").write_text('{"post_hooks": [], "package_name_override": "evenkeel_client"}')
    generate = [sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none"]
    files = ["--path", "openapi.json", "--config", "config.json", "--output-path", "evenkeel_client"]
    made = subprocess.run([*generate, *files], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert made.returncode == 0, made.stdout + made.stderr
    used = subprocess.run(
        [sys.executable, "-W", "error", "-c", USE, service], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert used.returncode == 0, used.stderr
    probability, rows, status, pointer = used.stdout.split()
    assert 0 < float(probability) < 1
    assert (rows, status, pointer) == ("2", "422", "/age")
