"""A contender: a process of its own that computes when it is asked, and is stopped in between.

Stopped (SIGSTOP) processes take no time on any core, whatever their thread pools do while idle, so one contender is
measured at a time though all are loaded.
"""

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from benchmarks.harness.machine import KEPT, ROOT, child_variables, die_with_parent, interpreter

START_SECONDS = 600.0
"""Exporting a model is part of the first start."""
ANSWER_SECONDS = 600.0
BEGUN = time.monotonic()


class Unavailable(Exception):
    """A contender that cannot be measured here, and why."""


class Contender:
    """Runs ``python -m module arguments`` of an environment, and speaks lines of JSON (contenders/worker.py)."""

    def __init__(self, environment: str, module: str, arguments: Sequence[str]):
        """Start it and wait until it is ready; raises Unavailable."""
        python = interpreter(environment)
        if not python.exists():
            raise Unavailable(f"the environment {environment} could not be made")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [python, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log,
            env=child_variables(), cwd=ROOT, start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        try:
            self.settings: str = self._answer(START_SECONDS)["ready"]
        except BaseException:
            self.close()
            raise
        self._signal(signal.SIGSTOP)

    def ask(self, command: str, **arguments: Any) -> Any:
        """Let it run until it has answered; raises Unavailable with what it last said."""
        assert self._process.stdin is not None
        self._signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
            self._process.stdin.flush()
            return self._answer(ANSWER_SECONDS)["answer"]
        finally:
            self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it."""
        self._signal(signal.SIGKILL)
        self._process.wait()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _answer(self, seconds: float) -> Any:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            raise Unavailable(f"no answer within {seconds:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise Unavailable(f"it ended: {last_line(self._log)}")
        answer = json.loads(line)
        if "error" in answer:
            raise Unavailable(answer["error"])
        return answer

    def _signal(self, number: int) -> None:
        signal_group(self._process, number)


@contextmanager
def running(starts: dict[str, tuple[str, str, Sequence[str]]]) -> Iterator[tuple[dict[str, Contender], dict[str, str]]]:
    """Start contenders one after the other: those that run, and for the others the reason why not."""
    found: dict[str, Contender] = {}
    reasons: dict[str, str] = {}
    try:
        for name, (environment, module, arguments) in starts.items():
            say(f"starting {name}")
            try:
                found[name] = Contender(environment, module, arguments)
            except Unavailable as error:
                reasons[name] = str(error)
                say(f"{name} is left out: {error}")
        yield found, reasons
    finally:
        for contender in found.values():
            contender.close()


def signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal a process that leads its session, and its children."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return


def last_line(log: Any) -> str:
    """The last line that a process wrote to its log."""
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300].replace(str(ROOT), ".") if lines else "it said nothing"


def say(line: str) -> None:
    """Progress, for whoever waits, with the seconds since the start."""
    print(f"bench: {time.monotonic() - BEGUN:.0f} s, {line}", file=sys.stderr, flush=True)


def scratch() -> tempfile.TemporaryDirectory[str]:
    """A folder for large passing files, beside the results."""
    KEPT.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(dir=Path(KEPT))
