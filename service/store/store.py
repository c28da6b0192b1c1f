"""The prediction log and the delayed labels, off the request's path.

One thread owns the database. Predictions are queued and written in batches; an outcome is answered once it is durable,
and whatever was predicted before it is written before it. While the database fails, predictions go on, the queue keeps
what it has room for, and outcomes are refused; the thread tries again every second.
"""

import asyncio
import hashlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple, Protocol

import msgspec

from models.passenger import Passenger
from models.prediction import Prediction
from service.http.errors import DeadlinePassed, NotReady, QueueFull, StoreUnavailable
from service.inference.futures import settle
from service.settings import NO_STORE, Settings
from service.store.databases import Database, StoreError, ValueRefused, database
from service.store.prediction_log import CountedOutcome, Fate, LoggedPrediction, PredictionLog, now_ms, time_ms_of

LOGGER = logging.getLogger("evenkeel")
FLUSH_SECONDS = 0.2
"""How old a queued prediction gets: what a killed process loses, and how far other replicas are behind."""
RETRY_SECONDS = 1.0
WAKE_ROWS = 2048
"""Rows that wake the thread before `FLUSH_SECONDS` are over."""
BATCH_ROWS = 4096
GROUP_OUTCOMES = 8192
"""Outcomes that share one commit."""
WAITING_OUTCOMES = 65_536
"""Outcomes that may wait for a commit, a few seconds' worth; past it requests get 429."""
TRIM_SECONDS = 60.0
TRIM_SLACK = 1.1
"""Past ``max_rows`` times this the oldest go at once, and not in `TRIM_SECONDS`."""
MS_PER_DAY = 86_400_000

OnOutcomes = Callable[[Sequence[CountedOutcome]], None]


def make_store(settings: Settings, observer: "Observer", on_outcomes: OnOutcomes) -> "Store | None":
    """The store that the settings ask for; None where they say none."""
    if settings.store == NO_STORE:
        return None
    return Store(
        database(settings.store), observer, inputs=settings.store_inputs, max_rows=settings.store_max_rows,
        max_days=settings.store_max_days, queue_rows=settings.store_queue_rows, on_outcomes=on_outcomes,
    )  # fmt: skip


class Observer(Protocol):
    """Who is told what becomes of the rows."""

    def store_up(self, up: bool) -> None: ...

    def store_rows(self, rows: int, queued: int) -> None: ...

    def store_wrote(self, rows: int, seconds: float) -> None: ...

    def store_dropped(self, reason: str, rows: int) -> None: ...

    def versions_known(self, versions: Iterable[str]) -> None: ...


class Queued(NamedTuple):
    """One prediction that waits to be written; ``passenger`` is None when nothing of it is kept.

    Numbers and strings, not the answer that they come from: what waits is small, and nothing for the collector.
    """

    id: str
    version: str
    passenger: Passenger | None
    uncalibrated_probability: float
    probability: float


@dataclass(frozen=True)
class Job:
    """The outcomes of one request, and who waits for their fates."""

    outcomes: Sequence[tuple[str, bool]]
    future: "asyncio.Future[list[Fate]]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Store:
    """Owns the queue and the writing thread. ``failure`` says why the database is not usable, if it is not.

    ``on_outcomes`` is called on the event loop, once for each commit and before its requests are answered, with the
    outcomes that the commit made durable: no outcome comes twice.
    """

    def __init__(
        self, database: Database, observer: Observer, *, inputs: str, max_rows: int, max_days: float, queue_rows: int,
        on_outcomes: OnOutcomes = lambda _: None,
    ):  # fmt: skip
        """``inputs``: passenger, hash or none, what is kept of a passenger; ``queue_rows`` may wait to be written."""
        self._database, self._observer, self._inputs = database, observer, inputs
        self._log = PredictionLog(database)
        self._max_rows, self._max_ms, self._queue_rows = max_rows, int(max_days * MS_PER_DAY), queue_rows
        self._on_outcomes = on_outcomes
        self._changed = threading.Condition()
        self._queue: deque[Queued] = deque()
        self._jobs: deque[Job] = deque()
        self._outcomes = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        # From here on the thread's own.
        self._opened = False
        self._held_rows = 0
        self._trim_at = 0.0
        self._trim_below: str | None = None
        self._versions: set[str] = set()
        self.failure: str | None = None

    def start(self) -> None:
        """Start the thread, which opens the database."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Write what waits, if the database lets it, and end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_seconds)

    def log(
        self, version: str, ids: Sequence[str], passengers: Sequence[Passenger], predictions: Sequence[Prediction]
    ) -> None:  # fmt: skip
        """Queue predictions; where there is no room they are dropped and counted. Never waits for the database."""
        keep = self._inputs != "none"
        rows = [
            Queued(id, version, passenger if keep else None, one.confidence.uncalibrated_probability, one.probability)
            for id, passenger, one in zip(ids, passengers, predictions, strict=True)
        ]
        with self._changed:
            before = len(self._queue)
            dropped = self._stopping or before + len(rows) > self._queue_rows
            if not dropped:
                self._queue += rows
                if before < WAKE_ROWS <= before + len(rows):
                    self._changed.notify()
        if dropped:
            self._observer.store_dropped("stopped" if self._stopping else "queue_full", len(rows))

    async def label(self, outcomes: Sequence[tuple[str, bool]], timeout_seconds: float) -> list[Fate]:
        """Wait until (id, survived) are durable; what became of each, as `PredictionLog.label` says.

        To be called on one event loop, which `on_outcomes` is called on too. Raises StoreUnavailable, QueueFull,
        NotReady, DeadlinePassed; after the last they may have been counted.
        """
        job = Job(outcomes)
        with self._changed:
            if self._stopping:
                raise NotReady("stopping")
            if self.failure is not None:
                raise StoreUnavailable
            if self._outcomes + len(outcomes) > WAITING_OUTCOMES:
                raise QueueFull(1)
            self._jobs.append(job)
            self._outcomes += len(outcomes)
            self._changed.notify()
        try:
            return await asyncio.wait_for(job.future, timeout_seconds)
        except TimeoutError:
            raise DeadlinePassed(f"not durable within {timeout_seconds:g} seconds") from None

    def _run(self) -> None:
        while True:
            jobs, stopping = self._next()
            try:
                self._open()
                self._write()
                self._label(jobs)
                self._trim()
                self._recovered()
            except StoreError as error:
                self._fail(error, jobs)
                if stopping:
                    break
            except BaseException as error:
                LOGGER.error("the store's thread met an unexpected error", exc_info=error)
                self._fail(StoreError("an unexpected error; it has been logged"), jobs)
                if stopping:
                    break
            if stopping and not self._jobs and not self._queue:
                break
        self._end()

    def _next(self) -> tuple[list[Job], bool]:
        """Wait for work; the jobs of the next commit, and whether this is to be the last."""
        failing = self.failure is not None
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or (not failing and (self._jobs or len(self._queue) >= WAKE_ROWS)),
                RETRY_SECONDS if failing else FLUSH_SECONDS,
            )
            jobs, outcomes = [], 0
            while self._jobs and outcomes < GROUP_OUTCOMES:
                job = self._jobs.popleft()
                self._outcomes -= len(job.outcomes)
                # Nobody waits for those whose deadline passed: not taken, not counted, free to be sent again.
                if not job.future.done():
                    jobs.append(job)
                    outcomes += len(job.outcomes)
            return jobs, self._stopping

    def _open(self) -> None:
        if self._opened:
            return
        self._database.open()
        self._opened, self._trim_at = True, 0.0

    def _write(self) -> None:
        """Write what was queued when this began; what fails to be written stays in the queue."""
        left = len(self._queue)
        while left > 0:
            with self._changed:
                waiting = list(islice(self._queue, min(left, BATCH_ROWS)))
            start = time.perf_counter()
            self._insert([self._row(one) for one in waiting])
            self._observer.store_wrote(len(waiting), time.perf_counter() - start)
            with self._changed:
                for _ in waiting:
                    self._queue.popleft()
            self._held_rows += len(waiting)
            left -= len(waiting)
        self._observer.store_rows(self._held_rows, len(self._queue))

    def _row(self, one: Queued) -> LoggedPrediction:
        kept = None if one.passenger is None else self._kept(one.passenger)
        return LoggedPrediction(
            one.id, time_ms_of(one.id), one.version, kept, one.uncalibrated_probability, one.probability
        )  # fmt: skip

    def _kept(self, passenger: Passenger) -> str:
        content = msgspec.json.encode(passenger)
        return content.decode() if self._inputs == "passenger" else f"sha256:{hashlib.sha256(content).hexdigest()}"

    def _insert(self, rows: Sequence[LoggedPrediction]) -> None:
        new = {row.version for row in rows} - self._versions
        if new:
            self._see(new)
        try:
            self._log.insert(rows)
        except ValueRefused:
            self._insert_singly(rows)

    def _insert_singly(self, rows: Sequence[LoggedPrediction]) -> None:
        """A row that the database will never take must not hold up the others."""
        for row in rows:
            try:
                self._log.insert([row])
            except ValueRefused as error:
                LOGGER.warning("a prediction was not logged: %s", error)
                self._observer.store_dropped("refused", 1)

    def _label(self, jobs: Sequence[Job]) -> None:
        if not jobs:
            return
        fates, counted = self._log.label([outcome for job in jobs for outcome in job.outcomes])
        results: list[tuple[Job, list[Fate] | Exception]] = []
        for job in jobs:
            results.append((job, fates[: len(job.outcomes)]))
            fates = fates[len(job.outcomes) :]
        self._deliver(results, counted)

    def _trim(self) -> None:
        """Delete what is beyond the bounds, faster than new rows come, and not for long at a time."""
        over = self._trim_below is None and self._held_rows > self._max_rows * TRIM_SLACK
        if over or time.monotonic() >= self._trim_at:
            self._see(self._versions)
            self._held_rows = self._log.count()
            self._trim_below = self._log.bound(self._max_rows, now_ms() - self._max_ms)
            self._trim_at = time.monotonic() + TRIM_SECONDS
        until = time.monotonic() + FLUSH_SECONDS / 2
        while self._trim_below is not None:
            deleted = self._log.delete_below(self._trim_below)
            self._held_rows -= deleted
            if not deleted:
                self._trim_below = None
            elif time.monotonic() > until:
                return

    def _see(self, versions: Iterable[str]) -> None:
        known = self._log.see_versions(versions, now_ms() - self._max_ms)
        self._versions |= set(versions)
        self._observer.versions_known(known)

    def _recovered(self) -> None:
        if self.failure is not None:
            LOGGER.warning("the store is usable again")
        self.failure = None
        self._observer.store_up(True)

    def _fail(self, error: StoreError, jobs: Sequence[Job]) -> None:
        if self.failure is None:
            LOGGER.warning("the store is unusable, outcomes are refused until it is not: %s", error)
            LOGGER.debug("the store's error", exc_info=error)
        self._observer.store_up(False)
        with self._changed:
            self.failure = str(error)
            waiting, self._jobs, self._outcomes = list(self._jobs), deque(), 0
        self._database.close()
        self._opened = False
        self._observer.store_rows(self._held_rows, len(self._queue))
        self._deliver([(job, StoreUnavailable()) for job in (*jobs, *waiting)], [])

    def _end(self) -> None:
        with self._changed:
            lost = len(self._queue)
            self._queue.clear()
        if lost:
            LOGGER.warning("%d predictions were not logged before the stop", lost)
            self._observer.store_dropped("stopped", lost)
        self._database.close()

    def _deliver(
        self, results: Sequence[tuple[Job, list[Fate] | Exception]], counted: Sequence[CountedOutcome]
    ) -> None:
        def settle_all() -> None:
            try:
                if counted:
                    self._on_outcomes(counted)
            except Exception as error:
                LOGGER.error("counted outcomes were not told on", exc_info=error)
            for job, result in results:
                settle(job.future, result)

        if results:
            try:
                results[0][0].future.get_loop().call_soon_threadsafe(settle_all)
            except RuntimeError:
                LOGGER.debug("the event loop is closed, nobody waits for outcomes any more")
