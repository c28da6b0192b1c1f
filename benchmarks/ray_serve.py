"""Two replicas on Ray Serve beside two plain ones behind HAProxy, on the same cores.

    ./run bench ray_serve [--quick]

One client process keeps requests in flight, each with other texts. One side is stopped (SIGSTOP) while the other is
measured, and each round measures both, in random order. Then 10,000 other passengers are asked of both sides, and the
answers compared. The cache of answers is off, but in the row that says so.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import msgspec
import numpy as np

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.http_client import drive, request
from benchmarks.harness.machine import ROOT, child_variables, cores, die_with_parent, interpreter
from benchmarks.harness.process import Unavailable, last_line, say
from benchmarks.harness.servers import free_port
from benchmarks.harness.spread import ratio, spread
from benchmarks.harness.tables import bullets, table
from benchmarks.harness.texts import body, mixed_rows, one_per_text
from models.passenger import COLUMNS, parse_passenger

REPLICAS = 2
LOADS = {"1 row, 1 client": (1, 1), "1 row, 32 clients": (1, 32), "32 rows, 8 clients": (32, 8)}
"""Rows of a request, requests in flight."""
ROUNDS = 7
SECONDS, WARM_SECONDS, SETTLE_SECONDS = 4.0, 1.5, 2.5
"""Who was stopped has time to find that all its parts are there."""
ROWS, BATCH = 10_000, 500
READY_SECONDS = 180.0
NAMES = {"ray": "Ray Serve", "plain": "plain behind HAProxy"}

REPORT = """\
{replicas} replicas each; requests per second, {rounds} rounds of {seconds:.0f} s:

{rates}
Latency of a request, milliseconds, median of a round:

{latency}
{notes}"""


class Side:
    """Processes that together serve on one port; stopped but while it is used as a context manager."""

    def __init__(self, name: str, scratch: Path):
        self.name, self.scratch, self.port = name, scratch, free_port()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = (scratch / f"{name}.log").open("w+b")

    def start(self, *command: object, **variables: str) -> None:
        self._processes.append(
            subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=ROOT,
                env=child_variables(**variables), preexec_fn=die_with_parent,
            )
        )  # fmt: skip

    def wait(self, url: str, ready: Callable[[bytes], bool] = lambda _: True) -> None:
        """Until it answers as it has to; raises Unavailable."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            if any(one.poll() is not None for one in self._processes):
                break
            with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(url, timeout=5) as answer:
                if ready(answer.read()):
                    return
            time.sleep(0.1)
        raise Unavailable(f"{NAMES[self.name]} is not ready: {last_line(self._log)}")

    def __enter__(self) -> Self:
        self._signal(signal.SIGCONT)
        time.sleep(SETTLE_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._signal(signal.SIGSTOP)

    def close(self) -> None:
        """End it; what a head of Ray has started ends with it."""
        self._signal(signal.SIGCONT)
        for one in self._processes:
            one.terminate()
        for one in self._processes:
            one.wait()
        self._log.close()

    def _signal(self, number: int) -> None:
        for pid in _with_descendants({one.pid for one in self._processes}):
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def plain(bundle: Path, scratch: Path, cache_rows: int) -> Side:
    """python -m service, twice, behind deploy/haproxy/haproxy.cfg."""
    side = Side("plain", scratch)
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        raise Unavailable("haproxy is not installed; on Debian: apt-get install haproxy")
    text = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    for number in range(1, 4):
        port, line = free_port(), f"server replica{number} 127.0.0.1:800{number}"
        if number > REPLICAS:
            text = text.replace(line, "")
            continue
        text = text.replace(line, f"server replica{number} 127.0.0.1:{port}")
        side.start(
            interpreter("core"), "-m", "service", "--bundle", bundle, "--port", port, "--cache-rows", cache_rows,
            "--state", scratch / f"plain{number}", "--store", scratch / "plain.sqlite", "--log-requests", "problems",
        )  # fmt: skip
        side.wait(f"http://127.0.0.1:{port}/health/ready")
    (scratch / "haproxy.cfg").write_text(text.replace("127.0.0.1:8000", f"127.0.0.1:{side.port}"))
    side.start(haproxy, "-db", "-f", scratch / "haproxy.cfg")
    side.wait(f"http://127.0.0.1:{side.port}/health/ready")
    return side


def ray(bundle: Path, scratch: Path, cache_rows: int) -> Side:
    """deploy/ray/serve.yaml, with other paths and ports."""
    side, dashboard = Side("ray", scratch), f"http://127.0.0.1:{(number := free_port())}"
    if not interpreter("cluster").exists():
        raise Unavailable("the environment cluster could not be made")
    text = (ROOT / "deploy" / "ray" / "serve.yaml").read_text()
    for old, new in (
        ("port: 8000", f"port: {side.port}"), ("bundle: artifacts/titanic", f"bundle: {bundle}"),
        ("store: artifacts/state/predictions.sqlite", f"store: {scratch}/ray.sqlite"),
        ("log_requests:", f"cache_rows: {cache_rows}\n      state: {scratch}/ray\n      log_requests:"),
    ):  # fmt: skip
        assert old in text
        text = text.replace(old, new)
    (scratch / "serve.yaml").write_text(text)
    side.start(
        ROOT / "run", "cluster", "ray", "start", "--head", "--block", "--port", free_port(), "--dashboard-port", number,
        "--temp-dir", scratch / "r", "--num-cpus", cores(), "--object-store-memory", 100_000_000,
        "--dashboard-agent-listen-port", free_port(), "--ray-client-server-port", free_port(),
    )  # fmt: skip
    side.wait(f"{dashboard}/api/serve/applications/")
    command = [ROOT / "run", "cluster", "serve", "deploy", scratch / "serve.yaml", "--address", dashboard]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=child_variables())
    if done.returncode:
        raise Unavailable(f"serve deploy failed: {done.stdout}{done.stderr}"[-300:])
    side.wait(f"{dashboard}/api/serve/applications/", lambda content: b'"status":"RUNNING"' in content.replace(b" ", b""))
    side.wait(f"http://127.0.0.1:{side.port}/health/ready")
    return side


def measure(options: Options) -> Result:
    rng = np.random.default_rng(0)
    with _sides(options.bundle, 0) as sides:
        requests = {name: {load: _requests(side.port, LOADS[load][0]) for load in LOADS} for name, side in sides.items()}
        turns: Any = {name: {load: [] for load in LOADS} for name in sides}
        for number in range(options.rounds(ROUNDS, 1)):
            say(f"round {number + 1}")
            for load in LOADS:
                for name in rng.permutation(list(sides)).tolist():
                    turns[name][load].append(_turn(sides[name], requests[name][load], LOADS[load][1], options))
        say("the same answers")
        difference = _difference(sides, rng, 1000 if options.quick else ROWS)
    with _sides(options.bundle, 1 << 16) as sides:
        cached: Any = {name: [] for name in sides}
        requests = {name: {"": _requests(side.port, 1)} for name, side in sides.items()}
        for number in range(options.rounds(ROUNDS, 1)):
            say(f"cached, round {number + 1}")
            for name in rng.permutation(list(sides)).tolist():
                cached[name].append(_turn(sides[name], requests[name][""], 32, options))
    for name in turns:
        turns[name]["1 row, 32 clients, cached"] = cached[name]
    return {"turns": turns, "difference": difference, "ray": _version()}


@contextmanager
def _sides(bundle: Path, cache_rows: int) -> Iterator[dict[str, Side]]:
    with ExitStack() as stack:
        # Not in artifacts/: paths of Ray's sockets have to be short.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
        found = {}
        for make in (plain, ray):
            say(f"starting {make.__name__}")
            side = make(bundle, scratch, cache_rows)
            stack.callback(side.close)
            side.__exit__()
            found[side.name] = side
        yield found


def _requests(port: int, rows: int) -> list[bytes]:
    bodies = [body(one) for one in one_per_text()]
    if rows == 1:
        return [request(port, "/v1/predict", one) for one in bodies]
    parts = [bodies[first : first + rows] for first in range(0, len(bodies) - rows, rows)]
    return [request(port, "/v1/predict/batch", {"passengers": part}) for part in parts]


def _turn(side: Side, requests: Sequence[bytes], clients: int, options: Options) -> dict[str, Any]:
    seconds, warm_seconds = (1.0, 0.5) if options.quick else (SECONDS, WARM_SECONDS)
    with side:
        turn = drive(side.port, requests, clients, seconds, warm_seconds)
    return {"rate": turn.rate, "failed": turn.failed, "p50": 1e3 * float(np.median(turn.seconds or [np.inf]))}


def _difference(sides: dict[str, Side], rng: np.random.Generator, rows: int) -> dict[str, Any]:
    """Largest difference of a probability between the sides, of passengers who are no real ones."""
    made = [body(parse_passenger({field: row[column] for field, column in COLUMNS.items()})) for row in mixed_rows(rng, rows)]
    answers = {}
    for name, side in sides.items():
        with side:
            answers[name] = np.concatenate([_ask(side, made[at : at + BATCH]) for at in range(0, rows, BATCH)])
    return {"rows": rows, "largest": float(np.abs(answers["ray"] - answers["plain"]).max())}


def _ask(side: Side, passengers: Sequence[Any]) -> np.ndarray:
    content = msgspec.json.encode({"passengers": passengers})
    asked = urllib.request.Request(
        f"http://127.0.0.1:{side.port}/v1/predict/batch", content, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=120) as answer:
        return np.array([one["probability"] for one in json.load(answer)["predictions"]])


def _with_descendants(pids: set[int]) -> set[int]:
    """Processes, those that they started, and so on."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    while more := {child for child, parent in parents.items() if parent in pids} - pids:
        pids = pids | more
    return pids


def _version() -> str:
    command = [interpreter("cluster"), "-c", "import importlib.metadata as m; print(m.version('ray'))"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def report(result: Result) -> str:
    turns = result["turns"]
    loads = list(turns["ray"])

    def rates(name: str, load: str) -> list[float]:
        return [one["rate"] for one in turns[name][load]]

    rows = [
        (load, *(spread(rates(name, load)) for name in NAMES), ratio(rates("ray", load), rates("plain", load)))
        for load in loads
    ]
    waits = [(load, *(spread([one["p50"] for one in turns[name][load]]) for name in NAMES)) for load in loads]
    failed = {name: sum(one["failed"] for load in loads for one in turns[name][load]) for name in NAMES}
    difference = result["difference"]
    return REPORT.format(
        replicas=REPLICAS, rounds=len(turns["ray"][loads[0]]), seconds=SECONDS,
        rates=table(("requests", *NAMES.values(), "Ray Serve ÷ plain, round by round"), rows),
        latency=table(("requests", *NAMES.values()), waits),
        notes=bullets(
            [
                f"Failed requests: {', '.join(f'{NAMES[name]} {count}' for name, count in failed.items())}.",
                f"Largest difference between the sides' probabilities, {difference['rows']:,} passengers: "
                f"{difference['largest']:.1e}.",
                f"Ray {result['ray']}, deploy/ray/serve.yaml; HAProxy with deploy/haproxy/haproxy.cfg.",
            ]
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run("ray_serve", __doc__, measure, report))
