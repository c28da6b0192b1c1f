"""Rows at a service, every answer checked. `./run load` starts this with a service of its own; or

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000

with locust's page, in an environment of locks/load.txt. docs/load.md has the rest.
"""

import logging
import urllib.error
from typing import Any
from urllib.parse import urlsplit

import gevent
import msgspec
from locust import events
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest.flags import add_flags
from loadtest.report.drift_check import DriftWatch
from loadtest.report.recording import Recording
from loadtest.traffic.corpus import Corpus, ensure_corpus
from loadtest.traffic.local_service import find_bundle
from loadtest.traffic.run import Run, fetch
from loadtest.traffic.scenarios import SCENARIOS
from loadtest.traffic.users import Client

LOGGER = logging.getLogger("evenkeel")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


events.init_command_line_parser.add_listener(add_flags)


@events.init.add_listener
def set_up(environment: Environment, **_: Any) -> None:
    """The length of the run is ours: it ends when the last answers are there, not in the middle of them."""
    options = environment.parsed_options
    environment.evenkeel_seconds = options.run_time
    environment.evenkeel_run = None
    options.run_time = None
    if options.headless:
        # Its tables come every two seconds and at the end; ours is the verdict.
        logging.getLogger("locust.stats_logger").setLevel(logging.WARNING)
        LOGGER.setLevel(logging.INFO)
    environment.host = environment.host or options.host or Client.host
    runner = environment.runner
    if isinstance(runner, WorkerRunner):
        runner.register_message(
            "evenkeel_rate", lambda msg, **_: setattr(environment.evenkeel_run, "ramp_rate", msg.data)
        )
        # It waits for the run to begin, which another message brings.
        runner.register_message("evenkeel_part", lambda msg, **_: gevent.spawn(begin, environment, *msg.data))


@events.test_start.add_listener
def start(environment: Environment, **_: Any) -> None:
    """Refuse what must not be loaded; then begin."""
    runner = environment.runner
    try:
        run = environment.evenkeel_run = Run(environment)
        if isinstance(runner, WorkerRunner):
            return
        corpus = corpus_of(environment)
        check_host(environment, corpus)
        if run.scenario.name == "drift":
            run.drift = DriftWatch(lambda: msgspec.json.decode(fetch(environment, "/v1/drift")))
    except (OSError, ValueError) as error:
        away = isinstance(error, OSError)
        LOGGER.error("%s%s", f"{environment.host} does not answer: " if away else "", error)
        environment.process_exit_code = 2
        if environment.evenkeel_run is not None:
            environment.evenkeel_run.finished = environment.evenkeel_run.stopped = True
        # Not from in here: the runner is still starting, and would go on to.
        headless = environment.parsed_options.headless
        gevent.spawn_later(0.5, runner.quit if headless else runner.stop)
        return
    if isinstance(runner, MasterRunner):
        for index, client in enumerate(runner.clients):
            runner.send_message("evenkeel_part", (index, len(runner.clients), run.seconds), client)
    else:
        run.prepare(corpus)
        run.work()
    gevent.spawn(run.conduct)


def begin(environment: Environment, index: int, parts: int, seconds: float) -> None:
    """A worker learns its part."""
    while environment.evenkeel_run is None or environment.evenkeel_run.finished:
        gevent.sleep(0.02)
    run = environment.evenkeel_run
    # Only the master knows how long a run takes.
    run.index, run.parts, run.seconds = index, parts, seconds
    run.prepare(corpus_of(environment))
    run.work()


def corpus_of(environment: Environment) -> Corpus:
    """The cases of this scenario."""
    options = environment.parsed_options
    bundles = [find_bundle(folder) for folder in options.bundle or [None]]
    shift = options.shift if options.scenario == "drift" else None
    return Corpus.read(ensure_corpus(bundles, options.texts or SCENARIOS[options.scenario].texts, shift, options.data))


def check_host(environment: Environment, corpus: Corpus) -> None:
    """Raises ValueError for a host that is not to be loaded, or whose answers cannot be checked."""
    name = urlsplit(environment.host or "").hostname
    if name not in LOOPBACK and not environment.parsed_options.allow_remote:
        raise ValueError(f"{environment.host} is not this machine; --allow-remote says that you mean it")
    if name not in LOOPBACK and environment.parsed_options.scenario == "drift":
        raise ValueError(
            f"the drift scenario raises alarms: for a service on this machine only, not {environment.host}"
        )
    try:
        version = msgspec.json.decode(fetch(environment, "/v1/model"))["version"]
    except urllib.error.HTTPError as error:
        if error.code != 401:
            raise
        path = environment.parsed_options.key_file
        fault = f"does not accept the key in {path}" if path else "needs an API key: --key-file names a file of one"
        raise ValueError(f"{environment.host} {fault}") from error
    if version not in corpus.versions:
        raise ValueError(
            f"{environment.host} serves version {version}, the bundle given here is {' or '.join(corpus.versions)}: "
            "name the folder of what is served by --bundle"
        )


@events.report_to_master.add_listener
def report(client_id: str, data: dict[str, Any]) -> None:
    run = Client.current()
    if run is not None:
        sent, run.recording = run.recording, Recording()
        data["evenkeel"] = sent.encode()


@events.worker_report.add_listener
def receive(client_id: str, data: dict[str, Any]) -> None:
    run = Client.current()
    if run is not None and "evenkeel" in data:
        run.recording.merge(Recording.decode(data["evenkeel"]))


@events.test_stopping.add_listener
def stop_asking(environment: Environment, **_: Any) -> None:
    run = environment.evenkeel_run
    if run is not None and isinstance(environment.runner, WorkerRunner):
        run.stopped = run.finished = True
        run.recording.unanswered += run.unanswered()


@events.test_stop.add_listener
def conclude(environment: Environment, **_: Any) -> None:
    run = environment.evenkeel_run
    if run is None or run.finished or isinstance(environment.runner, WorkerRunner):
        return
    environment.process_exit_code = 0 if run.finish().passed else 1


@events.init.add_listener
def remember(environment: Environment, **_: Any) -> None:
    Client.environment_of_all = environment
