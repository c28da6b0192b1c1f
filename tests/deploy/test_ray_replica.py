"""What a replica of Ray Serve is made of, without Ray: its place, its arguments, its life."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.ray import replica as module
from deploy.ray.arguments import as_flags, replica_settings
from deploy.ray.replica import EVENTS, Replica
from deploy.ray.slot import ReplicaSlot
from models.bundle.read import Bundle
from service.app import Application
from service.settings import Settings, SettingsError
from tests.conftest import ROOT
from tests.deploy.programs import check, need
from tests.service.inference.test_batcher import Echo
from tests.service.serving import make_app

HOLD = "import sys; from pathlib import Path; from deploy.ray.slot import ReplicaSlot\n"
HOLD += (
    "p = ReplicaSlot(Path(sys.argv[1])); p.publish('127.0.0.1', 1); print(p.folder.name, flush=True); sys.stdin.read()"
)


def test_a_slot_is_held_by_one_and_passes_to_the_next_when_its_holder_is_killed(tmp_path: Path) -> None:
    first = ReplicaSlot(tmp_path)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    assert (first.folder.name, holder.stdout.readline().strip()) == ("0", "1")
    third = ReplicaSlot(tmp_path)
    assert third.folder.name == "2"
    holder.kill()
    holder.communicate()
    # What the killed one had said is written over by its successor, and taken back when that one leaves.
    assert (tmp_path / "1.json").exists()
    second = ReplicaSlot(tmp_path)
    assert second.folder.name == "1"
    second.publish("127.0.0.1", 2)
    published = json.loads((tmp_path / "1.json").read_text())
    assert published == [{"targets": ["127.0.0.1:2"], "labels": {"instance": "127.0.0.1/1"}}]
    for one in (first, second, third):
        one.release()
    assert list(tmp_path.glob("*.json")) == []


def test_promtool_accepts_the_configuration() -> None:
    check(need("promtool"), "check", "config", ROOT / "deploy" / "ray" / "prometheus.yml")


def test_arguments_are_settings_by_name_and_others_are_refused() -> None:
    flags = as_flags({"cache_rows": 5, "insecure": True, "state": "", "store": "none"})
    assert flags == ["--cache-rows=5", "--insecure=true", "--state=", "--store=none"]
    settings = replica_settings(flags, {"EVENKEEL_CACHE_ROWS": "7", "EVENKEEL_PORT": "1"}, "127.0.0.1")
    assert (settings.cache_rows, settings.insecure, settings.state, settings.port) == (5, True, "", 0)
    assert replica_settings(as_flags({"port": 30_000}), {"EVENKEEL_PORT": "1"}, "127.0.0.1").port == 30_000
    for name, reason in (
        ("tls_key", "http_options"),
        ("cash_rows", "not a setting"),
    ):
        with pytest.raises(SettingsError, match=f"^{name} .*{reason}"):
            as_flags({name: "1"})
    with pytest.raises(SettingsError, match="cache_rows"):
        replica_settings(as_flags({"cache_rows": -1}), {}, "127.0.0.1")


def test_where_other_machines_reach_a_replica_it_needs_keys() -> None:
    with pytest.raises(SettingsError, match=r"192\.0\.2\.1 is reached from other machines, and without keys"):
        replica_settings([], {}, "192.0.2.1")
    assert replica_settings(["--keys=keys.json"], {}, "192.0.2.1").keys == "keys.json"


class Loader:
    """In the place of `make_app`: the application with an echo for its model, or with a bundle that is no good."""

    def __init__(self, bundle: Bundle, fails: bool = False):
        self._bundle, self._fails = bundle, fails

    def __call__(self, settings: Settings, on_ready: Callable[[Any], None]) -> Application:
        self.settings = settings
        return make_app(settings, lambda _: self._load())

    def _load(self) -> Echo:
        if self._fails:
            raise ValueError("model.safetensors was changed")
        return Echo(self._bundle)


@asynccontextmanager
async def living(replica: Replica) -> AsyncIterator[dict[str, Any]]:
    """Its life by the ASGI protocol, as Ray Serve leads it; what startup was answered with."""
    said: asyncio.Queue[Any] = asyncio.Queue()
    asked: asyncio.Queue[Any] = asyncio.Queue()
    asked.put_nowait({"type": "lifespan.startup"})
    life = asyncio.create_task(replica({"type": "lifespan", "asgi": {"version": "3.0"}}, asked.get, said.put))
    yield await asyncio.wait_for(said.get(), 20)
    asked.put_nowait({"type": "lifespan.shutdown"})
    await asyncio.wait_for(life, 30)


@pytest.fixture
def loader(tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> Loader:
    made = Loader(tiny_bundle)
    monkeypatch.setattr(module, "prepare_process", lambda _: None)
    monkeypatch.setattr(module, "make_app", made)
    return made


def settings(folder: Path) -> Settings:
    return replica_settings([f"--state={folder}", "--store=none"], {}, "127.0.0.1")


def test_a_replica_begins_with_its_model_and_is_asked_by_the_proxy_and_at_its_own_port(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVENTS_SECONDS", 0.5)
    target = tmp_path / "replicas" / "0.json"

    async def life() -> None:
        replica = Replica(settings(tmp_path))
        assert loader.settings.state == str(tmp_path / "replicas" / "0")
        assert not target.exists()
        async with living(replica) as begun:
            assert begun["type"] == "lifespan.startup.complete"
            address = json.loads(target.read_text())[0]["targets"][0]
            async with httpx.AsyncClient(base_url=f"http://{address}") as own:
                assert (await own.get("/health/ready")).status_code == 200
                assert "evenkeel_predictions_total" in (await own.get("/metrics")).text
                assert "X-Request-ID" in (await own.get("/v1/drift")).headers
            # Of the proxy: the id is the proxy's to send.
            transport = httpx.ASGITransport(replica)  # type: ignore[arg-type]
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                answer = await client.get("/v1/drift", headers={"X-Request-ID": "mine"})
                assert answer.status_code == 200
                assert "X-Request-ID" not in answer.headers
                events = await asyncio.wait_for(client.get(EVENTS), 10)
            assert events.text.count("event: drift") == 1
            assert replica.lost is None
        assert not target.exists()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"http://{address}/health/live")

    asyncio.run(life())


def test_a_replica_whose_bundle_is_no_good_does_not_begin(
    loader: Loader, tiny_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "make_app", Loader(tiny_bundle, fails=True))

    async def life() -> None:
        async with living(Replica(settings(tmp_path))) as begun:
            assert begun == {"type": "lifespan.startup.failed", "message": "model.safetensors was changed"}

    asyncio.run(life())
    assert list(tmp_path.glob("replicas/*.json")) == []
