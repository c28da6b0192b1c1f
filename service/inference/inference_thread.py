"""A model instance, its workers, and the threads that it is loaded and computed on: MLX is bound to threads."""

import concurrent.futures
import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from models.bundle.read import Bundle
from models.engines.engine import Backend
from models.prediction import EncodedText, Prediction, Stage
from models.rows import Row, Rows
from service.inference.fair_queue import Slice

NICENESS = 10
"""Of inference threads above the process's own, on Linux: to read requests and to refuse them comes first, and takes
little. Otherwise the event loop waits for a core as long as it computes."""


class PredictorLike(Protocol):
    """What inference needs of `models.predictor.Predictor`."""

    bundle: Bundle
    backend: Backend
    rows: Rows

    def encode(self, rows: Sequence[Row]) -> list[EncodedText]: ...

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: list[Stage] | None = None
    ) -> list[Prediction]: ...

    def warm_up(self) -> None: ...


class Worker:
    """What computes one batch of an instance at a time, and that batch."""

    def __init__(self) -> None:
        self.batch: list[Slice] = []
        self.free_since = time.perf_counter()


class ModelInstance:
    """A predictor from its loading to its end, and its workers: as many as it computes batches at once
    (`Backend.parallel`). A standby one may fail to load."""

    def __init__(self, load: Callable[[], PredictorLike], standby: bool = False):
        self.load, self.standby = load, standby
        self.given_up = False
        self.loaded: concurrent.futures.Future[Bundle] = concurrent.futures.Future()
        self.ended = threading.Event()
        self.predictor: PredictorLike | None = None
        self.workers: list[Worker] = []
        self.threads = 1

    @property
    def batches(self) -> list[Slice]:
        """All that its workers compute."""
        return [part for worker in self.workers for part in worker.batch]

    @property
    def computing(self) -> int:
        """How many of its workers have a batch."""
        return sum(bool(worker.batch) for worker in self.workers)

    @property
    def busy(self) -> bool:
        """Whether all of them have one."""
        return self.computing == len(self.workers)


class InferenceThread:
    """Outlives the model instances that run on it, one after the other: what MLX and malloc keep for a thread stays."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="inference", daemon=True).start()

    def submit(self, work: Callable[[], None]) -> None:
        """Run it after what was submitted before."""
        self._work.put(work)

    def _run(self) -> None:
        if sys.platform == "linux":  # Where a thread has a priority of its own, which threads that it starts inherit.
            with contextlib.suppress(OSError):  # Where a sandbox forbids it.
                os.setpriority(os.PRIO_PROCESS, 0, min(19, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS))
        while True:
            self._work.get()()
