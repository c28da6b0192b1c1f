"""Signals that come before there is a server: the handlers are there before anything that takes long is loaded."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.bundle.read import Bundle
from tests.conftest import ROOT
from tests.deploy.programs import free_port
from tests.service.test_real import wait_ready


def begun(*flags: object) -> subprocess.Popen[str]:
    """A service that has a handler for SIGHUP, and nothing else yet."""
    command = [sys.executable, "-m", "service", *map(str, flags)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        if int(status["SigCgt"], 16) >> (signal.SIGHUP - 1) & 1:
            return process
    raise AssertionError("no handler within 60 s")


def loaded(process: subprocess.Popen[str]) -> bool:
    return "numpy" in Path(f"/proc/{process.pid}/maps").read_text()


linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="/proc tells which signals a process handles")


@linux
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_at_the_start_is_a_stop(tiny_bundle: Bundle, number: int) -> None:
    process = begun("--bundle", tiny_bundle.folder, "--port", free_port())
    assert not loaded(process)
    os.kill(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (0, "")


@linux
def test_a_reload_at_the_start_ends_nothing(tiny_bundle: Bundle) -> None:
    port = free_port()
    process = begun("--bundle", tiny_bundle.folder, "--port", port, "--grace-seconds", 0)
    assert not loaded(process)
    os.kill(process.pid, signal.SIGHUP)
    wait_ready(f"http://127.0.0.1:{port}", process)
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
