"""Requests → micro-batches → one inference thread → futures.

Natural batching: the thread takes whatever waits when it becomes free, up to the batch limit, and never waits for
company. While it computes, a second thread reads ahead: it tokenises what the next batch will take. MLX is bound to
threads, so the inference thread also loads the predictor. Nothing here knows HTTP.
"""

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

from models.backend import Backend
from models.bundle import Bundle
from models.passenger import Passenger
from models.predictor import Prediction, Text
from service.errors import DeadlinePassed, NotReady, PredictionFailed, QueueFull

LOGGER = logging.getLogger("evenkeel")


class PredictorLike(Protocol):
    """What the batcher needs of `models.predictor.Predictor`."""

    bundle: Bundle
    backend: Backend

    def read(self, passengers: Sequence[Passenger]) -> list[Text]: ...

    def predict(self, passengers: Sequence[Passenger], texts: Sequence[Text] | None = None) -> list[Prediction]: ...

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
    """A waiting request: its rows, those already read ahead, and those already computed."""

    passengers: Sequence[Passenger]
    future: "asyncio.Future[Answer]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    enqueued: float = field(default_factory=time.perf_counter)
    texts: list[Text] = field(default_factory=list)
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

    @property
    def texts(self) -> Sequence[Text]:
        return self.entry.texts[self.start : self.stop]


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
        lock = threading.Lock()
        self._arrived, self._ahead = threading.Condition(lock), threading.Condition(lock)
        self._computing = self._stopping = False
        self._seconds_per_row = 0.01
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._reader = threading.Thread(target=self._read_ahead, name="reading", daemon=True)
        self.predictor: PredictorLike | None = None
        self.failure: str | None = None
        self.ready = False
        self.draining = False

    def start(self) -> None:
        """Start loading; requests are refused until `ready`."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Answer what waits, then end the thread."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
            self._ahead.notify()
        self._thread.join(timeout_seconds)

    async def predict(self, passengers: Sequence[Passenger], timeout_seconds: float) -> Answer:
        """Wait for the answer; raises NotReady, QueueFull, DeadlinePassed, PredictionFailed."""
        entry = Entry(passengers)
        self._admit(entry)
        try:
            return await asyncio.wait_for(entry.future, timeout_seconds)
        except TimeoutError:
            raise DeadlinePassed(f"no answer within {timeout_seconds:g} seconds") from None

    def _admit(self, entry: Entry) -> None:
        rows = len(entry.passengers)
        with self._arrived:
            if not self.ready or self._stopping:
                raise NotReady(self.failure or ("stopping" if self._stopping else "the model is being loaded"))
            if self._rows + rows > self._max_queue_rows:
                raise QueueFull(max(1, math.ceil(self._rows * self._seconds_per_row)))
            self._waiting.append(entry)
            self._count(rows)
            (self._ahead if self._computing else self._arrived).notify()

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
            self._reader.start()
            while batch := self._next():
                self._compute(predictor, batch)
        except BaseException as error:
            self._die(error)

    def _die(self, error: BaseException) -> None:
        LOGGER.debug("the inference thread ended", exc_info=error)
        with self._arrived:
            self.ready, self.failure = False, str(error) or type(error).__name__
            abandoned, self._waiting = list(self._waiting), deque()
            self._count(-self._rows)
        _deliver((entry, NotReady(self.failure)) for entry in abandoned)
        self._on_failure(self.failure)

    def _next(self) -> list[Slice]:
        """The next batch: rows in order of arrival, at most the limit; empty when stopping and nothing waits."""
        with self._arrived:
            self._computing = False
            while not self._waiting:
                if self._stopping:
                    return []
                self._arrived.wait()
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
            self._computing = bool(batch)
            if self._computing and self._waiting:
                self._ahead.notify()
        return batch or self._next()

    def _read_ahead(self) -> None:
        """While a batch is computed, read the texts of the rows that the next one will take."""
        while True:
            with self._ahead:
                while (entry := self._unread()) is None:
                    if self._stopping:
                        return
                    self._ahead.wait()
            start = len(entry.texts)
            assert self.predictor is not None
            texts = self.predictor.read(entry.passengers[start : start + self._max_batch_rows])
            with self._ahead:
                entry.texts += texts

    def _unread(self) -> Entry | None:
        """The first request of the next batch with rows that are not read; none when the inference thread is free."""
        room = self._max_batch_rows if self._computing else 0
        for entry in self._waiting:
            if room <= 0:
                break
            if len(entry.texts) < min(len(entry.passengers), entry.taken + room):
                return entry
            room -= len(entry.passengers) - entry.taken
        return None

    def _compute(self, predictor: PredictorLike, batch: list[Slice]) -> None:
        start = time.perf_counter()
        passengers = [passenger for part in batch for passenger in part.passengers]
        texts = [text for part in batch for text in part.texts]
        try:
            predictions = predictor.predict(passengers, texts if len(texts) == len(passengers) else None)
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
            part.entry.predictions += predictions[:count]
            part.entry.inference_seconds += seconds
            predictions = predictions[count:]
        _deliver(
            (entry, Answer(entry.predictions, entry.queue_seconds, entry.inference_seconds))
            for entry in (part.entry for part in batch)
            if len(entry.predictions) == len(entry.passengers)
        )

    def _isolate(self, predictor: PredictorLike, batch: list[Slice], error: Exception) -> None:
        """A failed batch: its requests are tried one by one, so that one bad row costs nobody else an answer."""
        if len(batch) == 1:
            LOGGER.error("a prediction failed", exc_info=error)
            _deliver([(batch[0].entry, PredictionFailed("the model gave no valid answer for this request"))])
            return
        for part in batch:
            self._compute(predictor, [part])


def _deliver(results: Iterable[tuple[Entry, Answer | Exception]]) -> None:
    """Hand results to the event loops that wait for them: one call for all of a loop."""
    for loop, group in groupby(results, lambda result: result[0].future.get_loop()):
        try:
            loop.call_soon_threadsafe(_settle, list(group))
        except RuntimeError:
            # The loop is closed, and whoever waited is gone.
            LOGGER.debug("nobody waits for a result any more")


def _settle(results: Sequence[tuple[Entry, Answer | Exception]]) -> None:
    for entry, result in results:
        if entry.future.done():
            continue
        if isinstance(result, Answer):
            entry.future.set_result(result)
        else:
            entry.future.set_exception(result)
