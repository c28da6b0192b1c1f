"""An open loop: requests leave at random times at a given rate, whatever becomes of those before them.

python -m benchmarks.harness.open_loop PORT RATE SECONDS ROWS DEADLINE_MS, in a process of its own, so that its own
cost is known; answers with one line of JSON. DEADLINE_MS 0 sets none.
"""

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

from benchmarks.harness.http_client import content_length, on_the_loop, request
from benchmarks.harness.machine import ROOT, child_variables, die_with_parent
from benchmarks.harness.process import Unavailable
from benchmarks.harness.texts import body, one_per_text

MAX_CONNECTIONS = 2000
PATIENCE_SECONDS = 10.0
"""For the last answers."""


@dataclass
class Seen:
    """What became of the requests: milliseconds by status, and how late each left."""

    milliseconds: dict[str, list[float]] = field(default_factory=dict)
    late_milliseconds: list[float] = field(default_factory=list)
    unsent: int = 0
    broken: int = 0
    waiting: int = 0


class Connection(asyncio.Protocol):
    """Takes one request at a time, and tells ``free`` when it has its answer."""

    def __init__(self, seen: Seen, free: list["Connection"]):
        self._seen, self._free = seen, free
        self._buffer, self._expected, self._begun = bytearray(), 0, 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def send(self, content: bytes) -> None:
        self._begun = time.perf_counter()
        self._seen.waiting += 1
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if not self._expected:
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            self._expected = end + 4 + content_length(bytes(self._buffer[:end]))
        if len(self._buffer) >= self._expected:
            status = self._buffer[9:12].decode()
            self._seen.milliseconds.setdefault(status, []).append(1e3 * (time.perf_counter() - self._begun))
            self._seen.waiting -= 1
            self._buffer.clear()
            self._expected, self._begun = 0, 0.0
            self._free.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        if self._begun:
            self._seen.broken += 1
            self._seen.waiting -= 1
        with contextlib.suppress(ValueError):
            self._free.remove(self)


async def generate(port: int, rate: float, seconds: float, rows: int, deadline_ms: int) -> Seen:
    seen, free, opened = Seen(), list[Connection](), 0
    rng, loop = random.Random(0), asyncio.get_running_loop()
    requests = _requests(port, rows, deadline_ms)
    tasks = set[asyncio.Task[None]]()

    async def on_new(content: bytes) -> None:
        try:
            _, connection = await loop.create_connection(lambda: Connection(seen, free), "127.0.0.1", port)
        except OSError:
            seen.broken += 1
            return
        connection.send(content)

    due, end, number = time.perf_counter(), time.perf_counter() + seconds, 0
    while due < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        seen.late_milliseconds.append(1e3 * (time.perf_counter() - due))
        content = requests[number % len(requests)]
        if free:
            free.pop().send(content)
        elif opened < MAX_CONNECTIONS:
            opened += 1
            task = asyncio.create_task(on_new(content))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            seen.unsent += 1
        number += 1
        due += rng.expovariate(rate)
    patience = time.perf_counter() + PATIENCE_SECONDS
    while (tasks or seen.waiting) and time.perf_counter() < patience:
        await asyncio.sleep(0.05)
    return seen


def _requests(port: int, rows: int, deadline_ms: int) -> list[bytes]:
    """Requests with distinct texts, as far as there are enough."""
    header = f"\r\nX-Request-Timeout-Ms: {deadline_ms}\r\n\r\n" if deadline_ms else "\r\n\r\n"
    bodies = [body(one) for one in one_per_text()]
    if rows == 1:
        made = [request(port, "/v1/predict", one) for one in bodies]
    else:
        parts = [[bodies[(first + row) % len(bodies)] for row in range(rows)] for first in range(0, len(bodies), rows)]
        made = [request(port, "/v1/predict/batch", {"rows": part}) for part in parts]
    return [one.replace(b"\r\n\r\n", header.encode(), 1) for one in made]


class OpenLoop:
    """The same, begun in a process of its own; `result` waits for its end."""

    def __init__(self, port: int, rate: float, seconds: float, rows: int, deadline_ms: int = 0):
        arguments = [str(one) for one in (port, rate, seconds, rows, deadline_ms)]
        # No pipe: what it says is longer than one holds.
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.harness.open_loop", *arguments], stdout=self._output, cwd=ROOT,
            env=child_variables(), preexec_fn=die_with_parent,
        )  # fmt: skip

    def running(self) -> bool:
        return self._process.poll() is None

    def result(self) -> dict[str, Any]:
        """``milliseconds`` by status, ``late_milliseconds``, ``unsent``, ``broken``, ``waiting``, ``cpu_seconds``."""
        if self._process.wait() != 0:
            raise Unavailable("the generator of requests failed")
        with self._output:
            self._output.seek(0)
            found: dict[str, Any] = json.load(self._output)
        return found


def main(port: str, rate: str, seconds: str, rows: str, deadline_ms: str) -> None:
    seen = on_the_loop(generate(int(port), float(rate), float(seconds), int(rows), int(deadline_ms)))
    rounded = {status: [round(one, 2) for one in values] for status, values in seen.milliseconds.items()}
    late = [round(one, 2) for one in seen.late_milliseconds]
    counts = {"unsent": seen.unsent, "broken": seen.broken, "waiting": seen.waiting}
    print(
        json.dumps({"milliseconds": rounded, "late_milliseconds": late, **counts, "cpu_seconds": time.process_time()})
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
