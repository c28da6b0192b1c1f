"""python -m service: serve a bundle; score a file; import outcomes; export predictions; keep API keys."""

import contextlib
import faulthandler
import logging
import math
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from types import FrameType
from typing import Any, cast

import uvicorn
from prometheus_client import disable_created_metrics

from models.backend import bound_arenas
from models.cache import LogitCache
from models.precision import Precision
from models.predictor import Predictor
from service import export, keys, listening, logs, outcomes, score
from service.app import create_app
from service.batcher import Batcher, PredictorLike
from service.connections import Limits, end_late, let_the_last_in, most_connections, protocol
from service.keys import KeysError
from service.metrics import Metrics
from service.settings import Settings, SettingsError, read_settings
from service.store import make_store

LOGGER = logging.getLogger("evenkeel")
SWEEP_TICKS = 5
"""Of uvicorn's tenths of a second, between two looks for connections whose time is over."""

COMMANDS = {"score": score.main, "outcomes": outcomes.main, "export": export.main, "keys": keys.main}


class Server(uvicorn.Server):
    """uvicorn that turns readiness red and waits before it stops, so that a balancer takes the replica out first.

    Meanwhile clients are told with every answer to come back on another connection, so that none is closed under one.
    """

    def __init__(self, config: uvicorn.Config, batcher: Batcher, limits: Limits, grace_seconds: float):
        super().__init__(config)
        self._batcher, self._limits, self._grace_seconds = batcher, limits, grace_seconds

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal, or run the command that is named; 0 done, 1 failed, 2 wrong use."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    try:
        settings = listening.checked(read_settings(os.environ, arguments))
        tls = listening.tls(settings)
    except SettingsError as error:
        print(f"service: {error}", file=sys.stderr)
        return 2
    bound_arenas()
    logs.configure(settings.log_level, settings.log_format)
    # A library that is out of memory may take the process with it; then it is told at least where.
    with contextlib.suppress(OSError, ValueError):  # Where standard error is no file.
        faulthandler.enable()
    # Twice the series, for timestamps that nothing here reads.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    try:
        return _serve(settings, tls)
    except KeysError as error:
        print(f"service: {error}", file=sys.stderr)
        return 2


def _serve(settings: Settings, tls: dict[str, Any]) -> int:
    failures: list[str] = []
    servers: list[Server] = []

    def ready(predictor: PredictorLike) -> None:
        backend, bundle = predictor.backend, predictor.bundle
        if backend.warning:
            LOGGER.warning("%s", backend.warning)
        shift = bundle.record.map.prior_shift
        if shift is not None:
            LOGGER.info(
                "probabilities are for a population of which %g survive, not %.3g", shift.target, shift.training
            )
        LOGGER.info(
            "ready: %s://%s:%d/v1/model serves %s version %s on %s, BLAS %s at %.0f GFLOP/s, %d threads, "
            "kernels by %s, %s weights",
            "https" if tls else "http", settings.host, _port(servers[0]), bundle.name, bundle.version, backend.device,
            backend.blas, backend.gflops, backend.threads, backend.compiler, backend.precision,
        )  # fmt: skip

    def failed(reason: str) -> None:
        failures.append(reason)
        servers[0].should_exit = True

    def load(metrics: Metrics) -> Predictor:
        return load_folder(settings.bundle, LogitCache(settings.cache_rows, metrics.looked_up))

    def load_folder(folder: str, cache: LogitCache) -> Predictor:
        precision = cast(Precision, settings.precision)
        return Predictor.load(folder, cache, settings.target_prevalence, settings.require_signature, precision)

    def load_shadow() -> Predictor:
        assert settings.shadow is not None
        return load_folder(settings.shadow, LogitCache(settings.cache_rows))

    app = create_app(
        settings, load, on_ready=ready, on_failure=failed, make_store=lambda *told: make_store(settings, *told),
        load_shadow=load_shadow if settings.shadow else None,
    )  # fmt: skip
    limits = Limits(
        settings.read_seconds, settings.idle_seconds, most_connections(settings.max_connections),
        settings.max_body_bytes,
    )  # fmt: skip
    config = uvicorn.Config(
        app, host=settings.host, port=settings.port, log_level="error", access_log=False, server_header=False,
        http=protocol(limits), timeout_keep_alive=math.ceil(settings.idle_seconds),
        timeout_graceful_shutdown=int(settings.timeout_seconds) + 1, **tls,
    )  # fmt: skip
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one.
        print(f"service: the TLS certificate, key or authorities cannot be used: {error}", file=sys.stderr)
        return 2
    listening.warn(settings)
    servers.append(Server(config, app.state.batcher, limits, settings.grace_seconds))
    try:
        servers[0].run()
    except SystemExit:
        # uvicorn has logged why: most often the port is taken.
        return 1
    if failures:
        print(f"service: {failures[0]}", file=sys.stderr)
    return 1 if failures else 0


def _port(server: Server) -> int:
    sockets = [one for listener in getattr(server, "servers", []) for one in listener.sockets]
    return int(sockets[0].getsockname()[1]) if sockets else server.config.port


if __name__ == "__main__":
    code = main()
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # MLX may abort the process when its statics are destroyed after a second thread used it (mlx#2809), and all is
    # written and answered by now.
    os._exit(code)
