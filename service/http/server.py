"""The HTTP server of one process: uvicorn, bounded and drained, around the application with all that it is made of."""

import contextlib
import faulthandler
import gc
import logging
import math
import signal
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, cast

import uvicorn
from prometheus_client import disable_created_metrics

from models.bundle.bucket import bundle_folder
from models.bundle.precisions import Precision
from models.engines.backend import bound_arenas
from models.logit_cache import LogitCache
from models.predictor import Predictor
from service.app import create_app
from service.http import logs
from service.http.connections import Limits, end_late, let_the_last_in, most_connections, protocol
from service.http.listener import behind_proxies
from service.http.middleware import Surface
from service.inference.batcher import Batcher, PredictorLike
from service.metrics import Metrics
from service.settings import Settings
from service.store.store import make_store

LOGGER = logging.getLogger("evenkeel")
SWEEP_TICKS = 5
"""Of uvicorn's tenths of a second, between two looks for connections whose time is over."""


class Server(uvicorn.Server):
    """uvicorn that turns readiness red and waits before it stops, so that a balancer takes the replica out first.

    Meanwhile clients are told with every answer to come back on another connection, so that none is closed under one.
    """

    def __init__(self, config: uvicorn.Config, batcher: Batcher, limits: Limits, grace_seconds: float):
        super().__init__(config)
        self._batcher, self._limits, self._grace_seconds = batcher, limits, grace_seconds

    @property
    def port(self) -> int:
        """Where it listens, or will."""
        sockets = [one for listener in getattr(self, "servers", []) for one in listener.sockets]
        return int(sockets[0].getsockname()[1]) if sockets else self.config.port

    async def on_tick(self, counter: int) -> bool:
        if counter % SWEEP_TICKS == 0:
            end_late(self.server_state.connections)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await let_the_last_in(one for server in self.servers for one in server.sockets)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._batcher.draining or sig == signal.SIGINT:
            self._stop()
            return
        self._batcher.draining = self._limits.leaving = True
        LOGGER.info("draining for %g s", self._grace_seconds)
        timer = threading.Timer(self._grace_seconds, self._stop)
        timer.daemon = True
        timer.start()

    def _stop(self) -> None:
        self._batcher.draining = True
        self.should_exit = True


def make_server(app: Surface, settings: Settings, kind: type[Server] = Server, **config: Any) -> Server:
    """The server of an application, with the settings' limits. ``config`` goes to uvicorn."""
    limits = Limits(
        settings.read_seconds, settings.idle_seconds, most_connections(settings.max_connections),
        settings.max_body_bytes,
    )  # fmt: skip
    trusted = config.get("forwarded_allow_ips") if config.get("proxy_headers") else None
    turned_away = behind_proxies(trusted, app.turned_away) if trusted else app.turned_away
    made = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_level="error", access_log=False, server_header=False,
        http=protocol(limits, turned_away), timeout_keep_alive=math.ceil(settings.idle_seconds),
        timeout_graceful_shutdown=int(settings.timeout_seconds) + 1, **config,
    )  # fmt: skip
    return kind(made, app.state.batcher, limits, settings.grace_seconds)


def prepare_process(settings: Settings) -> None:
    """What a process does once, before it makes the application: memory, logs, what is told of a crash."""
    bound_arenas()
    logs.configure(settings.log_level, settings.log_format)
    # A library that is out of memory may take the process with it; then it is told at least where.
    with contextlib.suppress(OSError, ValueError):  # Where standard error is no file.
        faulthandler.enable()
    # Few collections: each goes through all that waiting requests hold, and stops them for as long.
    gc.set_threshold(10_000, 10, 100)
    # Twice the series, for timestamps that nothing here reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]


def make_app(
    settings: Settings, on_ready: Callable[[PredictorLike], None], on_failure: Callable[[str], None] = lambda _: None
) -> Surface:
    """The application with the bundle, store and shadow that the settings name. Raises KeysError."""

    def load_any(reference: str, cache: LogitCache) -> Predictor:
        keys = Path(settings.require_signature) if settings.require_signature else None
        folder = bundle_folder(reference, Path(settings.bundles), keys)
        precision = cast(Precision, settings.precision)
        return Predictor.load(folder, cache, settings.target_prevalence, keys, precision=precision)

    def load(metrics: Metrics) -> Predictor:
        return load_any(settings.bundle, LogitCache(settings.cache_rows, metrics.looked_up))

    def load_shadow() -> Predictor:
        assert settings.shadow is not None
        return load_any(settings.shadow, LogitCache(settings.cache_rows))

    app = create_app(
        settings, load, on_ready=on_ready, on_failure=on_failure,
        make_store=lambda *told: make_store(settings, *told), load_shadow=load_shadow if settings.shadow else None,
    )  # fmt: skip
    # What is there now lasts as long as the process; a bundle is no part of it.
    gc.collect()
    gc.freeze()
    return app


def announce(predictor: PredictorLike, url: str) -> None:
    """Log what serves at ``url``, and what an operator may not expect of it."""
    backend, bundle = predictor.backend, predictor.bundle
    if backend.warning:
        LOGGER.warning("%s", backend.warning)
    shift = bundle.record.map.prior_shift
    if shift is not None:
        LOGGER.info("probabilities are for a population of which %g survive, not %.3g", shift.target, shift.training)
    LOGGER.info(
        "ready: %s/v1/model serves %s version %s on %s, BLAS %s at %.0f GFLOP/s, %d threads, kernels by %s, %s "
        "weights",
        url, bundle.name, bundle.version, backend.device, backend.blas, backend.gflops, backend.threads,
        backend.compiler, backend.precision,
    )  # fmt: skip
