"""What a request costs beside the forward pass, by part.

    ./run bench request_cost [--quick]

Over HTTP: one client asks for one row, whose logits are in the cache, so that nothing is left but the rest. By part:
the application in this process gets the same request without a socket, and parts of it are left out one by one.
"""

import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr
from pathlib import Path
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.http_client import drive
from benchmarks.harness.process import say
from benchmarks.harness.servers import KINDS, Server
from benchmarks.harness.spread import spread
from benchmarks.harness.tables import table
from benchmarks.harness.texts import one_per_text
from service.app import Application
from service.assembly import make_app
from service.http import logs
from service.inference.batcher import Batcher
from service.routes import predict
from service.settings import Settings

ROUNDS, SECONDS, QUICK_SECONDS = 7, 4.0, 0.5
REQUESTS, QUICK_REQUESTS = 200, 20
"""Of one turn in this process."""
TURNS, QUICK_TURNS = 30, 3
PARTS = {
    "threads": "queue, batch, inference thread and back, as far as the event loop has to do with it",
    "recorded": "metrics of predictions, drift tests, the store's queue; after the answer is sent",
    "logged": "the request's metrics and its line in the log; after the answer is sent",
    "body": "the body read, decoded and checked",
    "rest": "middleware, access, routing, the answer encoded and its headers",
}
"""Left out in this order."""

REPORT = """\
One client, one row a request, its text in the cache; {rounds} rounds. From the request to the answer: {wall} µs, of
which the client and two processes' sockets are a part. The service's processor time for it, of all threads: {cpu} µs.

The event loop's thread, without a socket, processor time by part: the least of {turns} turns, µs.

{parts}
The inference thread: {diagnosis} µs for calibration, interval, set, typicality and warnings of one row, {encoding} µs
to put it into words and tokens.
"""


def measure(options: Options) -> Result:
    say("over HTTP")
    wall, cpu = _over_http(options)
    say("by part")
    parts, alone = asyncio.run(_by_part(options))
    return {"wall": wall, "cpu": cpu, "parts": parts, "alone": alone, "turns": _turns(options)}


def _over_http(options: Options) -> tuple[list[float], list[float]]:
    """Microseconds of each round: the median request, and processor time for each."""
    server = Server(KINDS["cached"], options.bundle)
    wall, cpu = [], []
    try:
        requests = server.requests(one_per_text()[:1])
        for _ in range(options.rounds(ROUNDS)):
            with server:
                before = _processor_seconds(server.process.pid)
                turn = drive(server.port, requests, 1, QUICK_SECONDS if options.quick else SECONDS, 0.2)
                spent = _processor_seconds(server.process.pid) - before
            wall.append(1e6 * float(np.median(turn.seconds)))
            # The warm-up's too, at the same rate.
            cpu.append(1e6 * spent / (len(turn.seconds) + 0.2 * turn.rate))
    finally:
        server.close()
    return wall, cpu


def _processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _by_part(options: Options) -> tuple[dict[str, float], dict[str, float]]:
    """Part → microseconds of the event loop's thread; and what the inference thread does, alone."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        stack.enter_context(redirect_stderr(stack.enter_context(Path(os.devnull).open("w"))))
        logs.configure("info", "json")
        stack.callback(logs.finish)
        settings = Settings(bundle=str(options.bundle), port=0, state="", store=f"{folder}/store.sqlite")
        app = make_app(settings, lambda _: None, lambda _: None)
        await app.services.start()
        while not app.services.batcher.ready:
            await asyncio.sleep(0.05)
        alone = _inference(app, options)
        answer = await app.services.batcher.predict([one_per_text()[0]], 60)
        found = [await _least(app, options)]
        for target, name, instead in (
            (Batcher, "predict", _gives(answer)), (predict, "_record", lambda *_: None), (app, "_log", lambda _: None),
            (app, "_count", lambda _: None), (predict, "parse_body", _gives(one_per_text()[0])),
        ):  # fmt: skip
            stack.enter_context(patch.object(target, name, instead))
            found.append(await _least(app, options))
        await app.services.stop()
    threads, recorded, logged, counted, body, rest = [a - b for a, b in zip(found, [*found[1:], 0.0], strict=True)]
    return dict(zip(PARTS, (threads, recorded, logged + counted, body, rest), strict=True)), alone


def _gives(value: object) -> Callable[..., Any]:
    """An async function that returns it at once."""

    async def give(*_: Any, **__: Any) -> object:
        return value

    return give


async def _least(app: Application, options: Options) -> float:
    """Microseconds of this thread for a request, the least of the turns."""
    turns = []
    for _ in range(_turns(options)):
        start = time.thread_time()
        for _ in range(QUICK_REQUESTS if options.quick else REQUESTS):
            await _ask(app)
        # What waits for the step after the answer.
        await asyncio.sleep(0)
        turns.append(time.thread_time() - start)
    return 1e6 * min(turns) / (QUICK_REQUESTS if options.quick else REQUESTS)


async def _ask(app: Application) -> None:
    body, sent = msgspec.json.encode(one_per_text()[0]), []
    headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "server": ("127.0.0.1", 8000),
        "client": ("127.0.0.1", 1), "scheme": "http", "root_path": "", "headers": headers, "state": {},
        "method": "POST", "path": "/v1/predict", "raw_path": b"/v1/predict", "query_string": b"",
    }  # fmt: skip

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if sent[0]["status"] != 200:
        raise RuntimeError(f"the service answered {sent}")


def _inference(app: Application, options: Options) -> dict[str, float]:
    predictor: Any = app.services.batcher.predictor
    row = one_per_text()[0]
    texts = predictor.render([row])
    logits = predictor.logits(texts)

    def least(work: Callable[[], object]) -> float:
        seconds = []
        for _ in range(_turns(options)):
            start = time.thread_time()
            for _ in range(REQUESTS):
                work()
            seconds.append(time.thread_time() - start)
        return 1e6 * min(seconds) / REQUESTS

    return {
        "diagnosis": least(lambda: predictor._diagnosis.predictions(logits, [row], texts)),
        "encoding": least(lambda: predictor.encode([row])),
    }


def _turns(options: Options) -> int:
    return QUICK_TURNS if options.quick else TURNS


def report(result: Result) -> str:
    lines = [[PARTS[name], f"{microseconds:.0f}"] for name, microseconds in result["parts"].items()]
    lines.append(["all", f"{sum(result['parts'].values()):.0f}"])
    return REPORT.format(
        rounds=len(result["wall"]), wall=spread(result["wall"]), cpu=spread(result["cpu"]), turns=result["turns"],
        parts=table(["part", "µs"], lines), **{name: f"{value:.0f}" for name, value in result["alone"].items()},
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(run("request_cost", __doc__, measure, report))
