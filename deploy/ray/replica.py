"""One replica of Ray Serve: the service's own application, with a folder and a port of its own."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import msgspec

from deploy.ray.slot import ReplicaSlot
from service.assembly import announce, make_app, prepare_process
from service.http import listener
from service.http.server import Server, make_server
from service.settings import Settings

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

LOOK_SECONDS = 0.05
EVENTS = "/v1/drift/events"
EVENTS_SECONDS = 10.0
"""Ray Serve lets a replica end when its requests have ended, and does not say before that it shall. So a stream
that would go on for ever ends after this; who follows it comes back by itself, perhaps to another replica."""
END: Message = {"type": "http.response.body", "body": b"", "more_body": False}


class OwnServer(Server):
    """Without signals: they are Ray's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Replica:
    """An ASGI application. Ray Serve's proxy asks it, and whoever wants this replica and no other asks its own port:
    Prometheus, which scrapes it, and a balancer that goes past the proxy."""

    def __init__(self, settings: Settings):
        """``settings.host`` is this machine's address in the cluster. Raises OSError, KeysError."""
        prepare_process(settings)
        beside = Path(settings.bundle).parent / "state"
        self._slot = ReplicaSlot((Path(settings.state) if settings.state else beside) / "replicas")
        if settings.state != "":
            settings = msgspec.structs.replace(settings, state=str(self._slot.folder))
        self._host = settings.host
        port = settings.port + self._slot.number if settings.port else 0
        self._listener = socket.create_server((settings.host, port))
        self._port = int(self._listener.getsockname()[1])
        self._app = make_app(settings, lambda predictor: announce(predictor, f"http://{self._host}:{self._port}"))
        self._batcher = self._app.services.batcher
        proxies = listener.proxies(settings)
        self._server = make_server(self._app, self._batcher, settings, OwnServer, lifespan="off", **proxies)
        self._serving: asyncio.Task[None] | None = None

    @property
    def lost(self) -> str | None:
        """Why only a restart would help, if that is so."""
        return (self._batcher.failure or "inference is lost") if self._batcher.lost else None

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(scope, receive, send)
        elif scope.get("path") == EVENTS:
            await self._bounded_stream(scope, receive, _without_id(send))
        else:
            await self._app(scope, receive, _without_id(send))

    async def _lifespan(self, scope: Message, receive: Receive, send: Send) -> None:
        """Begun is when the model is loaded: Ray Serve sends requests from then on, and stops old replicas."""

        async def shut_down() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._close()
            return message

        async def start_up(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                message = await self._open(message)
            await send(message)

        try:
            await self._app(scope, shut_down, start_up)
        finally:
            self._listener.close()
            self._slot.release()

    async def _open(self, complete: Message) -> Message:
        while not self._batcher.ready and self._batcher.failure is None:
            await asyncio.sleep(LOOK_SECONDS)
        if self._batcher.failure is not None:
            return {"type": "lifespan.startup.failed", "message": self._batcher.failure}
        self._serving = asyncio.create_task(self._server.serve([self._listener]))
        self._slot.publish(self._host, self._port)
        return complete

    async def _close(self) -> None:
        # As at the service's own SIGTERM: red, a while for a balancer to notice, all answered. Streams end at this.
        self._server.handle_exit(signal.SIGTERM, None)
        if self._serving is not None:
            await self._serving

    async def _bounded_stream(self, scope: Message, receive: Receive, send: Send) -> None:
        answer = asyncio.ensure_future(self._app(scope, receive, send))
        try:
            done, _ = await asyncio.wait({answer}, timeout=EVENTS_SECONDS)
        finally:
            answer.cancel()
        if done:
            await answer
            return
        with contextlib.suppress(asyncio.CancelledError):
            await answer
        await send(END)


def _without_id(send: Send) -> Send:
    """Ray Serve's proxy gives each request its X-Request-ID, which the application takes, and answers with it."""

    async def sent(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name, value) for name, value in message["headers"] if bytes(name).lower() != b"x-request-id"]
            message = {**message, "headers": headers}
        await send(message)

    return sent
