"""``python -m training`` as a process of its own, as a user starts it, or in this one, which is quicker."""

import contextlib
import io
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.conftest import ROOT, TITANIC
from training.__main__ import main


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=300)


def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """As `run` gives it, without the seconds that a process takes to load everything."""
    command, stdout, stderr = [str(argument) for argument in arguments], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        try:
            returncode = main(command)
        except SystemExit as wrong_use:
            returncode = int(wrong_use.code or 0)
    return subprocess.CompletedProcess(command, returncode, stdout.getvalue(), stderr.getvalue())


def interrupted(*arguments: object, when: Callable[[], object]) -> tuple[int, str]:
    """Press Ctrl-C as soon as ``when`` is true; the exit code and standard error."""
    process = subprocess.Popen(_command(*arguments), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    for _ in range(1200):
        if when():
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    return process.returncode, stderr


def few_rows(path: Path) -> Path:
    """The first 120 passengers."""
    path.write_text("".join(TITANIC.read_text().splitlines(keepends=True)[:121]))
    return path


def _command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "training", *map(str, arguments)]
