"""Cold start, memory and its growth under requests, and the scoring of files.

./run bench startup [--quick]
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.http_client import send
from benchmarks.harness.machine import ROOT, child_variables, die_with_parent, interpreter
from benchmarks.harness.process import Unavailable, last_line, say, scratch
from benchmarks.harness.servers import KINDS, Server
from benchmarks.harness.spread import number, spread
from benchmarks.harness.tables import table
from benchmarks.harness.texts import mixed_rows, parse, real_rows, records, write_csv
from models.bundle.read import read_bundle
from models.rows import Row
from models.text import Renderer

STARTS = 10
REQUESTS, QUICK_REQUESTS = 10_000, 400
CLIENTS = 16
KIB_PER_MIB = 1024
SCORINGS: dict[str, dict[str, Any]] = {
    "repeated": {"name": "drawn from the 891 real ones", "rows": 200_000, "quick": 20_000, "flags": ()},
    "mixed": {"name": "every field drawn on its own", "rows": 20_000, "quick": 1_000, "flags": ()},
    "uncached": {
        "name": "every field drawn on its own, --cache-rows 0", "rows": 5_000, "quick": 500,
        "flags": ("--cache-rows", "0"),
    },
}  # fmt: skip
ROUNDS = 3

REPORT = """\
Cold start, from the start of `python -m service` until /health/ready, asked every 10 ms, answers 200: {start} s;
{starts} starts, the slowest {slowest} s. The files are in the page cache.

Resident memory (VmRSS) of the service with its default cache, MiB, {clients} clients; median [quartiles] over services.

{memory}
Every new text adds an entry to the cache, about 200 bytes, until the cache is full; repeated rows add none.

`python -m service score`, from the start of the process to its end, loading included; median over runs [quartiles].

{scoring}"""


def measure(options: Options) -> Result:
    rng = np.random.default_rng(0)
    say("starts")
    starts = [_start(options) for _ in range(options.rounds(STARTS))]
    memory = {}
    for name, sent in (("repeated", list(real_rows())), ("distinct", _distinct(rng, REQUESTS))):
        say(f"memory, {name} rows")
        memory[name] = [_memory(options, sent) for _ in range(options.rounds(ROUNDS, 1))]
    with scratch() as folder:
        scorings = {name: _scorings(Path(folder), name, options, rng) for name in SCORINGS}
    return {"starts": starts, "memory": memory, "scorings": scorings}


def _start(options: Options) -> float:
    server = Server(KINDS["cached"], options.bundle)
    server.close()
    return server.start_seconds


def _distinct(rng: np.random.Generator, count: int) -> list[Row]:
    """Rows that all differ, most of them in their text too."""
    found: dict[Row, None] = {}
    while len(found) < count:
        for record in mixed_rows(rng, count):
            found[parse(record)] = None
    return list(found)[:count]


def _words(sent: list[Row], options: Options) -> list[str]:
    bundle = read_bundle(options.bundle)
    renderer = Renderer(bundle.schema)
    return [renderer(row, bundle.known) for row in sent]


def _memory(options: Options, sent: list[Row]) -> dict[str, Any]:
    """VmRSS in MiB when ready and after each half of the requests."""
    half = (QUICK_REQUESTS if options.quick else REQUESTS) // 2
    server = Server(KINDS["cached"], options.bundle)
    try:
        ready, halves, failed = server.resident_mib(), [], 0
        for first in (0, half):
            with server:
                chosen = [sent[row % len(sent)] for row in range(first, first + half)]
                failed += send(server.port, server.requests(chosen), CLIENTS).failed
                halves.append(server.resident_mib())
    finally:
        server.close()
    texts = len(set(_words([sent[row % len(sent)] for row in range(2 * half)], options)))
    return {"ready": ready, "halves": halves, "failed": failed, "requests": 2 * half, "texts": texts}


def _scorings(folder: Path, name: str, options: Options, rng: np.random.Generator) -> dict[str, Any]:
    scoring = SCORINGS[name]
    rows = scoring["quick"] if options.quick else scoring["rows"]
    source = folder / f"{name}.csv"
    say(f"scoring {rows:,} rows, {scoring['name']}")
    if name == "repeated":
        real = records()
        drawn = [real[index] for index in rng.integers(len(real), size=rows)]
    else:
        drawn = mixed_rows(rng, rows)
    write_csv(source, drawn)
    texts = len(set(_words([parse(dict(row)) for row in {tuple(row.items()) for row in drawn}], options)))
    runs = [_score(source, scoring["flags"], options) for _ in range(options.rounds(ROUNDS, 1))]
    source.unlink()
    return {"rows": rows, "texts": texts, "seconds": [one[0] for one in runs], "peak_mib": [one[1] for one in runs]}


def _score(source: Path, flags: tuple[str, ...], options: Options) -> tuple[float, float]:
    """Seconds from the start of the process to its end, and its peak memory in MiB."""
    output = source.with_name("scored.csv")
    command = [interpreter("core"), "-m", "service", "score", source, output, "--bundle", options.bundle, *flags]
    with tempfile.TemporaryFile() as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], stdout=log, stderr=log, env=child_variables(), cwd=ROOT,
            preexec_fn=die_with_parent,
        )  # fmt: skip
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise Unavailable(f"score ended with {process.returncode}: {last_line(log)}")
    output.unlink()
    return seconds, usage.ru_maxrss / (KIB_PER_MIB if sys.platform != "darwin" else KIB_PER_MIB**2)


def report(result: Result) -> str:
    starts = result["starts"]
    return REPORT.format(
        start=spread(starts), starts=len(starts), slowest=number(max(starts)), clients=CLIENTS,
        memory=_memory_table(result), scoring=_scoring_table(result),
    )  # fmt: skip


def _memory_table(result: Result) -> str:
    lines = []
    for name, services in result["memory"].items():
        if any(one["ready"] is None for one in services):
            return "Not measured: this system has no /proc.\n"
        readings = [(one["ready"], *one["halves"]) for one in services]
        columns = [spread(column) for column in zip(*readings, strict=True)]
        growth = spread([second - first for _, first, second in readings])
        failed = sum(one["failed"] for one in services)
        lines.append(
            [name, services[0]["requests"], services[0]["texts"], *columns, growth, len(services), failed]
        )  # fmt: skip
    return table(
        ["rows", "requests", "texts", "ready", "after half", "after all", "growth in the second half", "services",
         "failed"], lines,
    )  # fmt: skip


def _scoring_table(result: Result) -> str:
    lines = []
    for name, one in result["scorings"].items():
        rates = [one["rows"] / seconds for seconds in one["seconds"]]
        spreads = [spread(one["seconds"]), spread(rates), spread(one["peak_mib"])]
        lines.append([f"{one['rows']:,}", f"{one['texts']:,}", SCORINGS[name]["name"], *spreads, len(rates)])
    return table(["rows", "distinct texts", "", "seconds", "rows/s", "peak MiB", "runs"], lines)


if __name__ == "__main__":
    sys.exit(run("startup", __doc__, measure, report))
