"""Two replicas on Ray Serve, behind its proxy and behind HAProxy, beside two plain ones, on the same cores.

    ./run bench ray_serve [--quick]

One client process keeps requests in flight, each with other texts. One side is stopped (SIGSTOP) while the other is
measured, and each round measures both, in random order. The cache of answers is off. Then both sides are asked about
10,000 other rows, and the answers compared.
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
from benchmarks.harness.texts import body, mixed_rows, one_per_text, parse

REPLICAS = 2
LOADS = {"1 row, 32 clients": (1, 32), "32 rows, 8 clients": (32, 8)}
"""Rows of a request, requests in flight."""
ROUNDS = 5
SECONDS, WARM_SECONDS, SETTLE_SECONDS = 3.0, 1.0, 6.0
"""Who was stopped has time to find that all its parts are there: Ray's take some seconds of the cores for that."""
ROWS, BATCH = 10_000, 500
FIRST_PORT = 30_100
"""Of the replicas' own ports, beside those of a service that runs here."""
READY_SECONDS = 180.0
NAMES = {"ray": "Ray Serve's proxy", "direct": "Ray Serve behind HAProxy", "plain": "plain behind HAProxy"}

REPORT = """\
{replicas} replicas each; requests per second, {rounds} rounds of {seconds:.0f} s:

{rates}
Latency of a request, milliseconds, median of a round:

{latency}
{notes}"""


class Side:
    """Processes that together serve on one port; stopped but while it is used as a context manager."""

    def __init__(self, name: str, scratch: Path):
        self.name, self.scratch, self.ports = name, scratch, {name: free_port()}
        self._processes: list[subprocess.Popen[bytes]] = []
        self._log = (scratch / f"{name}.log").open("w+b")

    def start(self, *command: object, **variables: str) -> None:
        self._processes.append(
            subprocess.Popen(
                [str(part) for part in command], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=ROOT,
                env=child_variables(**variables), preexec_fn=die_with_parent,
            )
        )  # fmt: skip

    def balance(self, configuration: str) -> None:
        """Start HAProxy; raises Unavailable."""
        haproxy = shutil.which("haproxy")
        if haproxy is None:
            raise Unavailable("haproxy is not installed; on Debian: apt-get install haproxy")
        path = self.scratch / f"{self.name}.cfg"
        path.write_text(configuration)
        self.start(haproxy, "-db", "-f", path)

    def wait(self, url: str, ready: Callable[[bytes], bool] = lambda _: True) -> None:
        """Until it answers as it has to; raises Unavailable."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            if any(one.poll() is not None for one in self._processes):
                break
            asked = urllib.request.Request(url, headers=_token())
            with suppress(urllib.error.URLError, OSError), urllib.request.urlopen(asked, timeout=5) as answer:
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


def plain(bundle: Path, scratch: Path) -> Side:
    """python -m service, twice, behind deploy/haproxy/haproxy.cfg."""
    side = Side("plain", scratch)
    text = (ROOT / "deploy" / "haproxy" / "haproxy.cfg").read_text()
    for number in range(1, 4):
        port, line = free_port(), f"server replica{number} 127.0.0.1:800{number}"
        if number > REPLICAS:
            text = text.replace(line, "")
            continue
        text = text.replace(line, f"server replica{number} 127.0.0.1:{port}")
        side.start(
            interpreter("core"), "-m", "service", "--bundle", bundle, "--port", port, "--cache-rows", 0,
            "--state", scratch / f"plain{number}", "--store", scratch / "plain.sqlite", "--log-requests", "problems",
        )  # fmt: skip
        side.wait(f"http://127.0.0.1:{port}/health/ready")
    side.balance(text.replace("127.0.0.1:8000", f"127.0.0.1:{side.ports['plain']}"))
    side.wait(f"http://127.0.0.1:{side.ports['plain']}/health/ready")
    return side


def ray(bundle: Path, scratch: Path) -> Side:
    """deploy/ray/serve.yaml, with other paths and ports."""
    side, dashboard = Side("ray", scratch), f"http://127.0.0.1:{(number := free_port())}"
    if not interpreter("cluster").exists():
        raise Unavailable("the environment cluster could not be made")
    text = (ROOT / "deploy" / "ray" / "serve.yaml").read_text()
    for old, new in (
        ("port: 8000", f"port: {side.ports['ray']}"),
        ("store: artifacts/state/predictions.sqlite", f"bundle: {bundle}\n      store: {scratch}/ray.sqlite"),
        ("log_requests:", f"cache_rows: 0\n      state: {scratch}/ray\n      log_requests:"),
        ("port: 30000", f"port: {FIRST_PORT}"),
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
    side.wait(
        f"{dashboard}/api/serve/applications/", lambda content: b'"status":"RUNNING"' in content.replace(b" ", b"")
    )
    side.wait(f"http://127.0.0.1:{side.ports['ray']}/health/ready")
    side.ports["direct"] = free_port()
    text = (ROOT / "deploy" / "ray" / "haproxy.cfg").read_text()
    # 30000 to 30007 there.
    text = text.replace("127.0.0.1:3000", f"127.0.0.1:{FIRST_PORT // 10}")
    side.balance(text.replace("127.0.0.1:8080", f"127.0.0.1:{side.ports['direct']}"))
    side.wait(f"http://127.0.0.1:{side.ports['direct']}/health/ready")
    return side


def measure(options: Options) -> Result:
    rng = np.random.default_rng(0)
    turns: Any = {name: {} for name in NAMES}
    with _sides(options.bundle) as sides:
        for load, (rows, clients) in LOADS.items():
            _compare(sides, load, rows, clients, turns, rng, options)
        say("the same answers")
        difference = _difference(sides, rng, 1000 if options.quick else ROWS)
    return {"turns": turns, "difference": difference, "ray": _version()}


def _compare(
    sides: Sequence[Side], load: str, rows: int, clients: int, turns: Any, rng: np.random.Generator, options: Options
) -> None:
    """All rounds of one load, into ``turns``."""
    found = {name: (side, port, _requests(port, rows)) for side in sides for name, port in side.ports.items()}
    for number in range(options.rounds(ROUNDS, 1)):
        for name in rng.permutation(list(found)).tolist():
            side, port, requests = found[name]
            turn = _turn(side, port, requests, clients, options)
            say(f"{load}, round {number + 1}, {NAMES[name]}: {turn['rate']:.1f} requests/s")
            turns[name].setdefault(load, []).append(turn)


@contextmanager
def _sides(bundle: Path) -> Iterator[list[Side]]:
    with ExitStack() as stack:
        # Not in artifacts/: paths of Ray's sockets have to be short.
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)))
        found = []
        for make in (plain, ray):
            say(f"starting {make.__name__}")
            side = make(bundle, scratch)
            stack.callback(side.close)
            side.__exit__()
            found.append(side)
        yield found


def _requests(port: int, rows: int) -> list[bytes]:
    bodies = [body(one) for one in one_per_text()]
    if rows == 1:
        return [request(port, "/v1/predict", one) for one in bodies]
    parts = [bodies[first : first + rows] for first in range(0, len(bodies) - rows, rows)]
    return [request(port, "/v1/predict/batch", {"rows": part}) for part in parts]


def _turn(side: Side, port: int, requests: Sequence[bytes], clients: int, options: Options) -> dict[str, Any]:
    seconds, warm_seconds = (1.0, 0.5) if options.quick else (SECONDS, WARM_SECONDS)
    with side:
        turn = drive(port, requests, clients, seconds, warm_seconds)
    return {"rate": turn.rate, "failed": turn.failed, "p50": 1e3 * float(np.median(turn.seconds or [np.inf]))}


def _difference(sides: Sequence[Side], rng: np.random.Generator, rows: int) -> dict[str, Any]:
    """Largest difference of a probability from the plain side's, of rows that are no real ones."""
    made = [body(parse(record)) for record in mixed_rows(rng, rows)]
    answers: dict[str, np.ndarray] = {}
    for side in sides:
        with side:
            for name, port in side.ports.items():
                answers[name] = np.concatenate([_ask(port, made[at : at + BATCH]) for at in range(0, rows, BATCH)])
    others = {name: float(np.abs(found - answers["plain"]).max()) for name, found in answers.items() if name != "plain"}
    return {"rows": rows, "largest": others}


def _ask(port: int, rows: Sequence[Any]) -> np.ndarray:
    content = msgspec.json.encode({"rows": rows})
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/predict/batch", content, {"Content-Type": "application/json"}
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


def _token() -> dict[str, str]:
    """What Ray's dashboard wants to see."""
    path = interpreter("cluster").parents[1] / "ray-token"
    return {"Authorization": f"Bearer {path.read_text()}"} if path.exists() else {}


def _version() -> str:
    command = [interpreter("cluster"), "-c", "import importlib.metadata as m; print(m.version('ray'))"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def report(result: Result) -> str:
    turns = result["turns"]
    loads = list(turns["ray"])
    others = [name for name in NAMES if name != "plain"]

    def figures(name: str, load: str, figure: str) -> list[float]:
        return [one[figure] for one in turns[name][load]]

    def parts(load: str) -> list[object]:
        rates = {name: figures(name, load, "rate") for name in NAMES}
        return [load, *map(spread, rates.values()), *(ratio(rates[name], rates["plain"]) for name in others)]

    failed = {name: sum(sum(figures(name, load, "failed")) for load in loads) for name in NAMES}
    difference = result["difference"]
    largest = ", ".join(f"{NAMES[name]} {found:.1e}" for name, found in difference["largest"].items())
    return REPORT.format(
        replicas=REPLICAS, rounds=len(turns["ray"][loads[0]]), seconds=SECONDS,
        rates=table(("requests", *NAMES.values(), *(f"{NAMES[name]} ÷ plain" for name in others)), map(parts, loads)),
        latency=table(
            ("requests", *NAMES.values()),
            [[load, *(spread(figures(name, load, "p50")) for name in NAMES)] for load in loads],
        ),
        notes=bullets(
            [
                f"Failed requests: {', '.join(f'{NAMES[name]} {count:.0f}' for name, count in failed.items())}.",
                f"Largest difference of a probability from the plain side's, of {difference['rows']:,} rows: "
                f"{largest}.",
                f"Ray {result['ray']} with deploy/ray/serve.yaml and deploy/ray/haproxy.cfg; HAProxy with "
                "deploy/haproxy/haproxy.cfg. Ratios are of each round.",
            ]
        ),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run("ray_serve", __doc__, measure, report))
