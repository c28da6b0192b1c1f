"""./run load plan: what a rate of single predictions needs in replicas, cores, memory, scrapes, store and money.

./run load plan --requests-per-second 1e4 --p99 100                by the last ramp's capacity model
./run load plan --requests-per-second 1e6 --replica-rate 500       by what one replica is to carry
./run load plan --requests-per-second 1e4 --replica-rate 500 --core-hour 0.04 --store-rows-per-second 40000

What a replica costs beside processor time can be read from a running one (--host). Prices are yours: none is built in.
"""

import argparse
import math
import random
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from loadtest.capacity import model as capacity

DAY = 86_400


class Replica(Struct, frozen=True, kw_only=True):
    """One process on a machine of its own: requests per second it is to carry, and what it takes and gives.

    The defaults were measured with the packaged model on the two cores of docs/benchmarks.md; docs/scale.md says how.
    """

    rate: float
    cores: float = 2
    mib: float = 310
    scrape_bytes: int = 66_500
    scrape_series: int = 730


class Plan(Struct, frozen=True, kw_only=True):
    """What ``rate`` single predictions per second need. Bytes are of Prometheus' text format without compression."""

    rate: float
    replicas: int
    cores: float
    gib: float
    core_seconds_per_million: float
    series: int
    samples_per_second: float
    scrape_bytes_per_second: float
    log_rows_per_day: float
    replica_rows_per_day: float


def plan(rate: float, replica: Replica, scrape_seconds: float) -> Plan:
    """As many replicas as carry the rate, each no more than ``replica.rate``."""
    count = max(1, math.ceil(rate / replica.rate - 1e-9))
    return Plan(
        rate=rate, replicas=count, cores=count * replica.cores, gib=count * replica.mib / 1024,
        core_seconds_per_million=1e6 * count * replica.cores / rate, series=count * replica.scrape_series,
        samples_per_second=count * replica.scrape_series / scrape_seconds,
        scrape_bytes_per_second=count * replica.scrape_bytes / scrape_seconds, log_rows_per_day=rate * DAY,
        replica_rows_per_day=rate * DAY / count,
    )  # fmt: skip


def table(found: Plan, core_hour: float | None, store_rows: float | None, run_length: float) -> str:
    """The plan for a person."""
    lines = [
        ("replicas", f"{found.replicas:,}", f"{found.rate / found.replicas:,.0f} requests/s each"),
        ("cores", f"{found.cores:,.0f}", f"{found.core_seconds_per_million:,.0f} core-seconds a million predictions"),
        ("memory", f"{found.gib:,.1f} GiB", "of the replicas"),
        ("Prometheus", f"{found.series:,} series", f"{found.samples_per_second:,.0f} samples/s"),
        ("scrapes", f"{found.scrape_bytes_per_second / 1e6:,.2f} MB/s", "uncompressed"),
        ("prediction log", f"{found.rate:,.0f} rows/s", f"{found.log_rows_per_day:,.0f} rows a day"),
    ]
    if store_rows is not None:
        lines.append(("databases", f"{math.ceil(found.rate / store_rows):,}", f"{store_rows:,.0f} rows/s each"))
    lines += [
        (
            "false drift alarms",
            _days(run_length / found.replica_rows_per_day),
            "apart on average at least, by the replicas' mean",
        ),
        ("", _days(run_length / found.log_rows_per_day), "… where any replica alarms"),
    ]
    if core_hour is not None:
        hour = found.cores * core_hour
        million = hour * 1e6 / (3600 * found.rate)
        lines.append(("cost", f"{hour:,.2f} an hour", f"{million:,.4f} a million predictions"))
    return "\n".join(f"{name:20}{value:>20}   {note}" for name, value, note in lines)


def _days(days: float) -> str:
    return (
        f"{days:,.1f} days" if days >= 1 else f"{days * 24:,.1f} hours" if days * 24 >= 1 else f"{days * 1440:.1f} min"
    )


def scraped(host: str) -> tuple[int, int]:
    """Bytes and series of a running replica's metrics; raises OSError."""
    with urllib.request.urlopen(f"{host.rstrip('/')}/metrics", timeout=30) as answer:
        content: bytes = answer.read()
    return len(content), sum(bool(line) and not line.startswith(b"#") for line in content.splitlines())


def replica_rate(model: capacity.CapacityModel, rate: float, p99_ms: float) -> float | None:
    """What each replica carries where all together keep the percentile; None where an idle one is too slow already."""
    answer = capacity.replicas(model, rate, p99_ms, random.Random(1))
    return answer[1].rate if answer else None


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The flags; exits with 2 for what is not accepted."""
    parser = argparse.ArgumentParser(
        prog="./run load plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, usual = parser.add_argument, Replica(rate=1)
    add("--requests-per-second", type=_positive, required=True, metavar="R", help="single predictions")
    add("--replica-rate", type=_positive, metavar="R", help="requests per second that one replica is to carry")
    add("--p99", type=_positive, metavar="MS", help="instead: the 99th percentile to keep, by a ramp's capacity model")
    add("--model", type=Path, help="summary.json of that ramp (default: the last one's)")
    add("--cores", type=_positive, default=usual.cores, help="of a replica (default: %(default)s)")
    add("--mib", type=_positive, default=usual.mib, help="memory of a replica (default: %(default)s)")
    add("--host", help="a running replica, whose /metrics is measured; by default as docs/scale.md has it")
    add("--scrape-seconds", type=_positive, default=15.0, help="between two scrapes (default: %(default)s)")
    add("--store-rows-per-second", type=_positive, metavar="R", help="that one database takes; docs/scale.md")
    add(
        "--drift-run-length",
        type=_positive,
        default=5.832e8,
        metavar="N",
        help="of a stream of the service (default: 5.832e8, that of the service's own defaults)",
    )
    add("--core-hour", type=_positive, metavar="PRICE", help="price of a core for an hour, in any currency")
    options = parser.parse_args(arguments)
    if (options.replica_rate is None) == (options.p99 is None):
        parser.error("give either --replica-rate or --p99")
    return options


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text} must be a number above 0")
    return value
