"""python -m service: serve a bundle; score a file; import outcomes; export predictions; keep API keys."""

import os
import sys
from collections.abc import Sequence
from typing import Any

from service.assembly import announce, make_app, prepare_process
from service.http import keys, listener, logs
from service.http.keys import KeysError
from service.http.server import Server, make_server
from service.inference.inference_thread import PredictorLike
from service.scoring import command as score
from service.settings import Settings, SettingsError, read_settings
from service.store import export
from service.store import import_outcomes as outcomes

COMMANDS = {"score": score.main, "outcomes": outcomes.main, "export": export.main, "keys": keys.main}


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal, or run the command that is named; 0 done, 1 failed, 2 wrong use."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        return COMMANDS[arguments[0]](arguments[1:])
    try:
        settings = listener.checked(read_settings(os.environ, arguments))
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


if __name__ == "__main__":
    code = main()
    logs.finish()
    # MLX may abort the process when its statics are destroyed after a second thread used it (mlx#2809), and all is
    # written and answered by now.
    os._exit(code)
