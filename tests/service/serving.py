"""Applications around a predictor of the test's, a real server in a thread, and a client that speaks both ways."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import uvicorn
from litestar.testing import TestClient
from prometheus_client import CollectorRegistry

from models.engines.logit_cache import LogitCache
from service.app import Application, create_app
from service.assembly import make_services
from service.inference.inference_thread import PredictorLike
from service.settings import NO_STORE, Settings

SHADOW = "shadow"


def make_app(
    settings: Settings, load: Callable[[Any], PredictorLike], *, load_shadow: Callable[[], PredictorLike] | None = None,
    registry: CollectorRegistry | None = None,
) -> Application:  # fmt: skip
    """An application over the predictor that ``load`` gives for any bundle. It has the store that ``settings`` name, if
    that is not the user's own."""

    def load_any(reference: str, _: LogitCache) -> PredictorLike:
        return load_shadow() if load_shadow is not None and reference == SHADOW else load(reference)

    store = NO_STORE if settings.store == Settings().store else settings.store
    settings = msgspec.structs.replace(settings, store=store, shadow=SHADOW if load_shadow else None)
    return create_app(make_services(settings, load_any, registry))


class ApplicationClient(TestClient[Any]):
    """A client that knows what its application is made of."""

    def __init__(self, application: Application, **options: Any):
        super().__init__(application, **options)
        self.application = application


class Served:
    """Where it listens, and what runs on its event loop."""

    def __init__(self, app: Application, http: Any = "auto", **settings: Any):
        config = uvicorn.Config(
            app,
            port=0,
            log_level="critical",
            http=http,
            timeout_graceful_shutdown=5,
            **settings,  # type: ignore[arg-type]
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self.app = app

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        await self.server.serve()

    @property
    def port(self) -> int:
        return int(self.server.servers[0].sockets[0].getsockname()[1])

    def tasks(self) -> list[str]:
        """The coroutines of streams that run."""

        async def names() -> list[str]:
            found = (getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks())
            return [name for name in found if name.startswith("Stream.")]

        return asyncio.run_coroutine_threadsafe(names(), self.loop).result(5)


@contextmanager
def serving(app: Application, http: Any = "auto", **settings: Any) -> Iterator[Served]:
    """Serve until the block ends, with uvicorn's ``settings``; the model is loaded when it begins."""
    served = Served(app, http, **settings)
    served.thread.start()
    for _ in range(1000):
        if served.server.started and (app.services.batcher.ready or app.services.batcher.failure):
            break
        time.sleep(0.005)
    try:
        yield served
    finally:
        served.server.should_exit = True
        served.thread.join(20)
        assert not served.thread.is_alive()


class Talk:
    """One streaming request over a bare socket; sends and reads as the test tells it to."""

    def __init__(self, port: int, path: str = "/v1/predict/stream", timeout: float = 20, **headers: str):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        sent = {"Host": "localhost", "Content-Type": "application/x-ndjson", "Transfer-Encoding": "chunked"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
        self.socket.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode())
        self._file = self.socket.makefile("rb")
        self._rest = b""
        self.ended = False

    def send(self, body: bytes) -> None:
        self.socket.sendall(b"%x\r\n%s\r\n" % (len(body), body))

    def end(self) -> None:
        self.socket.sendall(b"0\r\n\r\n")

    def head(self) -> tuple[int, dict[str, str]]:
        status = int(self._file.readline().split()[1])
        headers = {}
        while (line := self._file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def line(self) -> Any:
        """The next line of the response; None at its end, and after a cut with ``ended`` False."""
        while b"\n" not in self._rest:
            size = self._file.readline()
            if not size or int(size, 16) == 0:
                self.ended = bool(size)
                return None
            self._rest += self._file.read(int(size, 16))
            self._file.readline()
        line, _, self._rest = self._rest.partition(b"\n")
        return json.loads(line)

    def lines(self) -> list[Any]:
        """All that are left."""
        found = []
        while (line := self.line()) is not None:
            found.append(line)
        return found

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def __enter__(self) -> "Talk":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
