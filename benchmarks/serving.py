"""Requests per second and latency over HTTP on 127.0.0.1, beside other servers of the same bundle.

    ./run bench serving [--quick]

One client process for everybody keeps 1 to 128 requests in flight, each of one row, no two in flight with the
same text. All servers are loaded, and stopped while another is measured; each round measures all, in random order.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from benchmarks.harness.command import Options, Result, run
from benchmarks.harness.http_client import drive, send
from benchmarks.harness.process import Contender, Unavailable, running, say
from benchmarks.harness.servers import KINDS, Kind, Server
from benchmarks.harness.spread import Spread, ratio, spread
from benchmarks.harness.tables import bullets, settings, skipped, table
from benchmarks.harness.texts import draw, one_per_text

NAMES = {name: kind.name for name, kind in KINDS.items()}
CLIENTS = (1, 8, 32, 128)
ROUNDS = 7
SECONDS, WARM_SECONDS = 4.0, 1.0
SAMPLE = 8
"""Rows whose answers are compared before anything is measured."""
BATCH_ROWS, BATCHES = 32, 8
"""Of the forward pass that the served rate is compared with."""

REPORT = """\
One row per request, keep-alive, 127.0.0.1; {rounds} rounds of {seconds} for each server and number of clients.
{texts} rows with distinct texts in turn, so that no two in flight share one. Every server has answered all of
them once before. The client takes its time from the same cores, from everybody's alike.

Requests per second:

{rates}
Evenkeel with its cache off ÷ the other, round by round. Above 1, Evenkeel is faster.

{ratios}
Evenkeel int8 with its cache off ÷ the other:

{int8}
Latency, milliseconds. The median of a round's requests:

{p50}
The 99th percentile of a round's requests:

{p99}
{notes}
Settings:

{settings}
{skipped}"""


def measure(options: Options) -> Result:
    rng = np.random.default_rng(0)
    rows = [one_per_text()[index] for index in rng.permutation(len(one_per_text()))]
    offline = {"offline": ("core", "benchmarks.contenders.forward", ["evenkeel", str(options.bundle)])}
    with running(offline) as (forwards, why), _servers(options) as (servers, reasons):
        if "evenkeel" not in servers or not forwards:
            raise Unavailable(reasons.get("evenkeel") or why["offline"])
        answers = {name: _answers(server) for name, server in servers.items()}
        requests = {name: server.requests(rows) for name, server in servers.items()}
        for name, server in servers.items():
            with server:
                send(server.port, requests[name][: 32 if options.quick else None], max(CLIENTS))
        turns: Any = {name: {str(clients): [] for clients in CLIENTS} for name in servers}
        batches: list[Any] = []
        for number in range(options.rounds(ROUNDS, 1)):
            say(f"round {number + 1}")
            for clients in CLIENTS:
                for name in rng.permutation(list(servers)).tolist():
                    turns[name][str(clients)].append(_turn(servers[name], requests[name], clients, options))
                if clients == BATCH_ROWS:
                    batches.append(_offline(forwards["offline"], rng))
    return {
        "turns": turns, "offline": batches, "skipped": reasons, "difference": _differences(answers),
        "texts": len(rows),
    }  # fmt: skip


@contextmanager
def _servers(options: Options) -> Iterator[tuple[dict[str, Server], dict[str, str]]]:
    with ExitStack() as stack:
        found, reasons = {}, {}
        for name, kind in KINDS.items():
            say(f"starting {name}")
            try:
                found[name] = Server(
                    replace(kind, command=(*kind.command, *_quick_flags(kind, options))), options.bundle
                )
                stack.callback(found[name].close)
            except Unavailable as error:
                reasons[name] = str(error)
                say(f"{name} is left out: {error}")
        yield found, reasons


def _quick_flags(kind: Kind, options: Options) -> tuple[str, ...]:
    """What spares the contenders that are ours their trials at the start."""
    return ("--group-rows", "32") if options.quick and kind.environment == "bench" else ()


def _answers(server: Server) -> list[float]:
    with server:
        return [server.probability(row) for row in one_per_text()[:SAMPLE]]


def _differences(answers: dict[str, list[float]]) -> dict[str, float]:
    """Largest difference of each server's probabilities from Evenkeel's."""
    ours = np.array(answers["evenkeel"])
    return {name: float(np.abs(np.array(theirs) - ours).max()) for name, theirs in answers.items()}


def _turn(server: Server, requests: list[bytes], clients: int, options: Options) -> dict[str, Any]:
    """One server under one load: requests per second, and milliseconds of each request."""
    seconds, warm_seconds = (0.6, 0.2) if options.quick else (SECONDS, WARM_SECONDS)
    with server:
        turn = drive(server.port, requests, clients, seconds, warm_seconds)
    return {"rate": turn.rate, "failed": turn.failed, "milliseconds": [round(1e3 * one, 3) for one in turn.seconds]}


def _offline(forward: Contender, rng: np.random.Generator) -> list[float]:
    """Seconds of batches of the same size, without a server."""
    took: list[float] = forward.ask("time", batches=[draw(rng, BATCH_ROWS) for _ in range(BATCHES)])
    return took


def _rates(result: Result, name: str, clients: int) -> list[float]:
    return [turn["rate"] for turn in result["turns"][name][str(clients)]]


def _quantiles(result: Result, name: str, clients: int, q: float) -> list[float]:
    """A quantile of the latency in each round, milliseconds."""
    # No request answered: its latency is longer than any round.
    return [float(np.quantile(turn["milliseconds"] or [np.inf], q)) for turn in result["turns"][name][str(clients)]]


def report(result: Result) -> str:
    names = [name for name in NAMES if name in result["turns"]]
    return REPORT.format(
        rounds=len(_rates(result, "evenkeel", 1)), seconds=_seconds(result), texts=result["texts"],
        rates=_table(names, lambda name, clients: spread(_rates(result, name, clients))),
        ratios=_table(names[1:], lambda name, clients: ratio_to(result, name, clients)),
        int8=_table(_peers(result), lambda name, clients: ratio_to(result, name, clients, "int8"))
        if "int8" in result["turns"] else "Not measured: the bundle has not passed `./run train precision`.\n",
        p50=_table(names, lambda name, clients: spread(_quantiles(result, name, clients, 0.5))),
        p99=_table(names, lambda name, clients: spread(_quantiles(result, name, clients, 0.99))),
        notes=bullets([*_against_offline(result), *_checks(result, names)]),
        settings=settings(NAMES, {name: _settings(result, name) for name in names}),
        skipped=skipped(NAMES, result["skipped"]),
    )  # fmt: skip


def others(result: Result) -> list[str]:
    return [name for name in NAMES if name in result["turns"] and name not in ("evenkeel", "cached")]


def _peers(result: Result) -> list[str]:
    return [name for name in others(result) if name != "int8"]


def ratio_to(result: Result, name: str, clients: int, ours: str = "evenkeel") -> Spread:
    """The rate of one of ours with its cache off ÷ the other's, round by round."""
    return ratio(_rates(result, ours, clients), _rates(result, name, clients))


def _table(names: Sequence[str], cell: Callable[[str, int], object]) -> str:
    """A row for each server, a column for each number of clients."""
    columns = ["clients", *map(str, CLIENTS)]
    return table(columns, [[NAMES[name], *(cell(name, clients) for clients in CLIENTS)] for name in names])


def _checks(result: Result, names: Sequence[str]) -> list[str]:
    failed = {name: sum(turn["failed"] for turns in result["turns"][name].values() for turn in turns) for name in names}
    differences = (f"{NAMES[name]} {result['difference'][name]:.1e}" for name in names[1:])
    return [
        f"Failed requests: {', '.join(f'{NAMES[name]} {count}' for name, count in failed.items())}.",
        f"Largest difference of an answer from Evenkeel's, before calibration, of {SAMPLE} rows: "
        f"{', '.join(differences)}.",
    ]


def _settings(result: Result, name: str) -> str:
    return KINDS[name].settings.replace("{cores}", str(result["machine"]["cores"]))


def _seconds(result: Result) -> str:
    turn = result["turns"]["evenkeel"]["1"][0]
    return f"{len(turn['milliseconds']) / turn['rate']:.0f} s"


def _against_offline(result: Result) -> list[str]:
    """What serving costs: the same rows by the forward pass alone, in the same rounds."""
    batches = [float(np.median(took)) for took in result["offline"]]
    rows = [BATCH_ROWS / seconds for seconds in batches]
    p99 = _quantiles(result, "evenkeel", BATCH_ROWS, 0.99)
    return [
        f"Served at {BATCH_ROWS} clients with the cache off ÷ the forward pass alone at batches of {BATCH_ROWS}: "
        f"{ratio(_rates(result, 'evenkeel', BATCH_ROWS), rows)}. The forward pass alone: {spread(rows)} rows/s.",
        f"p99 at {BATCH_ROWS} clients ÷ the time of a batch of {BATCH_ROWS}: {ratio(p99, [1e3 * t for t in batches])}. "
        "In a closed loop a request waits for the batch before it and for its own.",
    ]


if __name__ == "__main__":
    sys.exit(run("serving", __doc__, measure, report))
