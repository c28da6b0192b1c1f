"""A service in a process of its own, as tests of faults need it: its output in a file, its limits set."""

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import ROOT
from tests.deploy.programs import free_port

JSON = {"Content-Type": "application/json"}


class Service:
    """Serves ``bundle``; flags by their names. On leaving the context it has to end by itself, with nothing logged that
    is a fault of its own."""

    def __init__(
        self, bundle: Path, scratch: Path, *, variables: Mapping[str, str] | None = None,
        limit: Callable[[], None] | None = None, **flags: object,
    ):  # fmt: skip
        self.port, self.log = free_port(), scratch / f"{os.urandom(4).hex()}.log"
        given = {"bundle": bundle, "port": self.port, "grace_seconds": 0, "log_requests": "none", "store": "none"}
        parts = [f"--{name.replace('_', '-')}={value}" for name, value in {**given, **flags}.items()]
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "service", *parts], cwd=ROOT, stdout=output, stderr=output,
                env={**os.environ, **(variables or {})}, preexec_fn=limit,
            )  # fmt: skip

    def __enter__(self) -> Self:
        self.wait_ready()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if self.process.poll() is None and kind is None:
                self.process.send_signal(signal.SIGTERM)
                assert self.process.wait(60) == 0, self.said
        finally:
            self.close()
        if kind is None:
            for sign in ("Traceback", "unexpected", "Exception"):
                assert sign not in self.said, self.said

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def close(self) -> None:
        """kill -9, if it has not ended."""
        self.process.kill()
        self.process.wait()

    def wait_ready(self) -> None:
        self.until(lambda: self.get("/health/ready")[0] == 200)

    def until(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait for a condition while the process lives; it may find nobody there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            assert self.process.poll() is None, self.said
            try:
                if condition():
                    return
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.02)
        raise AssertionError(f"it did not happen within {seconds:g} s; {self.said}")

    def get(self, path: str) -> tuple[int, bytes]:
        return self.ask("GET", path, None, {})

    def post(self, path: str, body: Any, **headers: str) -> tuple[int, Any]:
        status, content = self.ask("POST", path, json.dumps(body).encode(), {**JSON, **headers})
        return status, json.loads(content)

    def ask(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, dict(headers))
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def value(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        found = 0.0
        for family in text_string_to_metric_families(self.get("/metrics")[1].decode()):
            for sample in family.samples:
                if sample.name == f"evenkeel_{name}" and labels.items() <= sample.labels.items():
                    found += sample.value
        return found

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))
