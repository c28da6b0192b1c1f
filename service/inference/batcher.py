"""Requests → micro-batches → one inference thread → futures.

Natural batching: the thread takes whatever waits when it becomes free, up to the batch limit, and never waits for
company. While it computes, a second thread reads ahead: it tokenises what the next batch will take. MLX is bound to
threads, so an inference thread also loads its predictor, and another predictor comes with another thread: that of a new
bundle loads beside the old one and takes over between two batches, as does the successor of one that died or hangs.
Nothing here knows HTTP.
"""

import asyncio
import concurrent.futures
import contextlib
import logging
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from models.bundle.read import Bundle
from models.engines.backend import Backend, return_memory
from models.passenger import Passenger
from models.prediction import EncodedText, Prediction, PredictionError
from service.http.errors import NotReady, PredictionFailed, QueueFull
from service.inference.fair_queue import Answer, Entry, FairQueue, Slice
from service.inference.futures import awaited, deliver

LOGGER = logging.getLogger("evenkeel")

CAUTION = 1.5
"""Times the expected wait that a request must have, to be let in: those that come later and are smaller go first."""

NICENESS = 3
"""Of inference threads above the process's own, on Linux: to read requests and to refuse them comes first, and takes
little. Otherwise the event loop waits for a core as long as it computes."""

SHARE_OF_LAST = 0.1
"""Of the last batch in what batches take lately."""

RESTARTS = 3
"""Inference threads that may be lost within `RESTARTS_SECONDS`; one more, and the fault is not a passing one."""

RESTARTS_SECONDS = 600.0

LOAD_STALLS = 10
"""Times ``stall_seconds`` that a bundle may take to load; then it never will."""


class PredictorLike(Protocol):
    """What the batcher needs of `models.predictor.Predictor`."""

    bundle: Bundle
    backend: Backend

    def encode(self, passengers: Sequence[Passenger]) -> list[EncodedText]: ...

    def predict_checked(
        self, passengers: Sequence[Passenger], encoded: Sequence[EncodedText] | None = None
    ) -> list[Prediction]: ...

    def warm_up(self) -> None: ...


class Observer(Protocol):
    """Who is told what the queue and the inference thread do."""

    def queued(self, rows: int) -> None: ...

    def computed(self, rows: int, seconds: float) -> None: ...

    def failed(self, reason: str) -> None: ...

    def thread_lost(self) -> None: ...


class Seat:
    """A thread that inference runs on. It outlives its predictors: what MLX and malloc keep for a thread stays."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="inference", daemon=True).start()

    def take(self, work: Callable[[], None]) -> None:
        """Run it after what was taken before."""
        self._work.put(work)

    def _run(self) -> None:
        if sys.platform == "linux":  # Where a thread has a priority of its own, which threads that it starts inherit.
            with contextlib.suppress(OSError):  # Where a sandbox forbids it.
                os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS))
        while True:
            self._work.get()()


class Worker:
    """The work of an inference thread: its predictor, and the batch that it computes. A spare one may fail to load."""

    def __init__(self, load: Callable[[], PredictorLike], spare: bool = False):
        self.load, self.spare = load, spare
        self.given_up = False
        self.loaded: concurrent.futures.Future[Bundle] = concurrent.futures.Future()
        self.ended = threading.Event()
        self.predictor: PredictorLike | None = None
        self.batch: list[Slice] = []
        self.free_since = 0.0


class Batcher:
    """Owns the queue and the inference thread.

    ``ready`` once loaded and warm; ``failure`` says why it is not; ``lost`` if it never will be again.
    """

    def __init__(
        self, load: Callable[[], PredictorLike], observer: Observer, *, max_batch_rows: int, max_queue_rows: int,
        stall_seconds: float = 60.0,
        on_loaded: Callable[[PredictorLike], None] = lambda _: None,
        on_failure: Callable[[str], None] = lambda _: None,
    ):  # fmt: skip
        self._load, self._observer = load, observer
        self._max_batch_rows, self._max_queue_rows = max_batch_rows, max_queue_rows
        self._stall_seconds = stall_seconds
        self._on_loaded, self._on_failure = on_loaded, on_failure
        self._queue = FairQueue()
        lock = threading.RLock()
        self._arrived, self._ahead = threading.Condition(lock), threading.Condition(lock)
        self._stopping = threading.Event()
        # Not known before the first batch: until then nobody is refused for a wait that was guessed.
        self._seconds_per_row = 0.0
        # From when a batch is computed until its last answer has left: the event loop has others to see to.
        self._delivery_seconds = 0.0
        self._worker: Worker | None = None
        self._seats: list[Seat] = []
        self._losses: list[float] = []
        self._reader = threading.Thread(target=self._read_ahead, name="reading", daemon=True)
        self._watchdog = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self.predictor: PredictorLike | None = None
        self.failure: str | None = None
        self.ready = self.draining = self.lost = False

    def start(self) -> None:
        """Start loading; requests are refused until `ready`."""
        self._begin(Worker(self._load))
        self._reader.start()
        self._watchdog.start()

    def stop(self, timeout_seconds: float) -> None:
        """Answer what waits, then end the threads."""
        with self._arrived:
            self._stopping.set()
            self._arrived.notify_all()
            self._ahead.notify_all()
            worker = self._worker
        if worker is not None:
            worker.ended.wait(timeout_seconds)

    async def replace(self, load: Callable[[], PredictorLike]) -> Bundle:
        """Load another predictor beside the one that serves, and have it take over between two batches.

        Requests that were begun are computed anew, so that no answer mixes models. Raises what ``load`` raises, and
        then the old one goes on.
        """
        worker = Worker(load, spare=True)
        self._begin(worker)
        return await asyncio.wrap_future(worker.loaded)

    def saturated(self, more: int = 0) -> bool:
        """Whether more waits than the next batch takes, with so many rows more."""
        return self._queue.rows + more > self._max_batch_rows

    def refusal(self, client: str, rows: int, timeout_seconds: float) -> QueueFull | None:
        """Why so many rows of a client would not be let in now, if they would not."""
        with self._arrived:
            computing = sum(part.stop - part.start for part in self._worker.batch) if self._worker else 0
            ahead = computing + self._queue.rows_before(client, rows)
            wait = (ahead + rows) * self._seconds_per_row + self._delivery_seconds
            surplus = self._queue.rows + rows - self._max_queue_rows
            if surplus > 0:
                return QueueFull(max(1, math.ceil(surplus * self._seconds_per_row)))
            if ahead and CAUTION * wait > timeout_seconds:
                return QueueFull(max(1, math.ceil(wait - timeout_seconds / CAUTION)))
            return None

    async def predict(
        self, passengers: Sequence[Passenger], timeout_seconds: float, client: str = "",
        left: Callable[[], Awaitable[object]] | None = None,
    ) -> Answer:  # fmt: skip
        """Wait for the answer; raises NotReady, QueueFull, DeadlinePassed, PredictionFailed.

        Clients get their turns by name. ``left`` returns when nobody waits any more: then ClientLeft is raised. Rows
        of a request that ends early leave the queue at once.
        """
        entry = Entry(passengers, client)
        self._admit(entry, timeout_seconds)
        try:
            return await awaited(entry, timeout_seconds, left)
        finally:
            if entry.future.cancel() or entry.future.cancelled():
                with self._arrived:
                    self._queue.remove(entry)
                    self._observer.queued(self._queue.rows)

    def _admit(self, entry: Entry, timeout_seconds: float) -> None:
        with self._arrived:
            if not self.ready or self._stopping.is_set():
                stopping = "stopping" if self._stopping.is_set() else "the model is being loaded"
                raise NotReady(self.failure or stopping)
            refusal = self.refusal(entry.client, len(entry.passengers), timeout_seconds)
            if refusal is not None:
                raise refusal
            computing = self._worker is not None and self._worker.batch
            entry.until = entry.enqueued + timeout_seconds
            self._queue.add(entry)
            self._observer.queued(self._queue.rows)
            (self._ahead if computing else self._arrived).notify()

    def _begin(self, worker: Worker) -> None:
        worker.loaded.set_running_or_notify_cancel()  # From here on nobody can cancel it.
        seconds = LOAD_STALLS * self._stall_seconds
        late = threading.Timer(seconds, self._not_loaded, (worker, Stalled(f"it did not load within {seconds:g} s")))
        late.daemon = True
        late.start()
        worker.loaded.add_done_callback(lambda _: late.cancel())
        with self._arrived:
            seat = self._seats.pop() if self._seats else Seat()
        seat.take(lambda: self._work(worker, seat))

    def _work(self, worker: Worker, seat: Seat) -> None:
        """On the seat's thread: a worker's whole life, and then the seat is free for another. One that hangs is not."""
        self._run(worker)
        worker.predictor = None
        worker.ended.set()
        return_memory()
        with self._arrived:
            self._seats.append(seat)

    def _run(self, worker: Worker) -> None:
        try:
            predictor = worker.load()
            predictor.warm_up()
            self._on_loaded(predictor)
        except BaseException as error:
            self._not_loaded(worker, error)
            return
        if not self._take_over(worker, predictor):
            return
        try:
            while self._next(worker):
                self._compute(worker, worker.batch)
        except BaseException as error:
            self._lose(worker, error)

    def _take_over(self, worker: Worker, predictor: PredictorLike) -> bool:
        """False if it comes too late."""
        with self._arrived:
            if worker.given_up:
                return False
            self._load, self._worker = worker.load, worker
            worker.predictor = self.predictor = predictor
            worker.free_since = time.perf_counter()
            self._queue.begin_anew()
            self.ready, self.failure = True, None
            self._arrived.notify_all()
        # Not the predictor: futures are long-lived garbage, and would keep its weights.
        worker.loaded.set_result(predictor.bundle)
        return True

    def _not_loaded(self, worker: Worker, error: BaseException) -> None:
        with self._arrived:
            if worker.given_up or worker.predictor is not None:
                return
            worker.given_up = True
        LOGGER.debug("a bundle was not loaded", exc_info=error)
        if not worker.spare:
            self._give_up(str(error) or type(error).__name__)
        worker.loaded.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))

    def _lose(self, worker: Worker, error: BaseException) -> None:
        """A thread died or hangs: whoever waits for its batch is told, and a successor loads the same bundle."""
        with self._arrived:
            if self._worker is not worker:
                return
            self._worker, self.ready = None, False
            told = [part.entry for part in worker.batch]
            for entry in told:
                self._queue.remove(entry)
            now = time.monotonic()
            self._losses = [at for at in self._losses if now - at < RESTARTS_SECONDS] + [now]
        reason = str(error) or type(error).__name__
        LOGGER.error("the inference thread is lost: %s", reason if isinstance(error, Stalled) else type(error).__name__)
        self._observer.thread_lost()
        for _ in told:
            self._observer.failed("lost")
        deliver((entry, PredictionFailed("the model gave no answer for this request")) for entry in told)
        if len(self._losses) > RESTARTS:
            self.lost = True
            self._give_up(reason)
        else:
            self._begin(Worker(self._load))

    def _give_up(self, reason: str) -> None:
        with self._arrived:
            self.ready, self.failure = False, reason
            abandoned = self._queue.clear()
            self._observer.queued(0)
        deliver((entry, NotReady(reason)) for entry in abandoned)
        self._on_failure(reason)

    def _next(self, worker: Worker) -> bool:
        """Wait for the worker's next batch; False when there is none, because it has a successor or all is done."""
        with self._arrived:
            worker.batch = []
            while self._worker is worker and not self._queue.rows:
                if self._stopping.is_set():
                    return False
                self._arrived.wait()
                worker.free_since = time.perf_counter()
            if self._worker is not worker:
                return False
            now = time.perf_counter()
            late = self._queue.drop_late(now, self._max_batch_rows, self._seconds_per_row)
            deliver((one, QueueFull(1)) for one in late)
            worker.batch = self._queue.take(self._max_batch_rows)
            for part in worker.batch:
                if part.start == 0:
                    part.entry.queue_seconds = now - part.entry.enqueued
            self._observer.queued(self._queue.rows)
            if self._queue.rows:
                self._ahead.notify()
            return True

    def _read_ahead(self) -> None:
        """While a batch is computed, read the texts of the rows that the next one will take."""
        while True:
            with self._ahead:
                while (entry := self._unread()) is None:
                    if self._stopping.is_set():
                        return
                    self._ahead.wait()
                start, epoch, predictor = len(entry.texts), entry.epoch, self.predictor
            assert predictor is not None
            texts = predictor.encode(entry.passengers[start : start + self._max_batch_rows])
            with self._ahead:
                if entry.epoch == epoch:
                    entry.texts += texts

    def _unread(self) -> Entry | None:
        """The first request of the next batch with rows that are not read; none when the inference thread is free."""
        if self._worker is None or not self._worker.batch:
            return None
        coming = self._queue.peek(self._max_batch_rows)
        return next((entry for entry, rows in coming.items() if len(entry.texts) < entry.taken + rows), None)

    def _compute(self, worker: Worker, batch: Sequence[Slice]) -> None:
        start = time.perf_counter()
        passengers = [passenger for part in batch for passenger in part.passengers]
        texts = [text for part in batch for text in part.texts]
        predictor = worker.predictor
        assert predictor is not None
        try:
            predictions = predictor.predict_checked(passengers, texts if len(texts) == len(passengers) else None)
            if len(predictions) != len(passengers):
                raise PredictionFailed("the model answered with another number of rows")
        except Exception as error:
            self._isolate(worker, batch, error)
            return
        now = time.perf_counter()
        seconds = now - start
        # With what passed between two batches, which a request waits for too.
        share = SHARE_OF_LAST if self._seconds_per_row else 1.0
        self._seconds_per_row += share * ((now - worker.free_since) / len(passengers) - self._seconds_per_row)
        worker.free_since = now
        self._observer.computed(len(passengers), seconds)
        answered = []
        with self._arrived:
            # Whoever comes with the first of these answers is not told to wait for them.
            worker.batch = worker.batch[len(batch) :]
            for part in batch:
                count = part.stop - part.start
                if part.current:
                    part.entry.predictions += predictions[:count]
                    part.entry.inference_seconds += seconds
                predictions = predictions[count:]
                if part.current and len(part.entry.predictions) == len(part.entry.passengers):
                    answered.append(part.entry)
        deliver(
            ((one, Answer(one.predictions, predictor.bundle, one.queue_seconds, one.inference_seconds))
             for one in answered),
            self._delivered,
        )  # fmt: skip

    def _delivered(self, seconds: float) -> None:
        self._delivery_seconds += SHARE_OF_LAST * (seconds - self._delivery_seconds)

    def _isolate(self, worker: Worker, batch: Sequence[Slice], error: Exception) -> None:
        """A failed batch: its requests are tried one by one, so that one bad row costs nobody else an answer."""
        if len(batch) == 1:
            LOGGER.error("a prediction failed", exc_info=error)
            self._observer.failed("not_finite" if isinstance(error, PredictionError) else "error")
            with self._arrived:
                worker.batch = worker.batch[1:]
                self._queue.remove(batch[0].entry)
            deliver([(batch[0].entry, PredictionFailed("the model gave no valid answer for this request"))])
            return
        for part in batch:
            self._compute(worker, [part])

    def _watch(self) -> None:
        """Lose a worker whose batch takes longer than ``stall_seconds`` of this thread's own running time."""
        pause = self._stall_seconds / 20
        watched: list[Slice] = []
        age, last = 0.0, time.monotonic()
        while not self._stopping.wait(pause):
            now = time.monotonic()
            worker = self._worker
            batch = worker.batch if worker else []
            # A process that was suspended comes back to a late clock, and its batch to the time that it had left.
            age = age + min(now - last, 2 * pause) if batch and batch is watched else 0.0
            watched, last = batch, now
            if worker and age > self._stall_seconds:
                self._lose(worker, Stalled(f"a batch took more than {self._stall_seconds:g} s"))


class Stalled(Exception):
    """An inference thread that does not come back."""
