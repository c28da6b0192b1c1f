"""A second bundle that sees what the first is asked, answers nobody, and has its agreement with it counted.

It runs after the answer, on a thread of its own and at a lower priority where the system has priorities of threads;
what it cannot keep up with is left out and counted.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from models.prediction import Prediction
from models.rows import Row
from models.schema import Schema
from service.inference.inference_thread import PredictorLike
from service.inference.same_schema import check_same_schema
from service.metrics import Metrics

LOGGER = logging.getLogger("evenkeel")
BATCH_ROWS = 64
WAITING_ROWS = 4096
NICENESS = 10

Answered = tuple[Sequence[Row], Sequence[Prediction]]


class Shadow:
    """The shadow's queue and thread. Nothing that fails here reaches a request.

    ``served`` is the schema of the bundle that serves; a shadow of another table is refused.
    """

    def __init__(self, load: Callable[[], PredictorLike], metrics: Metrics, served: Callable[[], Schema]):
        self._load, self._metrics, self._served = load, metrics, served
        self._waiting: deque[Answered] = deque()
        self._rows = 0
        self._arrived = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
        self.version: str | None = None

    def start(self) -> None:
        """Start loading; rows offered before it is there are left out."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """End the thread, with whatever waits uncounted."""
        with self._arrived:
            self._stopping = True
            self._arrived.notify()
        self._thread.join(timeout_seconds)

    def offer(self, rows: Sequence[Row], predictions: Sequence[Prediction]) -> None:
        """Answered rows for comparison; returns at once."""
        if self.version is None:
            return
        with self._arrived:
            if self._rows + len(rows) > WAITING_ROWS:
                self._metrics.shadow_dropped(self.version, len(rows))
                return
            self._waiting.append((rows, predictions))
            self._rows += len(rows)
            self._arrived.notify()

    def _run(self) -> None:
        try:
            if hasattr(os, "setpriority"):
                # Of this thread alone, and of those that it starts: Linux gives each thread a niceness of its own.
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
            predictor = self._load()
            predictor.warm_up()
            self._metrics.shadow_loaded(predictor.bundle.version, predictor.bundle.schema.classes)
            self.version = predictor.bundle.version
            LOGGER.info("version %s runs in the shadow", self.version)
            while answered := self._next():
                check_same_schema(self._served(), predictor.bundle.schema)
                self._compare(predictor, *answered)
        except Exception as error:
            self.version = None
            LOGGER.error("no bundle runs in the shadow: %s", error)

    def _next(self) -> tuple[list[Row], list[Prediction]] | None:
        """At least one request's rows, and more up to a batch; None when stopping."""
        with self._arrived:
            while not self._waiting and not self._stopping:
                self._arrived.wait()
            if self._stopping:
                return None
            rows: list[Row] = []
            predictions: list[Prediction] = []
            while self._waiting and (not rows or len(rows) + len(self._waiting[0][0]) <= BATCH_ROWS):
                more, theirs = self._waiting.popleft()
                rows += more
                predictions += theirs
            self._rows -= len(rows)
            return rows, predictions

    def _compare(self, predictor: PredictorLike, rows: list[Row], served: list[Prediction]) -> None:
        try:
            own = predictor.predict_checked(rows)
        except Exception as error:
            LOGGER.error("the shadow failed", exc_info=error)
            self._metrics.shadow_dropped(predictor.bundle.version, len(rows))
            return
        self._metrics.shadowed(predictor.bundle.version, served, own)
