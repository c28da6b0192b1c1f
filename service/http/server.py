"""The HTTP server of one process: uvicorn, bounded and drained."""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any, Protocol

import uvicorn

from service.http.connections import (
    ConnectionLimits,
    begin_no_handshake,
    connection_protocol,
    max_connections,
    reap_expired,
)
from service.http.listener import behind_proxies
from service.http.middleware import RequestMiddleware
from service.settings import Settings

LOGGER = logging.getLogger("evenkeel")
REAP_TICKS = 5
"""Of uvicorn's tenths of a second, between two looks for connections whose time is over."""

HANDSHAKE_SECONDS = 0.05
"""For handshakes that were begun to come to their end, before the listening sockets close."""


class Drainable(Protocol):
    """What turns readiness red."""

    draining: bool


class Server(uvicorn.Server):
    """uvicorn that turns readiness red and waits before it stops, so that a balancer takes the replica out first.

    Meanwhile every answer asks its client to come back on another connection, so that none is closed under one.
    """

    def __init__(self, config: uvicorn.Config, state: Drainable, limits: ConnectionLimits, grace_seconds: float):
        super().__init__(config)
        self._state, self._limits, self._grace_seconds = state, limits, grace_seconds
        self._stop_at, self._drain_begins = math.inf, False

    @property
    def port(self) -> int:
        """Where it listens, or will."""
        sockets = self._listening()
        return int(sockets[0].getsockname()[1]) if sockets else self.config.port

    def _listening(self) -> list[Any]:
        """The sockets that it listens on; none before it does."""
        return [listening for server in getattr(self, "servers", []) for listening in server.sockets]

    async def on_tick(self, counter: int) -> bool:
        if counter % REAP_TICKS == 0:
            reap_expired(self.server_state.connections)
        if self._drain_begins:
            self._drain_begins = False
            LOGGER.info("draining for %g s", self._grace_seconds)
        return await super().on_tick(counter) or time.monotonic() >= self._stop_at

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # To close a listening socket resets the connections that wait in it, perhaps with a request sent.
        self._limits.draining = True
        for listening in self._listening():
            begin_no_handshake(listening)
        await asyncio.sleep(HANDSHAKE_SECONDS)
        accepted = [asyncio.create_task(self._serve_last(connection)) for connection in self._accept_waiting()]
        await super().shutdown(sockets)
        for task in accepted:
            task.cancel()

    def _accept_waiting(self) -> Iterator[socket.socket]:
        """What waits at the listening sockets in this moment; the event loop would look only after they are closed."""
        for listening in self._listening():
            with socket.socket(fileno=os.dup(listening.fileno())) as own, contextlib.suppress(OSError):
                own.setblocking(False)
                while True:
                    yield own.accept()[0]

    async def _serve_last(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        make: Any = self.config.http_protocol_class
        _, protocol = await asyncio.get_running_loop().connect_accepted_socket(
            lambda: make(config=self.config, server_state=self.server_state, app_state=self.lifespan.state),
            connection, ssl=self.config.ssl,
        )  # fmt: skip
        protocol.shutdown()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called between any two steps of the main thread, which may hold a lock: of a log's queue, or of threads that
        start. So it takes none; `on_tick` does the rest."""
        self._drain_begins = not self._state.draining and sig != signal.SIGINT
        self._stop_at = time.monotonic() + (self._grace_seconds if self._drain_begins else 0)
        self._state.draining = self._limits.draining = True


def make_server(
    app: RequestMiddleware, state: Drainable, settings: Settings, kind: type[Server] = Server, **config: Any
) -> Server:
    """The server of an application, with the settings' limits. ``config`` goes to uvicorn."""
    limits = ConnectionLimits(
        settings.read_seconds, settings.idle_seconds, max_connections(settings.max_connections),
        settings.max_body_bytes,
    )  # fmt: skip
    trusted = config.get("forwarded_allow_ips") if config.get("proxy_headers") else None
    reject_early = behind_proxies(trusted, app.reject_early) if trusted else app.reject_early
    # Without a log configuration of its own, uvicorn's lines take the form of ours.
    made = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_config=None, log_level="error", access_log=False,
        server_header=False, http=connection_protocol(limits, reject_early),
        timeout_keep_alive=math.ceil(settings.idle_seconds),
        timeout_graceful_shutdown=int(settings.timeout_seconds) + 1, **config,
    )  # fmt: skip
    return kind(made, state, limits, settings.grace_seconds)
