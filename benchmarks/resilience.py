"""Overload, idle and slow connections, and hours at a steady load.

    ./run bench resilience [--quick]

Overload: an open loop sends 2 and 10 times of what the service was just measured to be able to do, for a minute each.
Connections: a normal client beside 1,000 idle ones and 200 that send a byte a second. Soak: half an hour (times
--scale) at 70 % of capacity, for growth of memory, threads and descriptors. The cache of answers is off.
"""

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.http_client import drive, request
from benchmarks.harness.open_loop import OpenLoop
from benchmarks.harness.process import say
from benchmarks.harness.servers import KINDS, Server
from benchmarks.harness.slow_connections import SlowConnections
from benchmarks.harness.spread import number, ratio, spread
from benchmarks.harness.tables import table
from benchmarks.harness.texts import body, one_per_text

OVERLOADS = ((1, 2), (1, 10), (32, 2), (32, 10))
"""Rows of a request, times the capacity."""
DEADLINE_MS = 2000
SECONDS = 60.0
CAPACITY_SECONDS, WARM_SECONDS = 8.0, 2.0
CLIENTS = {1: 64, 32: 8}
"""Rows of a request → requests in flight while the capacity is measured."""

IDLE, SLOW = 1000, 200
CONNECTIONS_ROUNDS, CONNECTIONS_SECONDS = 7, 10.0
SOAK_SECONDS, SOAK_SHARE = 1800.0, 0.7
SAMPLE_SECONDS = 5.0
SETTLED = 0.1
"""Share of the soak's samples at either end that its growth is estimated from; those before the first are left out."""
TICKS = os.sysconf("SC_CLK_TCK")

REPORT = """\
{overload}
The capacity is what a closed loop reached just before and after; goodput counts rows that were answered with 200. Every
request said `X-Request-Timeout-Ms: {deadline}`. The generator takes its time from the same {cores} cores, and so do
refusals: at ten times the capacity in single rows, thousands a second, both are missing to the model.

A client of single requests, one after the other, beside {idle} idle connections and {slow} that send a byte a second,
in turns with none; milliseconds:

{held}
{soak_seconds:.0f} minutes at {share:.0%} of capacity, {soak_rate} requests/s, the prediction log on:

{soak}"""


def measure(options: Options) -> Result:
    server = Server(KINDS["evenkeel"], options.bundle)
    try:
        with server:
            overload = [_overload(server, rows, times, options) for rows, times in OVERLOADS]
            held = _beside_connections(server, options)
            soak = _soak(server, options)
    finally:
        server.close()
    return {"overload": overload, "connections_held": held, "soak": soak}


def _overload(server: Server, rows: int, times: int, options: Options) -> dict[str, Any]:
    say(f"{times} times the capacity, {rows} rows a request")
    seconds = 6.0 if options.quick else SECONDS
    before = _capacity(server, rows, options)
    cpu, load = _cpu_seconds(server), os.getloadavg()[0]
    start = time.perf_counter()
    found = OpenLoop(server.port, times * before / rows, seconds, rows, DEADLINE_MS).result()
    took = time.perf_counter() - start
    cpu = _cpu_seconds(server) - cpu
    after = _capacity(server, rows, options)
    answered = found["milliseconds"]
    return {
        "rows": rows, "times": times, "capacities": [before, after], "seconds": seconds, "load_average": load,
        "statuses": {status: len(values) for status, values in answered.items()},
        "goodput": rows * len(answered.get("200", ())) / seconds,
        "accepted_p99": _p99(answered.get("200", ())), "refused_p99": _p99(answered.get("429", ())),
        "late_p99": _p99(found["late_milliseconds"]), "generator_cores": found["cpu_seconds"] / took,
        "service_cores": cpu / took, **{name: found[name] for name in ("unsent", "broken", "waiting")},
    }  # fmt: skip


def _capacity(server: Server, rows: int, options: Options) -> float:
    """Rows per second of a closed loop."""
    bodies = [body(one) for one in one_per_text()]
    if rows == 1:
        requests = [request(server.port, "/v1/predict", one) for one in bodies]
    else:
        parts = [bodies[first : first + rows] for first in range(0, len(bodies) - rows, rows)]
        requests = [request(server.port, "/v1/predict/batch", {"rows": part}) for part in parts]
    seconds, warm_seconds = (2.0, 0.5) if options.quick else (CAPACITY_SECONDS, WARM_SECONDS)
    return rows * drive(server.port, requests, CLIENTS[rows], seconds, warm_seconds).rate


def _beside_connections(server: Server, options: Options) -> dict[str, Any]:
    requests = [request(server.port, "/v1/predict", body(one)) for one in one_per_text()]
    seconds = 2.0 if options.quick else CONNECTIONS_SECONDS
    found: dict[str, Any] = {"alone": [], "beside": [], "load_average": os.getloadavg()[0]}
    for one in range(options.rounds(CONNECTIONS_ROUNDS, 1)):
        say(f"idle and slow connections, round {one + 1}")
        found["alone"].append(_milliseconds(server, requests, seconds))
        with SlowConnections(server.port, IDLE, SLOW):
            found["beside"].append(_milliseconds(server, requests, seconds))
            found["connections"] = len(os.listdir(f"/proc/{server.process.pid}/fd"))
    return found


def _milliseconds(server: Server, requests: list[bytes], seconds: float) -> dict[str, float]:
    turn = drive(server.port, requests, 1, seconds, 0.5)
    return {"p50": 1e3 * float(np.median(turn.seconds)), "p99": _p99([1e3 * one for one in turn.seconds])}


def _soak(server: Server, options: Options) -> dict[str, Any]:
    seconds = 60.0 if options.quick else SOAK_SECONDS * options.scale
    rate = SOAK_SHARE * _capacity(server, 1, options)
    say(f"{seconds / 60:.0f} minutes at {SOAK_SHARE:.0%} of capacity")
    loop = OpenLoop(server.port, rate, seconds, 1)
    samples = []
    load = os.getloadavg()[0]
    while loop.running():
        samples.append(_sample(server.process.pid))
        time.sleep(SAMPLE_SECONDS)
    found = loop.result()
    return {
        "seconds": seconds, "rate": rate, "samples": samples, "load_average": load,
        "statuses": {status: len(values) for status, values in found["milliseconds"].items()},
        "p99": _p99(found["milliseconds"].get("200", ())), "broken": found["broken"], "waiting": found["waiting"],
    }  # fmt: skip


def _sample(pid: int) -> dict[str, float]:
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    opened = [_opened(path) for path in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = sum(one.startswith("socket:") for one in opened)
    return {
        "seconds": time.monotonic(), "mib": int(fields["VmRSS"].split()[0]) / 1024, "threads": int(fields["Threads"]),
        "sockets": sockets, "descriptors": len(opened) - sockets,
    }  # fmt: skip


def _opened(descriptor: Path) -> str:
    try:
        return os.readlink(descriptor)
    except OSError:  # It was closed meanwhile.
        return "socket:"


def _cpu_seconds(server: Server) -> float:
    """What the service has taken of the cores so far."""
    fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def _p99(milliseconds: Any) -> float:
    return float(np.quantile(milliseconds, 0.99)) if len(milliseconds) else 0.0


def report(result: Result) -> str:
    held, soak = result["connections_held"], result["soak"]
    return REPORT.format(
        overload=_overload_table(result["overload"]), deadline=DEADLINE_MS, cores=result["machine"]["cores"],
        idle=f"{IDLE:,}", slow=SLOW, held=_connections_table(held),
        soak_seconds=soak["seconds"] / 60, share=SOAK_SHARE, soak_rate=number(soak["rate"]), soak=_soak_table(soak),
    )  # fmt: skip


def _overload_table(runs: list[dict[str, Any]]) -> str:
    columns = (
        "rows of a request", "times capacity", "capacity, rows/s", "goodput ÷ capacity", "statuses", "p99 of 200, ms",
        "p99 of 429, ms", "generator late by, p99 ms", "cores of service, generator", "load average",
    )  # fmt: skip
    return table(columns, [_overload_row(one) for one in runs])


def _overload_row(one: dict[str, Any]) -> list[str]:
    capacity = float(np.mean(one["capacities"]))
    counts = [f"{status}: {count}" for status, count in sorted(one["statuses"].items())]
    counts += [f"{name}: {one[name]}" for name in ("unsent", "broken", "waiting") if one[name]]
    return [
        str(one["rows"]), str(one["times"]), " and ".join(map(number, one["capacities"])),
        f"{one['goodput'] / capacity:.2f}", ", ".join(counts), number(one["accepted_p99"]), number(one["refused_p99"]),
        number(one["late_p99"]), f"{one['service_cores']:.2f}, {one['generator_cores']:.2f}",
        f"{one['load_average']:.1f}",
    ]  # fmt: skip


def _connections_table(held: dict[str, Any]) -> str:
    rows = []
    for name in ("p50", "p99"):
        alone, beside = ([one[name] for one in held[kind]] for kind in ("alone", "beside"))
        rows.append((name, spread(alone), spread(beside), ratio(beside, alone)))
    return table(("", "alone", "beside them", "ratio of a round"), rows) + (
        f"\nDescriptors of the service meanwhile: {held['connections']:,}. Load average before: "
        f"{held['load_average']:.1f}.\n"
    )


def _soak_table(soak: dict[str, Any]) -> str:
    samples = soak["samples"]
    settled = max(1, int(SETTLED * len(samples)))
    samples = samples[settled:]
    rows = []
    for name, key in (("resident memory, MiB", "mib"), ("threads", "threads"), ("open files", "descriptors"),
                      ("sockets, as many as the generator opens", "sockets")):  # fmt: skip
        values = np.array([one[key] for one in samples])
        first, last = float(values[:settled].mean()), float(values[-settled:].mean())
        hours = np.array([one["seconds"] for one in samples]) / 3600
        slope = float(np.polyfit(hours, values, 1)[0]) if len(values) > 2 else 0.0
        rows.append((name, number(first), number(last), f"{(last / first - 1):+.1%}", f"{slope:+.1f}"))
    counts = ", ".join(f"{status}: {count}" for status, count in sorted(soak["statuses"].items()))
    return table(("", "first tenth", "last tenth", "growth", "slope per hour"), rows) + (
        f"\nStatuses: {counts}; broken: {soak['broken']}; p99 {number(soak['p99'])} ms. The first tenth of the time is "
        f"left out. Load average before: {soak['load_average']:.1f}.\n"
    )


if __name__ == "__main__":
    sys.exit(run("resilience", __doc__, measure, report))
