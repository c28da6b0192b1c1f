"""Serve a bundle until a signal."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from service.assembly import announce, make_app, prepare_process
from service.config_file import format_config
from service.http import listener
from service.http.keys import KeysError
from service.http.server import Server, make_server
from service.inference.inference_thread import PredictorLike
from service.settings import Settings, SettingsError, with_origins


def serve(flags: Sequence[str]) -> int:
    """0 stopped by a signal, 1 failed, 2 wrong use."""
    try:
        settings, origins, only_print = with_origins(os.environ, flags)
        if only_print:
            print(format_config(msgspec.structs.asdict(settings), origins), end="")
            return 0
        settings = listener.checked(settings)
        tls, proxies = listener.tls(settings), listener.proxies(settings)
    except SettingsError as error:
        print(f"service: {error}", file=sys.stderr)
        return 2
    prepare_process(settings)
    try:
        return _serve(settings, tls, proxies)
    except KeysError as error:
        print(f"service: {error}", file=sys.stderr)
        return 2


def _serve(settings: Settings, tls: dict[str, Any], proxies: dict[str, Any]) -> int:
    failures: list[str] = []
    servers: list[Server] = []

    def ready(predictor: PredictorLike) -> None:
        announce(predictor, f"{'https' if tls else 'http'}://{settings.host}:{servers[0].port}")

    def failed(reason: str) -> None:
        failures.append(reason)
        servers[0].should_exit = True

    app = make_app(settings, ready, failed)
    server = make_server(app, app.services.batcher, settings, **tls, **proxies)
    try:
        server.config.load()
    except OSError as error:  # ssl.SSLError is one.
        print(f"service: the TLS certificate, key or authorities cannot be used: {error}", file=sys.stderr)
        return 2
    listener.warn(settings)
    servers.append(server)
    try:
        server.run()
    except SystemExit:
        # uvicorn has logged why: most often the port is taken.
        return 1
    if failures:
        print(f"service: {failures[0]}", file=sys.stderr)
    return 1 if failures else 0
