"""A run, as one process sees it: when requests are due, what is recorded of them, and, where it leads, the end."""

import logging
import math
import os
import random
import time
import urllib.request
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gevent
from gevent.queue import Queue
from locust.env import Environment
from locust.runners import MasterRunner

from loadtest.report import conclusion
from loadtest.report.drift_check import DriftWatch
from loadtest.report.recording import Recording
from loadtest.report.server_series import Scrape, parse
from loadtest.report.summary import Summary
from loadtest.traffic.corpus import Corpus, Sampler
from loadtest.traffic.key import key_headers
from loadtest.traffic.scenarios import SCENARIOS, Ramp, Stage, Step, arrivals, constant, parse_sizes, parse_weights

LOGGER = logging.getLogger("evenkeel")
DRAIN_SECONDS = 35.0
"""How long a run waits for the last answers: a little longer than the service takes for any."""


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
        self.answered: deque[tuple[float, str, str]] = deque(maxlen=4096)
        self.in_flight = 0
        self.stopped = self.finished = self.complete = False
        self.ramp_rate = 0.0
        self.index, self.parts = 0, 1
        self.knee: float | None = None
        self.drift: DriftWatch | None = None
        self.start = time.perf_counter()
        self.started = time.strftime("%Y-%m-%d %H:%M:%S")
        self.load_before = os.getloadavg()[0]

    def prepare(self, corpus: Corpus) -> None:
        """The cases of this process."""
        self.rng = random.Random(f"{self.index} of {self.parts}")
        sampler = partial(
            Sampler, rng=self.rng, repeats=self.options.repeats, with_replacement=bool(corpus.after), index=self.index,
            workers=self.parts,
        )  # fmt: skip
        self.sampler, self.refused = sampler(corpus.cases), corpus.refused
        self.shifted = sampler(corpus.after) if corpus.after else None
        weights = self.scenario.weights
        self.kinds, self.weights = list(weights), list(weights.values())

    @property
    def shift_at(self) -> float:
        """The second at which the mix of rows changes."""
        if self.scenario.name != "drift":
            return math.inf
        return self.options.shift_after if self.options.shift_after is not None else self.seconds / 2

    def now(self) -> float:
        return time.perf_counter() - self.start

    def take(self, count: int) -> list[Any]:
        sampler = self.shifted if self.shifted and self.now() >= self.shift_at else self.sampler
        return sampler.take(count)

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

    # Only on the master, or alone.

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
        self.complete = True
        runner = self.environment.runner
        workers = len(runner.clients) if isinstance(runner, MasterRunner) else 0
        runner.stop()
        if self.options.headless:
            # Workers that stopped come back, and only those can be made to quit.
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
            self._set_rate(step.rate)
            gevent.sleep(begin + step.seconds - self.now())
            self._set_rate(0.0)
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

    def _set_rate(self, rate: float) -> None:
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

    def _lasted(self) -> float:
        if not self.complete:
            return self.now()
        return self.stages[-1].stop if self.stages else self.seconds

    def finish(self) -> Summary:
        """Check the limits, and write the report."""
        self.finished = self.stopped = True
        self.recording.unanswered += self.unanswered()
        info = conclusion.RunInfo(
            scenario=self.scenario.name, host=self.environment.host or "", started=self.started,
            seconds=self._lasted(), complete=self.complete,
            arrivals=f"open model, {self.rate:g} requests/s, {self.options.arrivals}" if self.open
            else f"closed model, {self.options.num_users} users",
            load_average=(self.load_before, os.getloadavg()[0]), stages=self.stages, knee=self.knee,
            spike=(0.4 * self.seconds, 0.5 * self.seconds) if self.scenario.name == "spike" else None,
            alarms=self.drift.verdict() if self.drift else None, kinds=list(self.scenario.weights),
        )  # fmt: skip
        return conclusion.conclude(
            info, self.recording, self.scrapes, limits=Path(self.options.limits), baseline=self.options.baseline,
            ratio=self.options.baseline_ratio, results=self.options.results,
        )  # fmt: skip


def fetch(environment: Environment, path: str) -> bytes:
    """A GET that is none of the load."""
    request = urllib.request.Request(f"{environment.host}{path}", headers=environment.evenkeel_run.headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        body: bytes = answer.read()
        return body
