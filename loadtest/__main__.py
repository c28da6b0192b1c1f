"""./run load: load on a service, every answer checked, a verdict by exit code.

./run load                                  smoke: ten seconds of everything, at a service started for it
./run load --scenario ramp                  how much one replica carries, and a model of it
./run load capacity --target-rate 500 --p99 100
                                            how many replicas, by the last ramp (or --model its summary.json)
./run load plan --requests-per-second 1e4 --p99 100
                                            the same, with cores, memory, scrapes, store and cost; plan --help
./run load --scenario steady --rate 100 --time 2m --host http://127.0.0.1:8000
./run load --users 32                       closed model: each asks again when it has its answer
./run load --web                            locust's page on 127.0.0.1:8089
"""

import argparse
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from loadtest.capacity import model as capacity
from loadtest.capacity import plan
from loadtest.flags import add_handed_on, handed_on, refuse_unknown
from loadtest.traffic.corpus import RESULTS, ensure_corpus
from loadtest.traffic.key import key_headers
from loadtest.traffic.local_service import LocalService, find_bundle, free_port, other_bundle
from loadtest.traffic.rows import SHIFTS
from loadtest.traffic.scenarios import SCENARIOS, Scenario

ROOT = Path(__file__).parents[1]
LOCUSTFILE = Path(__file__).with_name("locustfile.py")
CONNECTIONS = 128
"""Of the open model, at least; a service that keeps up needs few of them."""

REPORT_SECONDS = 10.0
"""After Ctrl-C, for the report of what was seen."""


def main(arguments: Sequence[str] | None = None) -> int:
    """0: every limit was kept; 1: one was not; 2: wrong use."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["capacity"]:
        return count_replicas(given[1:])
    if given[:1] == ["plan"]:
        return make_plan(given[1:])
    parser = argparse.ArgumentParser(prog="./run load", formatter_class=argparse.RawDescriptionHelpFormatter,
                                     description=__doc__, epilog="scenarios:\n" + _scenarios(),
                                     allow_abbrev=False)  # fmt: skip
    add = parser.add_argument
    add("--scenario", choices=sorted(SCENARIOS), default=None, metavar="NAME", help="(default: smoke)")
    add("--host", help="what to load; by default a service is started, and stopped afterwards")
    add("--users", "-u", type=int, help="closed model, so many clients; with --rate: most connections")
    add("--rate", type=float, help="open model, so many requests per second (default: the scenario's)")
    add(
        "--time",
        "--run-time",
        "-t",
        type=_duration,
        metavar="T",
        help="how long, as 90s or 5m (default: the scenario's)",
    )
    add("--workers", type=int, default=0, metavar="N", help="locust processes on this machine (default: one for all)")
    add(
        "--bundle",
        metavar="DIR",
        help="what is served, to know the right answers (default: the only one in artifacts/)",
    )
    add("--key-file", default="", metavar="FILE", help="file of the API key, where the service needs one")
    add("--service", default="", metavar="FLAGS", help="flags of the service that is started, as one word")
    add("--web", action="store_true", help="locust's page instead of a run at once")
    add("--texts", type=int, default=0, help="distinct texts before any comes again (default: the scenario's)")
    add("--data", type=Path, metavar="CSV", help="rows of the table (default: data/NAME.csv, else they are made up)")
    add("--shift", choices=sorted(SHIFTS), default=next(iter(SHIFTS)), help="drift: what the mix changes to")
    add_handed_on(parser)
    options, rest = parser.parse_known_args(given)
    refuse_unknown(parser, rest)
    handed = handed_on(parser, options)
    if (options.users is not None and options.users < 1) or options.workers < 0:
        parser.error("--users and --workers are numbers above 0")
    # So that whatever was started is stopped too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        return load(options, handed)
    except OSError as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("load: stopped", file=sys.stderr)
        return 1


def load(options: argparse.Namespace, handed: list[str]) -> int:
    """Start what is not there, run locust, stop what was started."""
    scenario = SCENARIOS[options.scenario or "smoke"]
    try:
        bundle = find_bundle(options.bundle)
        key_headers(options.key_file)
    except ValueError as error:
        print(f"load: {error}", file=sys.stderr)
        return 2
    if scenario.name == "reload" and options.host:
        print(
            "load: the reload scenario puts bundles in place, so it needs the service that it starts", file=sys.stderr
        )
        return 2
    with ExitStack() as stack:
        bundles = [bundle]
        if scenario.name == "reload":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="evenkeel-load-")))
            bundles.append(other_bundle(bundle, folder / "other"))
        if options.host is None:
            # Before the service starts: both want all cores.
            shift = options.shift if scenario.name == "drift" else None
            ensure_corpus(bundles, options.texts or scenario.texts, shift, options.data)
            service = stack.enter_context(LocalService(bundle, _service_flags(scenario, options)))
            options.host = service.url
            print(f"load: {service.url} serves {bundle.name} for this run", file=sys.stderr)
            if scenario.name == "reload":
                seconds = _seconds(options.time) or scenario.seconds
                stack.enter_context(_reloading(service, bundles, seconds))
        command = locust_command(scenario.name, options, bundles, handed)
        process = subprocess.Popen(command, cwd=ROOT, env=_variables())
        try:
            return process.wait()
        except KeyboardInterrupt:
            # It reached locust too, which says what it has seen.
            with suppress(subprocess.TimeoutExpired):
                process.wait(REPORT_SECONDS)
            raise
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def _variables() -> dict[str, str]:
    """The process's, without those that would be flags of locust's."""
    return {name: value for name, value in os.environ.items() if not name.startswith("LOCUST_")} | {
        "PYTHONPATH": str(ROOT)
    }


def locust_command(
    scenario: str, options: argparse.Namespace, bundles: Sequence[Path], handed: Sequence[str]
) -> list[str]:
    """What runs the load."""
    closed = options.users is not None and options.rate is None
    users = options.users or max(CONNECTIONS, options.workers * CONNECTIONS // 2)
    command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", options.host, "--scenario", scenario]
    command += ["--users", str(users), "--spawn-rate", "100", "--stop-timeout", "2"]
    command += [word for bundle in bundles for word in ("--bundle", str(bundle.absolute()))]
    command += ["--texts", str(options.texts), "--shift", options.shift]
    command += ["--data", str(options.data.resolve())] if options.data else []
    if not options.web:
        command += ["--headless", "--only-summary", "--loglevel", "WARNING"]
    else:
        command += ["--web-host", "127.0.0.1"]
    command += ["--closed"] if closed else ["--rate", str(options.rate)] if options.rate else []
    command += ["--run-time", options.time] if options.time else []
    command += ["--key-file", str(Path(options.key_file).resolve())] if options.key_file else []
    if options.workers:
        command += ["--processes", str(options.workers), "--master-bind-host", "127.0.0.1"]
        port = str(free_port())
        command += ["--master-bind-port", port, "--master-host", "127.0.0.1", "--master-port", port]
    return command + list(handed)


def count_replicas(arguments: Sequence[str]) -> int:
    """How many replicas a rate needs."""
    parser = argparse.ArgumentParser(prog="./run load capacity", description="How many replicas a rate needs.")
    parser.add_argument("--target-rate", type=float, required=True, metavar="R", help="single predictions per second")
    parser.add_argument("--p99", type=float, required=True, metavar="MS", help="99th percentile that clients may see")
    parser.add_argument("--model", type=Path, help="summary.json of a ramp (default: the last one's)")
    options = parser.parse_args(arguments)
    if options.target_rate <= 0 or options.p99 <= 0:
        parser.error("--target-rate and --p99 are numbers above 0")
    model = _ramp_model(options.model)
    if model is None:
        return 2
    needed = capacity.replicas(model, options.target_rate, options.p99, random.Random(1))
    if needed is None:
        _print_too_slow(model)
        return 1
    number, each = needed
    print(
        f"{number} replica{'s' if number > 1 else ''}: each {each.rate:.1f} requests/s, {each.busy_share:.0%} busy, "
        f"batches of {each.batch_rows:.1f}, p50 {each.p50_ms:.0f} ms, p99 {each.p99_ms:.0f} ms"
    )
    return 0


def make_plan(arguments: Sequence[str]) -> int:
    """What a rate needs beside replicas."""
    options = plan.parse(arguments)
    rate = options.replica_rate
    if rate is None:
        model = _ramp_model(options.model)
        if model is None:
            return 2
        rate = plan.replica_rate(model, options.requests_per_second, options.p99)
        if rate is None:
            _print_too_slow(model)
            return 1
    replica = plan.Replica(rate=rate, cores=options.cores, mib=options.mib)
    if options.host:
        try:
            size, series = plan.scraped(options.host)
        except (OSError, ValueError) as error:
            print(f"load: {options.host} gives no metrics: {error}", file=sys.stderr)
            return 1
        replica = msgspec.structs.replace(replica, scrape_bytes=size, scrape_series=series)
    planned = plan.plan(options.requests_per_second, replica, options.scrape_seconds)
    print(plan.table(planned, options.core_hour, options.store_rows_per_second, options.drift_run_length))
    return 0


def _ramp_model(path: Path | None) -> capacity.CapacityModel | None:
    """A ramp's capacity model, the last one's by default; None, and a sentence, where there is none."""
    ramps = sorted(RESULTS.glob("*-ramp/summary.json"))
    path = path or (ramps[-1] if ramps else None)
    kept: Any = msgspec.json.decode(path.read_bytes()).get("model") if path and path.exists() else None
    if kept is None:
        print(f"load: {path or RESULTS} holds no capacity model; ./run load --scenario ramp makes one", file=sys.stderr)
        return None
    model = msgspec.convert(kept, capacity.CapacityModel)
    print(f"by {path}: an inference takes {model.a_ms:.2f} ms and {model.b_ms:.2f} ms a row, {model.workers} at a time")
    return model


def _print_too_slow(model: capacity.CapacityModel) -> None:
    idle = capacity.predict(model, 0.01 * model.max_rate, random.Random(1))
    print(f"no number of replicas: one that is idle has a p99 of {idle.p99_ms:.0f} ms already")


@contextmanager
def _reloading(service: LocalService, bundles: Sequence[Path], seconds: float) -> Iterator[None]:
    """Puts the other bundle in place, and the first one back, three times in a run."""
    done = threading.Event()

    def reload() -> None:
        for turn in count(1):
            if done.wait(seconds / 4):
                return
            print(f"load: reload {turn}", file=sys.stderr)
            service.replace_bundle(bundles[turn % 2])

    thread = threading.Thread(target=reload, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(60)


def _service_flags(scenario: Scenario, options: argparse.Namespace) -> list[str]:
    flags = list(scenario.service)
    if scenario.name != "drift":
        # Half the corpus: no case is in the cache when it comes again, unless it was sent a moment ago.
        flags += ["--cache-rows", str(max((options.texts or scenario.texts) // 2, 64))]
    return flags + shlex.split(options.service)


def _duration(text: str) -> str:
    if not re.fullmatch(r"\d+|(\d+[hms])+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90, 90s, 5m or 1h30m")
    return text


def _seconds(text: str | None) -> float | None:
    """Seconds of 90, 90s or 1h30m; None of nothing."""
    units = {"": 1, "s": 1, "m": 60, "h": 3600}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)([smh]?)", text or "")) or None


def _scenarios() -> str:
    return "".join(f"  {scenario.name:9} {scenario.says} ({scenario.seconds:g} s)\n" for scenario in SCENARIOS.values())


if __name__ == "__main__":
    sys.exit(main())
