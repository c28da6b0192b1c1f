"""At the door: the same refusal as at the queue, nothing of the request read, and nobody else kept out."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from litestar import Litestar

from models.bundle import Bundle
from models.passenger import Passenger
from models.predictor import Prediction, Text
from service.access import Access, Keyring
from service.app import create_app
from service.batcher import Batcher
from service.door import door
from service.errors import QueueFull
from service.keys import new_key, write_keys
from service.settings import Settings
from tests.service.serving import Served, serving
from tests.service.test_app import ALLISON, Deterministic
from tests.service.test_batcher import Echo, running

QUEUE_ROWS = 40


class Slow(Deterministic):
    """A hundredth of a second for a row."""

    def predict(self, passengers: Sequence[Passenger], texts: Sequence[Text] | None = None) -> list[Prediction]:
        self.seconds = 0.01 * len(passengers)
        return super().predict(passengers, texts)


def client(served: Served, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{served.port}",
        headers=headers,
        timeout=20,
        limits=httpx.Limits(max_connections=None),
    )


async def filled(app: Litestar, one: httpx.AsyncClient, rows: int) -> list["asyncio.Task[httpx.Response]"]:
    """Requests of one row each that wait, so many."""
    tasks = [asyncio.create_task(one.post("/v1/predict", json=ALLISON)) for _ in range(rows)]
    while app.state.batcher._queue.rows < rows - 8:
        await asyncio.sleep(0.01)
    return tasks


def test_a_refusal_at_the_door_is_that_of_the_queue_and_nothing_is_read(tiny_bundle: Bundle) -> None:
    async def scenario(app: Litestar, served: Served) -> None:
        async with client(served) as one:
            predictor.hold.clear()
            waiting = await filled(app, one, QUEUE_ROWS + 8)
            # Not JSON, which nobody finds out.
            refused = await one.post("/v1/predict/batch", content=b"{", headers={"X-Request-ID": "mine"})
            app.state.batcher._max_batch_rows = 10**6  # Nothing is crowded now, and the queue as full as before.
            beside = await one.post("/v1/predict", json=ALLISON)
            app.state.batcher._max_batch_rows = 8
            assert refused.status_code == beside.status_code == 429
            assert refused.json() == beside.json()
            assert refused.headers["X-Request-ID"] == "mine"
            own = {"x-request-id", "traceparent", "date"}
            assert {k: v for k, v in refused.headers.items() if k not in own} == {
                k: v for k, v in beside.headers.items() if k not in own
            }
            # Whoever could not be answered anyhow is told that.
            bad = await one.post("/v1/predict", json=ALLISON, headers={"X-Request-Timeout-Ms": "soon"})
            assert (bad.status_code, (await one.get("/v1/predict")).status_code) == (400, 405)
            assert (await one.get("/health/ready")).status_code == 200
            counted = (await one.get("/metrics")).text
            assert 'http_requests_total{method="POST",route="/v1/predict/batch",status="429"} 1.0' in counted
            predictor.hold.set()
            # A batch of one row may have begun before the others came.
            statuses = [(await task).status_code for task in waiting]
            assert set(statuses) <= {200, 429}
            assert statuses.count(200) >= QUEUE_ROWS

    predictor = Slow(tiny_bundle)
    app = create_app(Settings(max_queue_rows=QUEUE_ROWS, max_batch_rows=8), lambda _: predictor)
    with serving(app) as served:
        asyncio.run(scenario(app, served))


def asked(key: str | None = None, path: str = "/v1/predict", wait_ms: int | None = 1500, **changes: Any) -> Any:
    headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
    headers += [(b"x-request-timeout-ms", str(wait_ms).encode())] if wait_ms is not None else []
    state = {"exchange": SimpleNamespace(key=None)}
    return {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": headers,
        "state": state,
        "client": None,
        **changes,
    }


def test_a_client_that_floods_shuts_the_door_on_nobody_else(tmp_path: Path) -> None:
    made = {name: new_key(name, ["predict"]) for name in ("flood", "calm")}
    keys = {name: key for name, (key, _) in made.items()}
    write_keys(tmp_path / "keys.json", [entry for _, entry in made.values()])

    async def scenario(batcher: Batcher, echo: Echo) -> None:
        refuses = door(batcher, Access(Keyring(tmp_path / "keys.json"), frozenset()), 30.0)
        for _ in range(10):  # The batcher learns what a row takes: at least a hundredth of a second.
            await batcher.predict([Passenger(pclass=1, sex="male")], 30)
        assert refuses(asked(keys["flood"])) is None
        echo.hold.clear()
        tasks = [asyncio.create_task(batcher.predict([Passenger(pclass=1, sex="male")], 30, "flood"))
                 for _ in range(200)]  # fmt: skip
        await asyncio.sleep(0.05)
        flooding = asked(keys["flood"])
        assert isinstance(refuses(flooding), QueueFull)
        assert flooding["state"]["exchange"].key == "flood"
        assert refuses(asked(keys["calm"])) is None
        # Whoever has no key, or asks for something else, or badly, learns elsewhere what is wrong.
        assert refuses(asked("ek_01234567_unknown")) is None
        assert refuses(asked(keys["flood"], "/v1/outcomes")) is None
        assert refuses(asked(keys["flood"], method="GET")) is None
        assert refuses(asked(keys["flood"], wait_ms=-1)) is None
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        echo.hold.set()

    echo = Echo(seconds=0.01)
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))
