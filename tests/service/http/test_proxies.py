"""Whose word is taken on where a request came from, and what a client gains that names itself: nothing."""

import asyncio
from typing import Any

import httpx
import pytest
import uvicorn

import service.__main__
import service.serve
from models.bundle.read import Bundle
from service.http import listener
from service.settings import Settings, SettingsError, read_settings
from tests.service.inference.test_batcher import wait_until
from tests.service.serving import make_app, serving
from tests.service.test_app import Deterministic

BATCH_ROWS = 8
GREEDY, MODEST = 111.0, 222.0


def seen(trusted: str, peer: str, *forwarded: str) -> str:
    """The client's address as the application has it, of a request of ``peer`` with these X-Forwarded-For."""
    found: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found.append(scope["client"][0])

    config = uvicorn.Config(app, log_config=None, **listener.proxies(Settings(trusted_proxies=trusted)))
    config.load()
    headers = [(b"x-forwarded-for", one.encode()) for one in forwarded]
    scope: Any = {"type": "http", "scheme": "http", "client": (peer, 1), "headers": headers}
    unused: Any = None
    asyncio.run(config.loaded_app({**scope}, unused, unused))
    if config.proxy_headers:
        # Early rejection sees the same client.
        listener.behind_proxies(config.forwarded_allow_ips, lambda scope: found.append(scope["client"][0]))(scope)
        assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("environment", [{}, {"FORWARDED_ALLOW_IPS": "*"}])
def test_by_default_nobody_is_believed(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for peer in ("127.0.0.1", "::1", "192.0.2.9"):
        assert seen("", peer, "198.51.100.7") == peer


@pytest.mark.parametrize("trusted", ["10.0.0.5", "10.0.0.0/24", "192.0.2.1, 10.0.0.5,", "::1,10.0.0.4/30"])
def test_a_proxy_that_is_trusted_is(trusted: str) -> None:
    assert seen(trusted, "10.0.0.5", "198.51.100.7") == "198.51.100.7"
    assert seen(trusted, "10.0.0.5") == "10.0.0.5"
    assert seen(trusted, "127.0.0.1", "198.51.100.7") == "127.0.0.1"
    # What stands before the last address that no trusted proxy has was written by the client.
    assert seen(trusted, "10.0.0.5", "203.0.113.1, 198.51.100.7, 10.0.0.5") == "198.51.100.7"
    assert seen(trusted, "10.0.0.5", "203.0.113.1", "198.51.100.7") == "198.51.100.7"


@pytest.mark.parametrize(
    "trusted", ["*", "localhost", "10.0.0.5:80", "10.0.0.5/24", "10.0.0.0/33", "0.0.0.0/0", "::/0", "10.0.0.5;::1"]
)
def test_what_is_no_address_or_everybody_is_refused(trusted: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies names"):
        listener.proxies(read_settings({}, ["--trusted-proxies", trusted]))
    assert service.__main__.main(["--port", "0", "--trusted-proxies", trusted]) == 2
    assert "trusted_proxies names" in capsys.readouterr().err


@pytest.mark.parametrize("trusted", ["", "10.0.0.5"])
def test_the_command_takes_its_server_s_word_from_the_setting(trusted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # All but the server itself is for the whole process, which here is the tests'.
    monkeypatch.setattr(service.serve, "prepare_process", lambda _: None)
    configs: list[uvicorn.Config] = []
    monkeypatch.setattr(service.serve.Server, "run", lambda server: configs.append(server.config))
    assert service.__main__.main(["--port", "0", "--store", "none", "--trusted-proxies", trusted]) == 0
    assert configs[0].proxy_headers is bool(trusted)
    assert configs[0].forwarded_allow_ips == ([trusted] if trusted else [])


class Noting(Deterministic):
    """Keeps the fares of each batch."""

    def __init__(self, bundle: Bundle):
        super().__init__(bundle)
        self.fares: list[list[float | None]] = []

    def predict_checked(self, rows: Any, encoded: Any = None, stages: object = None) -> Any:
        self.fares.append([one.fare for one in rows])
        return super().predict_checked(rows, encoded)


async def crowd(port: int, predictor: Noting) -> None:
    """While a batch is held: many requests from one address, each with another name, then one from another address."""
    url = f"http://127.0.0.1:{port}/v1/predict"

    def client(address: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(local_address=address, limits=httpx.Limits(max_connections=100)),
            timeout=30,
        )

    def body(fare: float) -> dict[str, object]:
        return {"pclass": 3, "sex": "male", "fare": fare}

    async with client("127.0.0.1") as greedy, client("127.0.0.2") as modest:
        predictor.hold.clear()
        held = [asyncio.create_task(greedy.post(url, json=body(0)))]
        while not predictor.fares:
            await asyncio.sleep(0.01)
        for place in range(5 * BATCH_ROWS):
            named = {"X-Forwarded-For": f"198.51.100.{place}"}
            held.append(asyncio.create_task(greedy.post(url, json=body(GREEDY), headers=named)))
        await asyncio.sleep(1.0)
        held.append(asyncio.create_task(modest.post(url, json=body(MODEST))))
        await asyncio.sleep(0.5)
        predictor.hold.set()
        assert {(await one).status_code for one in held} == {200}


@pytest.mark.parametrize(("trusted", "turn"), [("", 2), ("127.0.0.1", 5)])
def test_a_client_that_gives_itself_many_names_has_one_turn(tiny_bundle: Bundle, trusted: str, turn: int) -> None:
    predictor = Noting(tiny_bundle)
    settings = Settings(store="none", state="", max_batch_rows=BATCH_ROWS, trusted_proxies=trusted)
    with serving(make_app(settings, lambda _: predictor), **listener.proxies(settings)) as served:
        wait_until(lambda: served.app.services.batcher.ready)
        asyncio.run(crowd(served.port, predictor))
    batch = next(place for place, fares in enumerate(predictor.fares) if MODEST in fares)
    # The first is the one that was held. Believed, each name has a turn, and the modest one waits for all of them.
    assert batch <= turn if not trusted else batch >= turn
