"""Passengers at a service, every answer checked. `./run load` starts this with a service of its own; or

    locust -f loadtest/locustfile.py --host http://127.0.0.1:8000

with locust's page, in an environment of locks/load.txt. docs/load.md tells the rest.
"""

import logging
import math
import os
import random
import subprocess
import sys
import time
import urllib.error
import urllib.request
from argparse import ArgumentParser
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import gevent
import msgspec
from gevent.queue import Queue
from locust import FastHttpUser, events, task
from locust.env import Environment
from locust.runners import MasterRunner, WorkerRunner

from loadtest import answers, verdict
from loadtest.deck import Dealer, Deck, deck_path
from loadtest.drifting import DriftWatch
from loadtest.key import key_headers
from loadtest.measured import Summary
from loadtest.mixes import SHIFTS
from loadtest.recording import Recording
from loadtest.scenarios import SCENARIOS, Ramp, Stage, Step, arrivals, constant, parse_sizes, parse_weights
from loadtest.server_side import Scrape, parse

LOGGER = logging.getLogger("evenkeel")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
JSON = {"Content-Type": "application/json"}
OUTCOME_SECONDS = 3.0
"""How long after its prediction an outcome is sent at the earliest."""

DRAIN_SECONDS = 35.0
"""How long a run waits for the last answers: a little longer than the service takes for any."""

INVALID = (
    ("/v1/predict", b'{"pclass": 1, "sex": "male"', (400,)),
    ("/v1/predict", b"\xff\xfe", (400,)),
    ("/v1/predict", b'{"pclass": 4, "sex": "male"}', (422,)),
    ("/v1/predict", b'{"pclass": "1", "sex": "male"}', (422,)),
    ("/v1/predict", b'{"pclass": 1, "sex": "male", "agee": 3}', (422,)),
    ("/v1/predict", b'{"pclass": 1, "pclass": 2, "sex": "male"}', (400,)),
    ("/v1/predict/batch", b'{"passengers": []}', (422,)),
    ("/v1/outcomes", b'{"outcomes": [{"id": 1}]}', (422,)),
)
"""Path, body, and the statuses that it deserves."""


@events.init_command_line_parser.add_listener
def add_flags(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("Evenkeel")
    add = group.add_argument
    add("--scenario", choices=sorted(SCENARIOS), default="steady", help="what is asked, and how that changes")
    add("--rate", type=float, default=0.0, help="requests per second, open model; 0: the scenario's, or --think's")
    add("--closed", action="store_true", help="closed model: each user asks again when it has its answer")
    add("--think", type=float, default=0.0, help="closed model: seconds between an answer and the next request")
    add("--arrivals", choices=("poisson", "constant"), default="poisson", help="open model: how requests are spaced")
    add("--repeats", type=float, default=0.0, help="share of passengers that were sent a moment ago")
    add("--texts", type=int, default=0, help="distinct passengers before any comes again; 0: the scenario's")
    add("--kinds", default="", help="kinds of request and weights, as predict=9,batch=1, instead of the scenario's")
    add("--sizes", default="", help="rows of batches, as 8,64, instead of the scenario's")
    add("--bundle", action="append", help="folder of what is served; given twice, either may answer")
    add("--shift", choices=sorted(SHIFTS), default="third-class-men", help="drift: what the mix changes to")
    add("--shift-after", type=float, metavar="SECONDS", help="drift: when; at half of the time if it is not given")
    add("--limits", default=str(verdict.LIMITS), help="file of limits")
    add("--baseline", default="", help="summary.json of an earlier run, to compare latencies with")
    add("--baseline-ratio", type=float, default=1.5, help="how many times the baseline's a latency may be")
    add("--results", default="", help="folder for the report; by default one of loadtest/results/")
    add("--key-file", default="", help="file of the API key, where the service needs one")
    add("--allow-remote", action="store_true", help="put load on a host that is not this machine")


class Run:
    """One process's part in a run, and on the master (or alone) the whole of it."""

    def __init__(self, environment: Environment):
        self.environment, self.options = environment, environment.parsed_options
        self.headers = key_headers(self.options.key_file)
        self.scenario = SCENARIOS[self.options.scenario]
        if self.options.kinds:
            self.scenario = replace(self.scenario, weights=parse_weights(self.options.kinds))
        if self.options.sizes:
            self.scenario = replace(self.scenario, sizes=parse_sizes(self.options.sizes))
        self.seconds = float(environment.evenkeel_seconds or self.scenario.seconds)
        if self.options.run_time:
            # Locust's page ends the run by its own clock; the last answers are to be there by then.
            self.seconds = max(self.options.run_time - 2.0, 1.0)
        self.rate = self.options.rate or self.scenario.rate
        self.open = not self.options.closed
        self.recording, self.scrapes, self.stages = Recording(), list[Scrape](), list[Stage]()
        self.due: Queue[float] = Queue()
        self.answered: deque[tuple[float, str, bool]] = deque(maxlen=4096)
        self.in_flight = 0
        self.stopped = self.finished = False
        self.ramp_rate = 0.0
        self.index, self.parts = 0, 1
        self.knee: float | None = None
        self.drift: DriftWatch | None = None
        self.start = time.perf_counter()
        self.started = time.strftime("%Y-%m-%d %H:%M:%S")
        self.load_before = os.getloadavg()[0]

    def prepare(self, deck: Deck) -> None:
        """The cards of this process."""
        self.rng = random.Random(f"{self.index} of {self.parts}")
        told: dict[str, Any] = {"repeats": self.options.repeats, "at_random": bool(deck.after)}
        told |= {"index": self.index, "workers": self.parts}
        self.dealer = Dealer(deck.cards, self.rng, **told)
        self.shifted = Dealer(deck.after, self.rng, **told) if deck.after else None
        weights = self.scenario.weights
        self.kinds, self.weights = list(weights), list(weights.values())

    @property
    def shift_at(self) -> float:
        """The second at which the mix of passengers changes."""
        if self.scenario.name != "drift":
            return math.inf
        return self.options.shift_after if self.options.shift_after is not None else self.seconds / 2

    def now(self) -> float:
        return time.perf_counter() - self.start

    def hand(self, count: int) -> list[Any]:
        dealer = self.shifted if self.shifted and self.now() >= self.shift_at else self.dealer
        return dealer.hand(count)

    def rate_at(self, second: float) -> float:
        """This process's part of the requests per second at that time."""
        if self.scenario.name == "ramp":
            return self.ramp_rate / self.parts
        return self.rate * self.scenario.course(second / self.seconds) / self.parts

    def work(self) -> None:
        """What every process that asks does beside its users."""
        self.start = time.perf_counter()
        gevent.spawn(self._count_cpu)
        if self.open:
            gevent.spawn(self._arrive)

    def _arrive(self) -> None:
        if self.scenario.name == "ramp":
            self._arrive_by_steps()
            return
        for due in arrivals(self.rate_at, self.seconds, self.rng, poisson=self.options.arrivals == "poisson"):
            if not self._put(due):
                return

    def _arrive_by_steps(self) -> None:
        while not self.stopped:
            if not self.ramp_rate:
                gevent.sleep(0.02)
                continue
            rate, begun = self.ramp_rate / self.parts, self.now()
            for due in arrivals(constant(rate), 3600, self.rng, poisson=self.options.arrivals == "poisson"):
                while self.ramp_rate and begun + due > self.now() + 0.05:
                    gevent.sleep(min(0.05, begun + due - self.now()))
                if self.ramp_rate / self.parts != rate or not self._put(begun + due):
                    break

    def _put(self, due: float) -> bool:
        """Make a request due; False when the run is over."""
        wait = due - self.now()
        if wait > 0:
            gevent.sleep(wait)
        if self.stopped:
            return False
        self.recording.late_ms.add(max(self.now() - due, 0.0) * 1e3)
        self.due.put(due)
        return True

    def _count_cpu(self) -> None:
        name, wall, used = f"{os.uname().nodename}-{os.getpid()}", time.perf_counter(), time.process_time()
        while not self.stopped:
            gevent.sleep(1.0)
            wall_now, used_now = time.perf_counter(), time.process_time()
            self.recording.cpu.setdefault(name, []).append((used_now - used) / (wall_now - wall))
            wall, used = wall_now, used_now

    def unanswered(self) -> int:
        return int(self.due.qsize()) + self.in_flight

    # What only the master does, or who is alone.

    def conduct(self) -> None:
        """Lead the run to its end."""
        self.start = time.perf_counter()
        gevent.spawn(self._scrape)
        if self.drift:
            gevent.spawn(self.drift.note_shift, self)
        if self.scenario.name == "ramp" and self.open:
            self._climb()
        else:
            gevent.sleep(self.seconds)
        self._drain(DRAIN_SECONDS)
        runner = self.environment.runner
        workers = len(runner.clients) if isinstance(runner, MasterRunner) else 0
        runner.stop()
        if self.options.headless:
            # Workers that stopped come back, and only those are told to quit.
            deadline = self.now() + 10
            while workers and len(runner.clients) < workers and self.now() < deadline:
                gevent.sleep(0.1)
            runner.quit()

    def _drain(self, seconds: float) -> None:
        """Wait for answers that are on their way. What workers wait for is known to them only."""
        if isinstance(self.environment.runner, MasterRunner):
            # They report every three seconds.
            gevent.sleep(min(seconds, 7.0))
            return
        deadline = self.now() + seconds
        if not self.open:
            self.stopped = True
        while self.now() < deadline and self.unanswered():
            gevent.sleep(0.05)

    def _climb(self) -> None:
        ramp = Ramp(self.rate)
        step: Step | None = ramp.first
        while step is not None and self.now() < 20 * self.scenario.seconds:
            begin = math.ceil(self.now() + 0.2)
            gevent.sleep(begin - self.now())
            self._tell_rate(step.rate)
            gevent.sleep(begin + step.seconds - self.now())
            self._tell_rate(0.0)
            self._drain(DRAIN_SECONDS)
            stage = Stage(begin, begin + step.seconds, step.rate, step.fitted)
            self.stages.append(stage)
            cell = self.recording.between(stage.start, stage.stop)
            # Those due last may take a second more; a queue that grew takes longer.
            done = self.recording.rate(begin, begin + step.seconds + 1) * (step.seconds + 1)
            share = done / cell.requests if cell.requests else 0.0
            median = cell.latency_ms.percentile(0.5)
            LOGGER.info("%.1f requests/s: %.0f %% answered, median %.1f ms, p99 %.1f ms", step.rate, 100 * share,
                        median, cell.latency_ms.percentile(0.99))  # fmt: skip
            step = ramp.next(step, share, median)
        self.knee = ramp.knee

    def _tell_rate(self, rate: float) -> None:
        self.ramp_rate = rate
        if isinstance(self.environment.runner, MasterRunner):
            self.environment.runner.send_message("evenkeel_rate", rate)

    def _scrape(self) -> None:
        while not self.finished:
            try:
                self.scrapes.append(parse(fetch(self.environment, "/metrics").decode(), self.now()))
            except (OSError, ValueError) as error:
                LOGGER.debug("no series: %s", error)
            gevent.sleep(1.0 - self.now() % 1.0)

    def finish(self) -> Summary:
        """Judge, write and say what came of it."""
        self.finished = self.stopped = True
        self.recording.unanswered += self.unanswered()
        said = verdict.Said(
            scenario=self.scenario.name, host=self.environment.host or "", started=self.started,
            seconds=self.seconds if not self.stages else self.stages[-1].stop,
            arrivals=f"open model, {self.rate:g} requests/s, {self.options.arrivals}" if self.open
            else f"closed model, {self.options.num_users} users",
            load_average=(self.load_before, os.getloadavg()[0]), stages=self.stages, knee=self.knee,
            spike=(0.4 * self.seconds, 0.5 * self.seconds) if self.scenario.name == "spike" else None,
            alarms=self.drift.verdict() if self.drift else None, kinds=list(self.scenario.weights),
        )  # fmt: skip
        return verdict.conclude(
            said, self.recording, self.scrapes, limits=Path(self.options.limits), baseline=self.options.baseline,
            ratio=self.options.baseline_ratio, results=self.options.results,
        )  # fmt: skip


def fetch(environment: Environment, path: str) -> bytes:
    """A GET that is none of the load."""
    request = urllib.request.Request(f"{environment.host}{path}", headers=environment.evenkeel_run.headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
        return body


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
    environment.host = environment.host or options.host or Passengers.host
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
        deck = the_deck(environment)
        check_host(environment, deck)
        if run.scenario.name == "drift":
            run.drift = DriftWatch(lambda: msgspec.json.decode(fetch(environment, "/v1/drift")))
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
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
        run.prepare(deck)
        run.work()
    gevent.spawn(run.conduct)


def begin(environment: Environment, index: int, parts: int, seconds: float) -> None:
    """A worker learns its part."""
    while environment.evenkeel_run is None or environment.evenkeel_run.finished:
        gevent.sleep(0.02)
    run = environment.evenkeel_run
    # How long a run takes is told to the master only.
    run.index, run.parts, run.seconds = index, parts, seconds
    run.prepare(the_deck(environment))
    run.work()


def the_deck(environment: Environment) -> Deck:
    """The cards for this scenario, made first if they are not there."""
    options = environment.parsed_options
    bundles = [Path(one) for one in options.bundle or ["artifacts/titanic"]]
    shift = options.shift if options.scenario == "drift" else None
    texts = options.texts or SCENARIOS[options.scenario].texts
    path = deck_path(bundles, texts, shift)
    if not path.exists():
        LOGGER.info("asking the model for what it answers to %s passengers", "the" if shift else texts)
        command = [sys.executable, "-m", "loadtest.deck", "--texts", str(texts), "--out", str(path)]
        command += [part for bundle in bundles for part in ("--bundle", str(bundle))]
        subprocess.run(command + (["--shift", shift] if shift else []), check=True)
    return Deck.read(path)


def check_host(environment: Environment, deck: Deck) -> None:
    """Raises ValueError for a host that is not to be loaded, or whose answers cannot be judged."""
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
        given = environment.parsed_options.key_file
        fault = f"does not accept the key in {given}" if given else "needs an API key: --key-file names a file of one"
        raise ValueError(f"{environment.host} {fault}") from error
    if version not in deck.versions:
        raise ValueError(
            f"{environment.host} serves version {version}, the bundle given here is {' or '.join(deck.versions)}: "
            "name the folder of what is served by --bundle"
        )


@events.report_to_master.add_listener
def report(client_id: str, data: dict[str, Any]) -> None:
    run = Passengers.current()
    if run is not None:
        sent, run.recording = run.recording, Recording()
        data["evenkeel"] = sent.encode()


@events.worker_report.add_listener
def receive(client_id: str, data: dict[str, Any]) -> None:
    run = Passengers.current()
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
    Passengers.environment_of_all = environment


class Passengers(FastHttpUser):
    """In the open model a connection that sends what is due; in the closed one a client that waits for its answers."""

    host = "http://127.0.0.1:8000"
    environment_of_all: Environment | None = None

    @classmethod
    def current(cls) -> Any:
        return getattr(cls.environment_of_all, "evenkeel_run", None)

    @task
    def ask(self) -> None:
        run = self.environment.evenkeel_run
        if run is None or not hasattr(run, "dealer"):
            gevent.sleep(0.05)
            return
        if run.open:
            due = run.due.get()
        elif run.stopped:
            gevent.sleep(0.2)
            return
        else:
            due = run.now()
        run.in_flight += 1
        try:
            getattr(self, "_" + run.rng.choices(run.kinds, run.weights)[0])(run, due)
        finally:
            run.in_flight -= 1
        if run.options.think and not run.open:
            gevent.sleep(run.options.think)

    def _predict(self, run: Run, due: float) -> None:
        self._exchange(run, due, "predict", "/v1/predict", cards=run.hand(1))

    def _batch(self, run: Run, due: float) -> None:
        sizes = run.scenario.sizes
        cards = run.hand(run.rng.choices(list(sizes), list(sizes.values()))[0])
        self._exchange(run, due, "batch", "/v1/predict/batch", cards=cards)

    def _outcomes(self, run: Run, due: float) -> None:
        ready: list[tuple[float, str, bool]] = []
        while run.answered and run.answered[0][0] < run.now() - OUTCOME_SECONDS and len(ready) < 16:
            ready.append(run.answered.popleft())
        if not ready:
            self._predict(run, due)
            return
        body = msgspec.json.encode({"outcomes": [{"id": one, "survived": survived} for _, one, survived in ready]})
        self._exchange(run, due, "outcomes", "/v1/outcomes", body=body, sent=len(ready))

    def _invalid(self, run: Run, due: float) -> None:
        path, body, expected = run.rng.choice(INVALID)
        self._exchange(run, due, "invalid", path, body=body, expected=expected)

    def _page(self, run: Run, due: float) -> None:
        self._exchange(run, due, "page", "/")

    def _metrics(self, run: Run, due: float) -> None:
        self._exchange(run, due, "metrics", "/metrics")

    def _exchange(
        self, run: Run, due: float, kind: str, path: str, *, cards: list[Any] | None = None, body: bytes | None = None,
        expected: tuple[int, ...] = (), sent: int = 0,
    ) -> None:  # fmt: skip
        headers = JSON | run.headers
        if cards is not None:
            body = cards[0].body if kind == "predict" else _batch_body(cards)
            if run.scenario.timeout_ms:
                headers |= {"X-Request-Timeout-Ms": str(run.scenario.timeout_ms)}
        begun = run.now()
        method = "GET" if body is None else "POST"
        with self.client.request(method, path, data=body, headers=headers, name=kind, catch_response=True) as response:
            answered = run.now()
            # Counted from when it was due: a wait for a free connection is the service's doing, not a pause of ours.
            response.request_meta["response_time"] = (answered - due) * 1e3
            got, content = response.headers or {}, response.content or b""
            judged = _judge(kind, response.status_code, content, got.get("retry-after"), cards, expected, sent)
            timing = answers.server_timing(got.get("server-timing")) if cards and judged.verdict == "ok" else None
            if judged.verdict == "ok":
                response.success()
            else:
                response.failure(judged.fault or "429")
        run.recording.add(
            judged.verdict if judged.verdict in ("refused", "late") else kind, due, answered, judged.verdict,
            status=response.status_code, rows=len(cards or ()), fault=judged.fault, version=judged.version, sent=begun,
            timing=timing,
        )  # fmt: skip
        if judged.verdict == "ok" and cards and "outcomes" in run.scenario.weights:
            run.answered.extend(
                (answered, one, card.survived) for one, card in zip(judged.ids[:16], cards[:16], strict=True)
            )


def _judge(
    kind: str, status: int, content: bytes, retry_after: str | None, cards: list[Any] | None,
    expected: tuple[int, ...], sent: int,
) -> answers.Judged:  # fmt: skip
    if status == 0:
        return answers.Judged("error", "no answer: the connection failed")
    if cards is not None:
        return answers.judge(status, content, cards, retry_after, batch=kind == "batch")
    if kind == "invalid":
        return answers.judge_invalid(status, content, expected)
    if kind == "outcomes":
        return answers.judge_outcomes(status, content, sent)
    return answers.judge_text(status, content, b"<!doctype html" if kind == "page" else b"# help")


def _batch_body(cards: list[Any]) -> bytes:
    return b'{"passengers":[' + b",".join(card.body for card in cards) + b"]}"
