"""Outcomes per second over HTTP, each durable before it is answered, and what logging costs a prediction.

./run bench outcomes [--quick]
"""

import sys
import tempfile
import time
import urllib.request
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec
from prometheus_client import CollectorRegistry

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.http_client import request, send
from benchmarks.harness.process import Unavailable, say
from benchmarks.harness.servers import KINDS, Server
from benchmarks.harness.spread import Spread, number, spread
from benchmarks.harness.tables import table
from benchmarks.harness.texts import one_per_text, schema
from benchmarks.store_writes import PREDICTION
from service.metrics import Metrics
from service.store.databases import SqliteFile
from service.store.store import Store
from service.uuid7 import uuid7

ROUNDS = 5
LOADS = ((1, 1, 400), (1, 8, 2000), (1, 32, 4000), (32, 8, 20_000), (1024, 1, 40_000), (1024, 8, 40_000))
"""Outcomes of a request, clients, outcomes of a round."""
LOGGED = {1: 4000, 1024: 40}
"""Rows of a request → requests of a round."""

REPORT = """\
Outcomes per second to POST /v1/outcomes, in a SQLite file on this machine's disk; every answer came after the commit
was synced. {rounds} rounds; within a round no outcome was sent twice.

{rates}
What logging adds to a request, microseconds in the event loop's thread, while the store's thread writes:

{costs}"""


def measure(options: Options) -> Result:
    server = Server(KINDS["cached"], options.bundle)
    try:
        with server:
            rates: dict[str, list[float]] = {}
            for number_of_round in range(options.rounds(ROUNDS, 1)):
                say(f"round {number_of_round + 1}")
                for size, clients, count in LOADS:
                    few = max(size, count // 10) if options.quick else count
                    rates.setdefault(f"{size} {clients}", []).append(_rate(server.port, size, clients, few))
    finally:
        server.close()
    say("the log")
    return {"rates": rates, "costs": {str(rows): _costs(rows, options) for rows in LOGGED}}


def _rate(port: int, size: int, clients: int, count: int) -> float:
    """Outcomes per second, of predictions that have none yet."""
    parts = _batches(_predictions(port, count), size)
    name = schema().classes[0]
    requests = [
        request(port, "/v1/outcomes", {"outcomes": [{"id": id, "outcome": name} for id in part]}) for part in parts
    ]
    start = time.perf_counter()
    load = send(port, requests, clients)
    seconds = time.perf_counter() - start
    if load.failed:
        raise Unavailable(f"{load.failed} of {len(requests)} requests failed")
    return count / seconds


def _predictions(port: int, count: int) -> list[str]:
    """The ids of new predictions."""
    rows = [msgspec.to_builtins(row) for row in islice(one_per_text(), 1024)]
    ids: list[str] = []
    while len(ids) < count:
        some = (rows * 1024)[: min(1024, count - len(ids))]
        asked = urllib.request.Request(
            f"http://127.0.0.1:{port}/v1/predict/batch", msgspec.json.encode({"rows": some}),
            {"Content-Type": "application/json"},
        )  # fmt: skip
        with urllib.request.urlopen(asked, timeout=120) as answer:
            ids += [one["id"] for one in msgspec.json.decode(answer.read())["predictions"]]
    return ids


def _costs(rows: int, options: Options) -> list[float]:
    """Microseconds per prediction of `Store.log`, over rounds."""
    logged, predictions = [one_per_text()[0]] * rows, [PREDICTION] * rows
    found = []
    with tempfile.TemporaryDirectory() as folder:
        file = SqliteFile(Path(folder) / "predictions.sqlite")
        store = Store(
            file, Metrics(CollectorRegistry()), inputs="row", max_rows=10**6, max_days=90, queue_rows=1 << 20
        )  # fmt: skip
        store.bundle_loaded("0" * 12, schema())
        store.start()
        for _ in range(options.rounds(ROUNDS, 1)):
            ids = [[uuid7() for _ in range(rows)] for _ in range(LOGGED[rows])]
            spent = 0.0
            for some in ids:
                start = time.perf_counter()
                store.log("0" * 12, some, logged, predictions)
                spent += time.perf_counter() - start
                # As in a service, where the event loop waits for the network between two requests.
                time.sleep(0.0002)
            found.append(spent / (LOGGED[rows] * rows) * 1e6)
        store.stop(60)
    return found


def report(result: Result) -> str:
    loads = {name: spread(rates) for name, rates in result["rates"].items()}
    costs = {rows: spread(found) for rows, found in result["costs"].items()}
    return REPORT.format(
        rounds=next(iter(loads.values())).rounds,
        rates=table(
            ("outcomes of a request", "clients", "outcomes/s"),
            [(*name.split(), str(found)) for name, found in loads.items()],
        ),
        costs=table(
            ("predictions of a request", "µs per prediction", "µs per request"),
            [(rows, str(found), _times(found, int(rows))) for rows, found in costs.items()],
        ),
    )


def _times(one: Spread, factor: int) -> str:
    return number(one.median * factor)


def _batches(ids: list[str], size: int) -> list[Any]:
    return [ids[first : first + size] for first in range(0, len(ids), size)]


if __name__ == "__main__":
    sys.exit(run("outcomes", __doc__, measure, report))
