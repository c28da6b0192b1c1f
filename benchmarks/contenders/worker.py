"""The contender's side of benchmarks/harness/process.py: commands come and answers go as lines of JSON."""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

Commands = dict[str, Callable[..., Any]]


class Session:
    """The talk with the parent. Standard output is its alone: what libraries print goes to standard error."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def ready(self, settings: str) -> None:
        """Say that it can be asked, and how it is set."""
        self._write({"ready": settings})

    def unavailable(self, error: Exception) -> None:
        """Say why it cannot be asked."""
        self._write({"error": f"{type(error).__name__}: {error}"[:300]})

    def next(self) -> dict[str, Any] | None:
        """The next command; None when the parent is gone."""
        line = sys.stdin.readline()
        return json.loads(line) if line else None

    def answer(self, answer: Any) -> None:
        self._write({"answer": answer})

    def _write(self, message: dict[str, Any]) -> None:
        self._out.write(json.dumps(message) + "\n")
        self._out.flush()


def answer(load: Callable[[], tuple[str, Commands]]) -> int:
    """Load, say that it is ready, then answer until the parent is gone."""
    session = Session()
    try:
        settings, commands = load()
    except Exception as error:
        session.unavailable(error)
        return 1
    session.ready(settings)
    while command := session.next():
        session.answer(commands[command.pop("command")](**command))
    return 0


def end(code: int) -> None:
    """Leave at once: MLX may abort in its destructors, and all is said."""
    sys.stderr.flush()
    os._exit(code)
