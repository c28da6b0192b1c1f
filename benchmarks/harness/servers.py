"""Servers of the same bundle on 127.0.0.1: how each is started, asked, and read."""

import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import msgspec

from benchmarks.harness.http_client import request
from benchmarks.harness.machine import ROOT, child_variables, cores, die_with_parent, interpreter
from benchmarks.harness.process import Unavailable, last_line, signal_group
from benchmarks.harness.texts import body, render, schema
from models.rows import Row

READY_SECONDS = 180.0


@dataclass(frozen=True)
class Kind:
    """A way to serve a bundle. ``command`` follows the interpreter; {bundle}, {port} and {cores} are filled in, and
    {scratch}, a folder that goes with the server, in ``variables``."""

    name: str
    environment: str
    command: Sequence[str]
    settings: str
    path: str
    ready: str
    ask: Callable[[Row], Any]
    probability: Callable[[Any], float]
    variables: dict[str, str] = field(default_factory=dict)


def _ours(name: str, cache_rows: int | None, settings: str, *flags: str) -> Kind:
    return Kind(
        name, "core", ("-m", "service", "--bundle", "{bundle}", "--port", "{port}", *flags), settings,
        "/v1/predict", "/health/ready", body, lambda answer: float(answer["confidence"]["uncalibrated_probability"]),
        {"EVENKEEL_STORE": "{scratch}/predictions.sqlite"}
        | ({} if cache_rows is None else {"EVENKEEL_CACHE_ROWS": str(cache_rows)}),
    )  # fmt: skip


def _scores(answer: Any) -> float:
    return next(float(one["score"]) for one in answer["data"][0] if one["label"] == schema().positive)


def _peer(name: str, module: str, settings: str, *flags: str) -> Kind:
    command = ("-m", f"benchmarks.contenders.{module}", "--bundle", "{bundle}", "--port", "{port}", *flags)
    return Kind(
        name, "bench", command, settings, "/predict", "/health", body, lambda answer: float(answer["probability"])
    )


def _infinity() -> Kind:
    flags = (
        "--model-id {bundle} --served-model-name served --engine torch --device cpu --dtype float32 --batch-size 64 "
        "--no-bettertransformer --no-model-warmup --host 127.0.0.1 --port {port} --log-level warning"
    )
    return Kind(
        "infinity", "infinity", ("-m", "infinity_emb.cli", "v2", *flags.split()),
        "engine torch with SDPA (BetterTransformer was no faster), float32, batch size 64, POST /classify; it is sent "
        "the ready text, and describes no row",
        "/classify", "/health", lambda row: {"model": "served", "input": [render(row)]}, _scores,
    )  # fmt: skip


KINDS = {
    "evenkeel": _ours(
        "Evenkeel, cache off", 0,
        "python -m service, EVENKEEL_CACHE_ROWS=0, one process, in the environment of `./run serve`; validates the "
        "body and answers with all of its diagnostics",
    ),
    "cached": _ours("Evenkeel, cache on", None, "the same with its default cache, which holds all texts by then"),
    "int8": _ours(
        "Evenkeel int8, cache off", 0,
        "the same with --precision int8, for which the bundle has passed `./run train precision`; a row's answer is "
        "its own whatever its batch",
        "--precision", "int8",
    ),
    "fastapi": _peer(
        "FastAPI + ONNX Runtime", "fastapi_server",
        "float32, natural batching up to 64 rows on one inference thread with {cores} ONNX Runtime threads, uvicorn on "
        "uvloop and httptools, the body decoded by msgspec; answers with one number",
    ),
    "fastapi_int8": _peer(
        "FastAPI + ONNX Runtime int8", "fastapi_server",
        "the same in int8 by quantize_dynamic, whose answers move with the other rows of a batch",
        "--precision", "int8",
    ),
    "litserve": _peer(
        "LitServe + ONNX Runtime", "litserve_server",
        "float32 with {cores} ONNX Runtime threads, one worker, max_batch_size 64, batch_timeout 0 (2 to 20 ms were no "
        "faster), fast_queue; answers with one number",
    ),
    "infinity": _infinity(),
}  # fmt: skip


class Server:
    """A running server, stopped (SIGSTOP) but while it is used as a context manager."""

    def __init__(self, kind: Kind, bundle: Path):
        """Start it and wait until it is ready; raises Unavailable."""
        python = interpreter(kind.environment)
        if not python.exists():
            raise Unavailable(f"the environment {kind.environment} could not be made")
        self.kind, self.port = kind, free_port()
        filled = [part.format(bundle=bundle, port=self.port, cores=cores()) for part in kind.command]
        self._scratch = tempfile.TemporaryDirectory()
        variables = {name: value.format(scratch=self._scratch.name) for name, value in kind.variables.items()}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        start = time.perf_counter()
        self.process = subprocess.Popen(
            [python, *filled], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=ROOT,
            env=child_variables(**variables), start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        try:
            self._wait_until_ready()
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start
        signal_group(self.process, signal.SIGSTOP)

    def __enter__(self) -> Self:
        signal_group(self.process, signal.SIGCONT)
        return self

    def __exit__(self, *_: object) -> None:
        signal_group(self.process, signal.SIGSTOP)

    def close(self) -> None:
        """End it and its children."""
        signal_group(self.process, signal.SIGKILL)
        self.process.wait()
        self._log.close()
        self._scratch.cleanup()

    def requests(self, rows: Sequence[Row]) -> list[bytes]:
        """A request for each row, as this server wants it."""
        return [request(self.port, self.kind.path, self.kind.ask(row)) for row in rows]

    def probability(self, row: Row) -> float:
        """Its answer for one row: the model's sigmoid, not calibrated."""
        content = msgspec.json.encode(self.kind.ask(row))
        asked = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self.kind.path}", content, {"Content-Type": "application/json"}
        )  # fmt: skip
        with urllib.request.urlopen(asked, timeout=60) as answer:
            return self.kind.probability(msgspec.json.decode(answer.read()))

    def resident_mib(self) -> float | None:
        """VmRSS of its process, where /proc tells."""
        status = Path(f"/proc/{self.process.pid}/status")
        if not status.exists():
            return None
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmRSS")) / 1024

    def _wait_until_ready(self) -> None:
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Unavailable(f"it ended: {last_line(self._log)}")
            if _ok(f"http://127.0.0.1:{self.port}{self.kind.ready}"):
                return
            time.sleep(0.01)
        raise Unavailable(f"it was not ready within {READY_SECONDS:.0f} s: {last_line(self._log)}")


def _ok(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port
