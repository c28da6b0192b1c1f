"""python -m service: serve a bundle; score a file; import outcomes; export predictions; keep API keys."""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = {
    "score": "service.scoring.command", "outcomes": "service.store.import_outcomes", "export": "service.store.export",
    "keys": "service.http.keys",
}  # fmt: skip
"""Command → the module whose ``main`` it is. What serves takes a second to load, and a signal may come meanwhile."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal, or run the command that is named; 0 done, 1 failed, 2 wrong use."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in COMMANDS:
        code: int = import_module(COMMANDS[arguments[0]]).main(arguments[1:])
        return code
    from service.serve import serve

    return serve(arguments)


def expect_signals() -> None:
    """Until the server sees to them: a stop ends the process, as it does later, and a reload has nothing to do yet."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os._exit(0))
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: None)


if __name__ == "__main__":
    if sys.argv[1:2] == [] or sys.argv[1] not in COMMANDS:
        expect_signals()
    code = main()
    from service.http import logs

    logs.finish()
    # MLX may abort the process when its statics are destroyed after a second thread used it (mlx#2809), and all is
    # written and answered by now.
    os._exit(code)
