"""Requests → micro-batches → inference threads → futures.

Natural batching: a thread takes whatever waits when it becomes free, up to the batch limit, and never waits for
company. While all of them compute, another encodes what the next batch will take. Nothing here knows HTTP.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from models.bundle.read import Bundle
from models.prediction import Prediction, PredictionError, Stage
from models.rows import Row
from service.inference.admission import Admission
from service.inference.encode_ahead import EncodeAhead
from service.inference.errors import NotReady, PredictionFailed, QueueFull
from service.inference.fair_queue import Answer, Entry, FairQueue, Slice
from service.inference.futures import awaited, deliver
from service.inference.inference_thread import ModelInstance, PredictorLike, Worker
from service.inference.retry_times import RetryTimes
from service.inference.supervision import Supervisor
from service.inference.token_budget import TokenBudget

LOGGER = logging.getLogger("evenkeel")


class Observer(Protocol):
    """Counts what the queue and the inference threads do."""

    def queued(self, rows: int) -> None: ...

    def computed(self, rows: int, seconds: float) -> None: ...

    def failed(self, reason: str) -> None: ...

    def thread_lost(self) -> None: ...


class Batcher:
    """Owns the queue, and what computes it. ``draining`` is set from outside when the service is about to stop."""

    def __init__(
        self, load: Callable[[], PredictorLike], observer: Observer, *, max_batch_rows: int, max_queue_rows: int,
        stall_seconds: float = 60.0,
        on_loaded: Callable[[PredictorLike], None] = lambda _: None,
        on_failure: Callable[[str], None] = lambda _: None,
    ):  # fmt: skip
        self._observer, self._on_failure, self._max_batch_rows = observer, on_failure, max_batch_rows
        lock = threading.RLock()
        self._arrived = threading.Condition(lock)
        self._queue, self._admission = FairQueue(), Admission(max_queue_rows, max_batch_rows)
        self._retry_times = RetryTimes(max_batch_rows)
        self._supervisor = Supervisor(
            load, lock, stall_seconds, serve=self._serve, on_loaded=on_loaded, on_takeover=self._restart,
            on_lost=self._fail_batch, on_failure=self._fail_all,
        )  # fmt: skip
        self._encoder = EncodeAhead(self._queue, self._supervisor, lock, max_batch_rows)
        self.draining = False

    @property
    def predictor(self) -> PredictorLike | None:
        """The one that serves, or served last."""
        return self._supervisor.predictor

    @property
    def ready(self) -> bool:
        """Whether a model is loaded and warm."""
        return self._supervisor.ready

    @property
    def failure(self) -> str | None:
        """Why it is not ready and will not be by itself."""
        return self._supervisor.failure

    @property
    def lost(self) -> bool:
        """Whether only a new process can help."""
        return self._supervisor.lost

    def start(self) -> None:
        """Start loading; requests are refused until `ready`."""
        self._supervisor.start()
        self._encoder.start()

    def stop(self, timeout_seconds: float) -> None:
        """Answer what waits, then end the threads."""
        with self._arrived:
            self._supervisor.stopping.set()
            self._arrived.notify_all()
            self._encoder.stop()
            instance = self._supervisor.instance
        if instance is not None:
            instance.ended.wait(timeout_seconds)

    async def replace(self, load: Callable[[], PredictorLike]) -> Bundle:
        """Load another predictor beside the one that serves, and have it take over between two batches.

        Requests that were begun are computed anew, so that no answer mixes models. Raises what ``load`` raises, and
        then the old one goes on.
        """
        return await self._supervisor.replace(load)

    def saturated(self, more: int = 0) -> bool:
        """Whether more waits than the next batch takes, with so many rows more."""
        return self._queue.rows + more > self._max_batch_rows

    def refusal(self, client: str, rows: int, timeout_seconds: float) -> QueueFull | None:
        """Why so many rows of a client would not be let in now, if they would not."""
        with self._arrived:
            instance = self._supervisor.instance
            computing = sum(part.size for part in instance.batches) if instance else 0
            ahead = computing + self._queue.rows_before(client, rows)
            return self._admission.refusal(rows, ahead, self._queue.rows, timeout_seconds)

    async def predict(
        self, rows: Sequence[Row], timeout_seconds: float, client: str = "",
        on_disconnect: list[Callable[[], object]] | None = None,
    ) -> Answer:  # fmt: skip
        """Wait for the answer; raises NotReady, QueueFull, DeadlinePassed, PredictionFailed.

        Clients get their turns by name. Who sees that nobody waits any more calls what then is in ``on_disconnect``,
        and ClientDisconnected is raised. Rows of a request that ends early leave the queue at once.
        """
        entry = Entry(rows, client)
        self._admit(entry, timeout_seconds)
        try:
            return await awaited(entry, timeout_seconds, on_disconnect)
        except BaseException:
            entry.future.cancel()
            with self._arrived:
                self._queue.remove(entry)
                self._observer.queued(self._queue.rows)
            raise

    def _admit(self, entry: Entry, timeout_seconds: float) -> None:
        with self._arrived:
            stopping = self._supervisor.stopping.is_set()
            if stopping or not self.ready:
                raise NotReady(self.failure or ("stopping" if stopping else "the model is being loaded"))
            refusal = self.refusal(entry.client, len(entry.rows), timeout_seconds)
            if refusal is not None:
                rows, seconds = len(entry.rows), refusal.retry_after_seconds
                times = self._admission.seconds_of(rows, timeout_seconds)
                raise QueueFull(self._retry_times.seconds(entry.client, rows, seconds, *times))
            entry.deadline = entry.enqueued + timeout_seconds
            self._queue.add(entry)
            self._observer.queued(self._queue.rows)
            self._wake_for_rows()

    def _wake_for_rows(self) -> None:
        """Rows wait: a free worker takes them, or else they are encoded ahead."""
        instance = self._supervisor.instance
        if instance is not None and instance.busy:
            self._encoder.notify(instance)
        else:
            self._arrived.notify()

    def _serve(self, instance: ModelInstance, worker: Worker) -> None:
        assert instance.predictor is not None
        budget = TokenBudget(instance.predictor.rows.schema, self._max_batch_rows)
        while parts := self._next(instance, worker, budget):
            for part in parts:
                self._compute(instance, worker, part)

    def _next(self, instance: ModelInstance, worker: Worker, budget: TokenBudget) -> list[list[Slice]]:
        """Wait for the worker's next batch, in parts that are computed one after the other; no part when there is
        none, because the instance has a successor or all is done."""
        with self._arrived:
            worker.batch = []
            while self._supervisor.instance is instance and not self._queue.rows:
                if self._supervisor.stopping.is_set():
                    return []
                self._arrived.wait()
                worker.free_since = time.perf_counter()
            if self._supervisor.instance is not instance:
                return []
            now = time.perf_counter()
            # Beside others it takes as much longer as they do meanwhile.
            seconds_per_row = self._admission.seconds_per_row * (instance.computing + 1)
            late = self._queue.drop_late(now, self._max_batch_rows, seconds_per_row)
            deliver((entry, QueueFull(1)) for entry in late)
            parts = budget.parts(self._queue.take(self._max_batch_rows))
            worker.batch = [part for each in parts for part in each]
            for part in worker.batch:
                if part.start == 0:
                    part.entry.queue_seconds = now - part.entry.enqueued
                    part.entry.stages.append(Stage("queue", part.entry.enqueued, now))
            self._observer.queued(self._queue.rows)
            if self._queue.rows:
                self._wake_for_rows()
            return parts

    def _compute(self, instance: ModelInstance, worker: Worker, batch: Sequence[Slice]) -> None:
        start = time.perf_counter()
        rows = [row for part in batch for row in part.rows]
        encoded = [text for part in batch for text in part.encoded]
        predictor, stages = instance.predictor, list[Stage]()
        assert predictor is not None
        try:
            predictions = predictor.predict_checked(rows, encoded if len(encoded) == len(rows) else None, stages)
            if len(predictions) != len(rows):
                raise PredictionFailed("the model answered with another number of rows")
        except Exception as error:
            self._isolate(instance, worker, batch, error)
            return
        now = time.perf_counter()
        self._observer.computed(len(rows), now - start)
        with self._arrived:
            # With what passed between two batches, which a request waits for too, and less what others did meanwhile.
            self._admission.computed(len(rows), (now - worker.free_since) / instance.computing)
            worker.free_since = now
            # Whoever comes with the first of these answers need not wait for them.
            worker.batch = worker.batch[len(batch) :]
            complete = _distribute(batch, predictions, now, stages)
        deliver(
            ((entry, Answer(entry.predictions, predictor.bundle, entry.queue_seconds, entry.inference_seconds,
                            entry.stages))
             for entry in complete),
            self._admission.delivered,
        )  # fmt: skip

    def _isolate(self, instance: ModelInstance, worker: Worker, batch: Sequence[Slice], error: Exception) -> None:
        """A failed batch: its requests are tried one by one, so that one bad row costs nobody else an answer."""
        if len(batch) > 1:
            for part in batch:
                self._compute(instance, worker, [part])
            return
        LOGGER.error("a prediction failed", exc_info=error)
        self._observer.failed("not_finite" if isinstance(error, PredictionError) else "error")
        with self._arrived:
            worker.batch = worker.batch[1:]
            self._queue.remove(batch[0].entry)
        deliver([(batch[0].entry, PredictionFailed("the model gave no valid answer for this request"))])

    def _restart(self) -> None:
        """Another instance takes over: what was begun is computed from its first row again."""
        self._queue.reset()
        self._arrived.notify_all()

    def _fail_batch(self, instance: ModelInstance) -> None:
        self._observer.thread_lost()
        lost = instance.batches
        for part in lost:
            self._queue.remove(part.entry)
            self._observer.failed("lost")
        error = PredictionFailed("the model gave no answer for this request")
        deliver((part.entry, error) for part in lost)

    def _fail_all(self, reason: str) -> None:
        with self._arrived:
            abandoned = self._queue.clear()
            self._observer.queued(0)
        deliver((entry, NotReady(reason)) for entry in abandoned)
        self._on_failure(reason)


def _distribute(
    batch: Iterable[Slice], predictions: Sequence[Prediction], now: float, stages: Sequence[Stage]
) -> list[Entry]:
    """Give the requests of a batch their predictions; those that have all of theirs now."""
    complete, first = [], 0
    for part in batch:
        if part.current:
            part.put(predictions[first : first + part.size])
            # From the first of its batches on: they may have been computed side by side.
            part.entry.inference_seconds = now - part.entry.enqueued - part.entry.queue_seconds
            part.entry.stages += stages
            if part.entry.computed == len(part.entry.rows):
                complete.append(part.entry)
        first += part.size
    return complete
