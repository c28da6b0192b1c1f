"""The prediction log and the delayed labels, off the request's path.

One thread owns the database. Predictions are queued and written in batches; an outcome is answered once it is durable,
and whatever was predicted before it is written before it. While the database fails, predictions go on, the queue keeps
what it has room for, and outcomes are refused; the thread tries again every second.
"""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from models.prediction import Prediction
from models.rows import Row
from models.schema import Schema
from service.inference.errors import DeadlinePassed, NotReady, QueueFull
from service.inference.futures import settle
from service.settings import NO_STORE, Settings
from service.store.databases import Database, StoreError, database
from service.store.errors import StoreUnavailable
from service.store.prediction_log import CountedOutcome, OutcomeStatus
from service.store.writer import Observer, Queued, Writer

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

OnOutcomes = Callable[[Sequence[CountedOutcome]], None]


def make_store(settings: Settings, observer: Observer, on_outcomes: OnOutcomes) -> "Store | None":
    """The store that the settings ask for; None where they say none."""
    if settings.store == NO_STORE:
        return None
    return Store(
        database(settings.store), observer, inputs=settings.store_inputs, max_rows=settings.store_max_rows,
        max_days=settings.store_max_days, queue_rows=settings.store_queue_rows, on_outcomes=on_outcomes,
    )  # fmt: skip


@dataclass(frozen=True)
class LabelRequest:
    """The outcomes of one request, and who waits for their statuses."""

    outcomes: Sequence[tuple[str, str]]
    future: "asyncio.Future[list[OutcomeStatus]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Store:
    """Owns the queue and the writing thread. ``failure`` says why the database is not usable, if it is not.

    ``on_outcomes`` is called on the event loop, once for each commit and before its requests are answered, with the
    outcomes that the commit made durable: no outcome comes twice.
    """

    def __init__(
        self, database: Database, observer: Observer, *, inputs: str, max_rows: int, max_days: float, queue_rows: int,
        on_outcomes: OnOutcomes = lambda _: None,
    ):  # fmt: skip
        """``inputs``: row, hash or none, what is kept of a row; ``queue_rows`` may wait to be written."""
        self._writer = Writer(database, observer, inputs=inputs, max_rows=max_rows, max_days=max_days)
        self._observer, self._queue_rows, self._on_outcomes = observer, queue_rows, on_outcomes
        self._keeps_inputs = inputs != "none"
        self._changed = threading.Condition()
        self._queue: deque[Queued] = deque()
        self._requests: deque[LabelRequest] = deque()
        self._waiting_outcomes = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
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

    def bundle_loaded(self, version: str, schema: Schema) -> None:
        """To be called of each bundle before its predictions are logged."""
        self._writer.bundle_loaded(version, schema)

    def log(
        self, version: str, ids: Sequence[str], rows: Sequence[Row], predictions: Sequence[Prediction]
    ) -> None:  # fmt: skip
        """Queue predictions; where there is no room they are dropped and counted. Never waits for the database."""
        queued = [
            Queued(id, version, row if self._keeps_inputs else None, *_logged(prediction))
            for id, row, prediction in zip(ids, rows, predictions, strict=True)
        ]
        with self._changed:
            before = len(self._queue)
            dropped = self._stopping or before + len(queued) > self._queue_rows
            if not dropped:
                self._queue += queued
                if before < WAKE_ROWS <= before + len(queued):
                    self._changed.notify()
        if dropped:
            self._observer.store_dropped("stopped" if self._stopping else "queue_full", len(queued))

    async def label(self, outcomes: Sequence[tuple[str, str]], timeout_seconds: float) -> list[OutcomeStatus]:
        """Wait until (id, class name) are durable; what became of each, as `PredictionLog.label` says.

        To be called on one event loop, which `on_outcomes` is called on too. Raises StoreUnavailable, QueueFull,
        NotReady, DeadlinePassed; after the last they may have been counted.
        """
        request = LabelRequest(outcomes)
        with self._changed:
            if self._stopping:
                raise NotReady("stopping")
            if self.failure is not None:
                raise StoreUnavailable
            if self._waiting_outcomes + len(outcomes) > WAITING_OUTCOMES:
                raise QueueFull(1)
            self._requests.append(request)
            self._waiting_outcomes += len(outcomes)
            self._changed.notify()
        try:
            return await asyncio.wait_for(request.future, timeout_seconds)
        except TimeoutError:
            raise DeadlinePassed(f"not durable within {timeout_seconds:g} seconds") from None

    def _run(self) -> None:
        while True:
            requests, stopping = self._next()
            failed = not self._work(requests)
            if stopping and (failed or not (self._requests or self._queue)):
                break
        self._end()

    def _work(self, requests: Sequence[LabelRequest]) -> bool:
        """Write what waits, and the outcomes of these requests; False when the database failed."""
        try:
            self._writer.open()
            self._write()
            self._label(requests)
            self._writer.trim(FLUSH_SECONDS / 2)
            self._recovered()
        except StoreError as error:
            self._fail(error, requests)
            return False
        except BaseException as error:
            LOGGER.error("the store's thread met an unexpected error", exc_info=error)
            self._fail(StoreError("an unexpected error; it has been logged"), requests)
            return False
        return True

    def _next(self) -> tuple[list[LabelRequest], bool]:
        """Wait for work; the requests of the next commit, and whether this is to be the last."""
        failing = self.failure is not None
        with self._changed:
            self._changed.wait_for(
                lambda: self._stopping or (not failing and (self._requests or len(self._queue) >= WAKE_ROWS)),
                RETRY_SECONDS if failing else FLUSH_SECONDS,
            )
            requests, outcomes = [], 0
            while self._requests and outcomes < GROUP_OUTCOMES:
                request = self._requests.popleft()
                self._waiting_outcomes -= len(request.outcomes)
                # Nobody waits for those whose deadline passed: not taken, not counted, free to be sent again.
                if not request.future.done():
                    requests.append(request)
                    outcomes += len(request.outcomes)
            return requests, self._stopping

    def _write(self) -> None:
        """Write what was queued when this began; what fails to be written stays in the queue."""
        left = len(self._queue)
        while left > 0:
            with self._changed:
                waiting = list(islice(self._queue, min(left, BATCH_ROWS)))
            self._writer.insert(waiting)
            with self._changed:
                for _ in waiting:
                    self._queue.popleft()
            left -= len(waiting)
        self._observer.store_rows(self._writer.rows, len(self._queue))

    def _label(self, requests: Sequence[LabelRequest]) -> None:
        if not requests:
            return
        statuses, counted = self._writer.label([outcome for request in requests for outcome in request.outcomes])
        results: list[tuple[LabelRequest, list[OutcomeStatus] | Exception]] = []
        for request in requests:
            results.append((request, statuses[: len(request.outcomes)]))
            statuses = statuses[len(request.outcomes) :]
        self._deliver(results, counted)

    def _recovered(self) -> None:
        if self.failure is not None:
            LOGGER.warning("the store is usable again")
        self.failure = None
        self._observer.store_up(True)

    def _fail(self, error: StoreError, requests: Sequence[LabelRequest]) -> None:
        if self.failure is None:
            LOGGER.warning("the store is unusable, outcomes are refused until it is not: %s", error)
            LOGGER.debug("the store's error", exc_info=error)
        self._observer.store_up(False)
        with self._changed:
            self.failure = str(error)
            waiting, self._requests, self._waiting_outcomes = list(self._requests), deque(), 0
        self._writer.close()
        self._observer.store_rows(self._writer.rows, len(self._queue))
        self._deliver([(request, StoreUnavailable()) for request in (*requests, *waiting)], [])

    def _end(self) -> None:
        with self._changed:
            lost = len(self._queue)
            self._queue.clear()
        if lost:
            LOGGER.warning("%d predictions were not logged before the stop", lost)
            self._observer.store_dropped("stopped", lost)
        self._writer.close()

    def _deliver(
        self, results: Sequence[tuple[LabelRequest, list[OutcomeStatus] | Exception]], counted: Sequence[CountedOutcome]
    ) -> None:
        def settle_all() -> None:
            try:
                if counted:
                    self._on_outcomes(counted)
            except Exception as error:
                LOGGER.error("counted outcomes were not passed on", exc_info=error)
            for request, result in results:
                settle(request.future, result)

        if results:
            try:
                results[0][0].future.get_loop().call_soon_threadsafe(settle_all)
            except RuntimeError:
                LOGGER.debug("the event loop is closed, nobody waits for outcomes any more")


def _logged(prediction: Prediction) -> tuple[Any, ...]:
    """The probabilities of a prediction in the order of `Queued`."""
    confidence, served = prediction.confidence, prediction.probability
    if served is not None:
        return confidence.uncalibrated_probability, served, None, None, prediction.bundle_probability
    by_name: Any = confidence.uncalibrated_probabilities
    return (
        by_name[prediction.outcome], max(prediction.probabilities), prediction.probabilities, tuple(by_name.values()),
    )  # fmt: skip
