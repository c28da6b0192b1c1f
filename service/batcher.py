"""Requests → micro-batches → one inference thread → futures.

Natural batching: the thread takes whatever waits when it becomes free, up to the batch limit, and never waits for
company. MLX is bound to threads, so this thread also loads the predictor. Nothing here knows HTTP.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from models.backend import Backend
from models.bundle import Bundle
from models.passenger import Passenger
from models.predictor import Prediction
from service.errors import DeadlinePassed, NotReady, PredictionFailed, QueueFull

LOGGER = logging.getLogger("evenkeel")


class PredictorLike(Protocol):
    """What the batcher needs of `models.predictor.Predictor`."""

    bundle: Bundle
    backend: Backend

    def predict(self, passengers: Sequence[Passenger]) -> list[Prediction]: ...

    def warm_up(self) -> None: ...


class Observer(Protocol):
    """Who is told what the queue and the inference thread do."""

    def queued(self, rows: int) -> None: ...

    def computed(self, rows: int, seconds: float) -> None: ...


@dataclass(frozen=True)
class Answer:
    """Predictions in the order asked, and where the time went."""

    predictions: list[Prediction]
    queue_seconds: float
    inference_seconds: float


@dataclass
class Entry:
    """A waiting request: its rows, and the rows already computed."""

    passengers: Sequence[Passenger]
    future: "Future[Answer]" = field(default_factory=Future)
    enqueued: float = field(default_factory=time.perf_counter)
    taken: int = 0
    predictions: list[Prediction] = field(default_factory=list)
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0


@dataclass(frozen=True)
class Slice:
    """Rows [start, stop) of an entry, in one batch."""

    entry: Entry
    start: int
    stop: int

    @property
    def passengers(self) -> Sequence[Passenger]:
        return self.entry.passengers[self.start : self.stop]


class Batcher:
    """Owns the queue and the inference thread. ``ready`` once loaded and warm; ``failure`` says why it is not."""

    def __init__(
        self, load: Callable[[], PredictorLike], observer: Observer, *, max_batch_rows: int, max_queue_rows: int,
        on_loaded: Callable[[PredictorLike], None] = lambda _: None,
        on_failure: Callable[[str], None] = lambda _: None,
    ):  # fmt: skip
        self._load, self._observer = load, observer
        self._max_batch_rows, self._max_queue_rows = max_batch_rows, max_queue_rows
        self._on_loaded, self._on_failure = on_loaded, on_failure
        self._waiting: deque[Entry] = deque()
        self._rows = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._seconds_per_row = 0.01
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self.predictor: PredictorLike | None = None
        self.failure: str | None = None
        self.ready = False
        self.draining = False

    def start(self) -> None:
        """Start loading; requests are refused until `ready`."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join(timeout_seconds)

    async def predict(self, passengers: Sequence[Passenger], timeout_seconds: float) -> Answer:
        """Wait for the answer; raises NotReady, QueueFull, DeadlinePassed, PredictionFailed."""
        entry = Entry(passengers)
        self._admit(entry)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(entry.future), timeout_seconds)
        except TimeoutError:
            raise DeadlinePassed(f"no answer within {timeout_seconds:g} seconds") from None

    def _admit(self, entry: Entry) -> None:
        rows = len(entry.passengers)
        with self._changed:
            if not self.ready or self._stopping:
                raise NotReady(self.failure or ("stopping" if self._stopping else "the model is being loaded"))
            if self._rows + rows > self._max_queue_rows:
                raise QueueFull(max(1, math.ceil(self._rows * self._seconds_per_row)))
            self._waiting.append(entry)
            self._count(rows)
            self._changed.notify()

    def _count(self, rows: int) -> None:
        self._rows += rows
        self._observer.queued(self._rows)

    def _run(self) -> None:
        try:
            predictor = self._load()
            predictor.warm_up()
            self.predictor = predictor
            self._on_loaded(predictor)
            self.ready = True
            while batch := self._next():
                self._compute(predictor, batch)
        except BaseException as error:
            self._die(error)

    def _die(self, error: BaseException) -> None:
        LOGGER.debug("the inference thread ended", exc_info=error)
        with self._changed:
            self.ready, self.failure = False, str(error) or type(error).__name__
            abandoned, self._waiting = list(self._waiting), deque()
            self._count(-self._rows)
        for entry in abandoned:
            _fail(entry, NotReady(self.failure))
        self._on_failure(self.failure)

    def _next(self) -> list[Slice]:
        """The next batch: rows in order of arrival, at most the limit; empty when stopping and nothing waits."""
        with self._changed:
            while not self._waiting:
                if self._stopping:
                    return []
                self._changed.wait()
            batch: list[Slice] = []
            room = self._max_batch_rows
            while room and self._waiting:
                entry = self._waiting[0]
                if entry.future.done():  # Its deadline passed: nobody waits for it.
                    self._waiting.popleft()
                    self._count(entry.taken - len(entry.passengers))
                    continue
                if not entry.taken:
                    entry.queue_seconds = time.perf_counter() - entry.enqueued
                stop = min(entry.taken + room, len(entry.passengers))
                batch.append(Slice(entry, entry.taken, stop))
                room -= stop - entry.taken
                self._count(entry.taken - stop)
                entry.taken = stop
                if stop == len(entry.passengers):
                    self._waiting.popleft()
        return batch or self._next()

    def _compute(self, predictor: PredictorLike, batch: list[Slice]) -> None:
        start = time.perf_counter()
        passengers = [passenger for part in batch for passenger in part.passengers]
        try:
            predictions = predictor.predict(passengers)
            if len(predictions) != len(passengers):
                raise PredictionFailed("the model answered with another number of rows")
        except Exception as error:
            self._isolate(predictor, batch, error)
            return
        seconds = time.perf_counter() - start
        self._seconds_per_row += 0.1 * (seconds / len(passengers) - self._seconds_per_row)
        self._observer.computed(len(passengers), seconds)
        for part in batch:
            count = part.stop - part.start
            _extend(part.entry, predictions[:count], seconds)
            predictions = predictions[count:]

    def _isolate(self, predictor: PredictorLike, batch: list[Slice], error: Exception) -> None:
        """A failed batch: its requests are tried one by one, so that one bad row costs nobody else an answer."""
        if len(batch) == 1:
            LOGGER.error("a prediction failed", exc_info=error)
            _fail(batch[0].entry, PredictionFailed("the model gave no valid answer for this request"))
            return
        for part in batch:
            self._compute(predictor, [part])


def _extend(entry: Entry, predictions: list[Prediction], seconds: float) -> None:
    entry.predictions += predictions
    entry.inference_seconds += seconds
    if len(entry.predictions) == len(entry.passengers) and entry.future.set_running_or_notify_cancel():
        entry.future.set_result(Answer(entry.predictions, entry.queue_seconds, entry.inference_seconds))


def _fail(entry: Entry, error: Exception) -> None:
    if not entry.future.done() and entry.future.set_running_or_notify_cancel():
        entry.future.set_exception(error)
