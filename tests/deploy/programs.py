"""Programs that the tests of deploy/ run for real, on loopback and on free ports: service, Prometheus, Alertmanager."""

import contextlib
import http.server
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx
import pytest

from tests.conftest import ROOT

RULES = ROOT / "deploy" / "prometheus"
PACKAGES = {
    "promtool": "prometheus", "prometheus": "prometheus", "amtool": "prometheus-alertmanager",
    "prometheus-alertmanager": "prometheus-alertmanager", "docker-compose": "docker-compose",
    "haproxy": "haproxy", "kubectl": "kubernetes-client",
}  # fmt: skip


def need(program: str) -> str:
    """The program's path; its absence skips the test, and fails it in CI."""
    found = shutil.which(program)
    return found or _absent(f"{program} is not installed; on Debian: apt-get install {PACKAGES[program]}")


def need_environment(name: str, program: str = "python") -> Path:
    """A program of an environment of ``./run setup``; its absence skips the test, and fails it in CI."""
    found = ROOT / f".venv-{name}" / "bin" / program
    return found if found.exists() else _absent(f"{found} is not installed: ./run setup {name} installs it")


def _absent(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def check(*command: object) -> str:
    """Run a checker, which must succeed; what it said."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def free_ports(count: int) -> int:
    """The first of so many consecutive ports, of those that the system gives nobody by itself (Linux: below 32768)."""
    for first in random.SystemRandom().sample(range(20_000, 30_000), 100):
        with contextlib.ExitStack() as held, contextlib.suppress(OSError):
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise AssertionError(f"no {count} consecutive ports are free")


def wait(what: Callable[[], Any], seconds: float, step: float = 0.1) -> Any:
    """The first true value of ``what``; a server that does not answer yet counts as none."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if found := what():
                return found
        time.sleep(step)
    raise AssertionError(f"not within {seconds:g} s")


@contextlib.contextmanager
def running(command: list[object], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is ended with the block; what it says goes to ``log``."""
    with log.open("wb") as file:
        process = subprocess.Popen([str(part) for part in command], cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


@contextlib.contextmanager
def running_service(bundle: Path, folder: Path) -> Iterator[str]:
    """The real service with a store of its own; its URL."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    flags = ["--bundle", bundle, "--port", port, "--grace-seconds", 0, "--state", folder / "state"]
    flags += ["--store", folder / "predictions.sqlite"]
    with running([sys.executable, "-m", "service", *flags], folder / "service.log"):
        wait(lambda: httpx.get(f"{url}/health/ready").status_code == 200, 60)
        yield url


@contextlib.contextmanager
def running_prometheus(targets: list[str], folder: Path, alertmanager: str | None = None) -> Iterator[str]:
    """A real Prometheus with the project's rules as they are, scraping and evaluating every second; its URL."""
    config: dict[str, Any] = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES / "rules" / "*.yml")],
        "scrape_configs": [
            {"job_name": "evenkeel", "static_configs": [{"targets": [_address(one) for one in targets]}]}
        ],
    }
    if alertmanager:
        config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": [_address(alertmanager)]}]}]}
    with prometheus_of(config, folder) as url:
        yield url


@contextlib.contextmanager
def prometheus_of(config: dict[str, Any], folder: Path, *more: str) -> Iterator[str]:
    """A real Prometheus with that configuration and ``more`` flags; its URL."""
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{(port := free_port())}"
    flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
    command = [need("prometheus"), *flags, *more, f"--web.listen-address=127.0.0.1:{port}"]
    with running(command, folder / "prometheus.log"):
        wait(lambda: httpx.get(f"{url}/-/ready").status_code == 200, 60)
        yield url


@contextlib.contextmanager
def running_alertmanager(config: dict[str, Any], folder: Path) -> Iterator[str]:
    """A real Alertmanager, alone; its URL."""
    (folder / "alertmanager.yml").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{(port := free_port())}"
    flags = [f"--config.file={folder}/alertmanager.yml", f"--storage.path={folder}/alertmanager"]
    flags += [f"--web.listen-address=127.0.0.1:{port}", "--cluster.listen-address="]
    with running([need("prometheus-alertmanager"), *flags], folder / "alertmanager.log"):
        wait(lambda: httpx.get(f"{url}/-/ready").status_code == 200, 60)
        yield url


@contextlib.contextmanager
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A receiver of alerts on loopback: its URL, and the list that every alert it gets is appended to."""
    received: list[dict[str, Any]] = []

    class Receiver(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            received.extend(body["alerts"])
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def query(prometheus: str, expression: str) -> list[dict[str, Any]]:
    """The samples of an instant query, which must be one that Prometheus accepts."""
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}, timeout=30).json()
    assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


def _address(url: str) -> str:
    return url.removeprefix("http://")
