"""Routes past Litestar's routing answer as they do behind it, and nothing else goes past it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from litestar.testing import TestClient

from models.bundle.read import Bundle
from service.app import Application
from service.settings import Settings
from tests.service.inference.test_batcher import wait_until
from tests.service.serving import make_app
from tests.service.test_app import ALLISON, Deterministic

JSON = {"Content-Type": "application/json"}
ROW = json.dumps(ALLISON).encode()
BATCH = json.dumps({"rows": [ALLISON] * 3}).encode()
OWN = {"date", "x-request-id", "traceparent", "server-timing"}
"""Headers that differ from one request to the next."""

COUNTED = "evenkeel_http_requests_total{"

REQUESTS: list[tuple[str, str, bytes, dict[str, str]]] = [
    ("POST", "/v1/predict", ROW, JSON),
    ("POST", "/v1/predict?trial=true", ROW, JSON),
    ("POST", "/v1/predict?trial=perhaps", ROW, JSON),
    ("POST", "/v1/predict?trail=true", ROW, JSON),
    ("POST", "/v1/predict/batch", BATCH, JSON),
    ("POST", "/v1/predict/batch", BATCH, {**JSON, "Accept": "application/msgpack", "Accept-Encoding": "gzip"}),
    ("POST", "/v1/predict", ROW, {**JSON, "Accept": "text/html"}),
    ("POST", "/v1/predict", ROW, {"Content-Type": "text/plain"}),
    ("POST", "/v1/predict", b"{", JSON),
    ("POST", "/v1/predict", b'{"age": -1, "sex": "x"}', JSON),
    ("POST", "/v1/predict", json.dumps({**ALLISON, "fare": 999}).encode(), JSON),
    ("POST", "/v1/predict", ROW, {**JSON, "X-Request-Timeout-Ms": "soon"}),
    ("POST", "/v1/predict", ROW, {**JSON, "X-Trial": "perhaps"}),
    ("POST", "/v1/predict", ROW, {**JSON, "Host": "somebody.example"}),
    ("POST", "/v1/predict", ROW, {**JSON, "Host": "not a host"}),
    ("POST", "/v1/predict/", ROW, JSON),
    ("POST", "//v1/predict", ROW, JSON),
    ("POST", "/v1/Predict", ROW, JSON),
    ("GET", "/v1/predict", b"", {}),
    ("HEAD", "/v1/predict", b"", {}),
    ("OPTIONS", "/v1/predict", b"", {"Origin": "https://page.example", "Access-Control-Request-Method": "POST"}),
    ("PUT", "/v1/predict", ROW, JSON),
]


@contextmanager
def serving(bundle: Bundle, direct: bool, **settings: Any) -> Iterator[tuple[Application, TestClient[Any]]]:
    app = make_app(Settings(timeout_seconds=5, **settings), lambda _: Deterministic(bundle))
    if not direct:
        app._app = app.litestar
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield app, client


def said(client: TestClient[Any], request: tuple[str, str, bytes, dict[str, str]]) -> Any:
    method, path, body, headers = request
    answer = client.request(method, path, content=body, headers=headers)
    content: Any = answer.content
    if answer.status_code == 200 and answer.headers["content-type"] == "application/json":
        content = answer.json()
        for one in content.get("predictions", [content]):
            del one["id"]
    elif answer.headers.get("content-type") == "application/msgpack":
        content = None  # The ids in it are compressed.
    # Ids are compressed to one length or another.
    length = {"content-length"} if "content-encoding" in answer.headers else set()
    names = {name: value for name, value in answer.headers.items() if name not in OWN | length}
    return answer.status_code, names, content, OWN & set(answer.headers)


@pytest.mark.parametrize(
    "settings", [{}, {"cors_origins": "https://page.example", "allowed_hosts": "testserver.local"}]
)
def test_answers_are_those_behind_the_routing(tiny_bundle: Bundle, settings: dict[str, Any]) -> None:
    with serving(tiny_bundle, True, **settings) as (_, direct), serving(tiny_bundle, False, **settings) as (_, behind):
        for request in REQUESTS:
            assert said(direct, request) == said(behind, request), request
        lines = [
            sorted(
                line for line in client.get("/metrics").text.splitlines() if COUNTED in line and "/health" not in line
            )
            for client in (direct, behind)
        ]
        assert lines[0] == lines[1]
        assert any('route="/v1/predict",status="200"' in line for line in lines[0])


def test_only_posts_to_the_exact_paths_go_past_the_routing(tiny_bundle: Bundle) -> None:
    with serving(tiny_bundle, True) as (app, client):
        asked: list[str] = []
        litestar = app._app._litestar  # type: ignore[attr-defined]

        async def routing(scope: Any, receive: Any, send: Any) -> None:
            asked.append(scope.get("path", scope["type"]))
            await litestar(scope, receive, send)

        app._app._litestar = routing  # type: ignore[attr-defined]
        for request in REQUESTS:
            said(client, request)
        app._app._litestar = litestar  # type: ignore[attr-defined]
    assert len(asked) == 8
    assert asked.count("/v1/predict") == 5  # Of another method, or with a host that is none.


def test_an_unexpected_error_is_a_logged_500(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise KeyError("a fault of ours")

    with serving(tiny_bundle, True) as (app, client):
        monkeypatch.setattr(app.services.access, "trial", broken)
        answer = client.post("/v1/predict", json=ALLISON)
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "a fault of ours" not in answer.text
