"""A second bundle that sees what the first is asked, answers nobody, and has its agreement with it counted.

It runs after the answer, on a thread of its own and at a lower priority where the system has priorities of threads;
what it cannot keep up with is left out and counted.
"""

import logging
import os
import threading
from collections import deque
from collections.abc import Callable, Sequence

from models.passenger import Passenger
from models.prediction import Prediction
from service.inference.inference_thread import PredictorLike
from service.metrics import Metrics

LOGGER = logging.getLogger("evenkeel")
BATCH_ROWS = 64
WAITING_ROWS = 4096
NICENESS = 10

Rows = tuple[Sequence[Passenger], Sequence[Prediction]]


class Shadow:
    """The shadow's queue and thread. Nothing that fails here reaches a request."""

    def __init__(self, load: Callable[[], PredictorLike], metrics: Metrics):
        self._load, self._metrics = load, metrics
        self._waiting: deque[Rows] = deque()
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

    def offer(self, passengers: Sequence[Passenger], predictions: Sequence[Prediction]) -> None:
        """Answered rows for comparison; returns at once."""
        if self.version is None:
            return
        with self._arrived:
            if self._rows + len(passengers) > WAITING_ROWS:
                self._metrics.shadow_dropped(self.version, len(passengers))
                return
            self._waiting.append((passengers, predictions))
            self._rows += len(passengers)
            self._arrived.notify()

    def _run(self) -> None:
        try:
            if hasattr(os, "setpriority"):
                # Of this thread alone, and of those that it starts: Linux gives each thread a niceness of its own.
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
            predictor = self._load()
            predictor.warm_up()
            self._metrics.shadow_loaded(predictor.bundle.version)
            self.version = predictor.bundle.version
            LOGGER.info("version %s runs in the shadow", self.version)
            while rows := self._next():
                self._compare(predictor, *rows)
        except Exception as error:
            self.version = None
            LOGGER.error("no bundle runs in the shadow: %s", error)

    def _next(self) -> tuple[list[Passenger], list[Prediction]] | None:
        """At least one request's rows, and more up to a batch; None when stopping."""
        with self._arrived:
            while not self._waiting and not self._stopping:
                self._arrived.wait()
            if self._stopping:
                return None
            passengers: list[Passenger] = []
            predictions: list[Prediction] = []
            while self._waiting and (not passengers or len(passengers) + len(self._waiting[0][0]) <= BATCH_ROWS):
                more, theirs = self._waiting.popleft()
                passengers += more
                predictions += theirs
            self._rows -= len(passengers)
            return passengers, predictions

    def _compare(self, predictor: PredictorLike, passengers: list[Passenger], served: list[Prediction]) -> None:
        try:
            own = predictor.predict_checked(passengers)
        except Exception as error:
            LOGGER.error("the shadow failed", exc_info=error)
            self._metrics.shadow_dropped(predictor.bundle.version, len(passengers))
            return
        self._metrics.shadowed(predictor.bundle.version, served, own)
