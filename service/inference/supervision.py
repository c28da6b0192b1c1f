"""Model instances from loading to their end: another bundle's takes over, one that dies or hangs has a successor."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from models.bundle.read import Bundle
from models.engines.memory import return_memory
from service.inference.fair_queue import Slice
from service.inference.inference_thread import InferenceThread, ModelInstance, PredictorLike, Worker

LOGGER = logging.getLogger("evenkeel")

MAX_RESTARTS = 3
"""Instances that may be lost within `RESTARTS_SECONDS`; one more, and the fault is not a passing one."""

RESTARTS_SECONDS = 600.0

LOAD_STALLS = 10
"""Times ``stall_seconds`` that a bundle may take to load; then it never will."""


class Stalled(Exception):
    """An instance that does not come back."""


class Supervisor:
    """Owns the inference threads and the instance that serves.

    ``ready`` once loaded and warm; ``failure`` says why it is not; ``lost`` if it never will be again.

    ``serve`` computes batches for one of an instance's workers, on a thread of its own, until that instance has a
    successor or `stopping` is set. The other callbacks: ``on_loaded`` before a predictor takes over; under ``lock``,
    ``on_takeover`` when it does and ``on_lost`` with what lost its instance; ``on_failure`` when there will be no
    instance.
    """

    def __init__(
        self, load: Callable[[], PredictorLike], lock: threading.RLock, stall_seconds: float, *,
        serve: Callable[[ModelInstance, Worker], None],
        on_loaded: Callable[[PredictorLike], None], on_takeover: Callable[[], None],
        on_lost: Callable[[ModelInstance], None], on_failure: Callable[[str], None],
    ):  # fmt: skip
        self._load, self._lock, self._stall_seconds = load, lock, stall_seconds
        self._serve, self._on_loaded, self._on_takeover = serve, on_loaded, on_takeover
        self._on_lost, self._on_failure = on_lost, on_failure
        self._free_threads: list[InferenceThread] = []
        self._losses: list[float] = []
        self.stopping = threading.Event()
        self.instance: ModelInstance | None = None
        self.predictor: PredictorLike | None = None
        self.failure: str | None = None
        self.ready = self.lost = False

    def start(self) -> None:
        """Start loading, and the watchdog."""
        self._begin(ModelInstance(self._load))
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    async def replace(self, load: Callable[[], PredictorLike]) -> Bundle:
        """Load another predictor beside the one that serves, and have it take over; raises what ``load`` raises."""
        standby = ModelInstance(load, standby=True)
        self._begin(standby)
        return await asyncio.wrap_future(standby.loaded)

    def _begin(self, instance: ModelInstance) -> None:
        instance.loaded.set_running_or_notify_cancel()  # From here on nobody can cancel it.
        seconds = LOAD_STALLS * self._stall_seconds
        late = threading.Timer(seconds, self._not_loaded, (instance, Stalled(f"it did not load within {seconds:g} s")))
        late.daemon = True
        late.start()
        instance.loaded.add_done_callback(lambda _: late.cancel())
        self._on_a_thread(instance, partial(self._live, instance))

    def _on_a_thread(self, instance: ModelInstance, work: Callable[[], None]) -> None:
        """Do an instance's work on a thread that is free for another then. The thread of one that hangs is not."""
        with self._lock:
            thread = self._free_threads.pop() if self._free_threads else InferenceThread()

        def run() -> None:
            work()
            with self._lock:
                instance.threads -= 1
                ended = instance.threads == 0
            if ended:
                instance.predictor = None
                instance.ended.set()
                return_memory()
            with self._lock:
                self._free_threads.append(thread)

        thread.submit(run)

    def _live(self, instance: ModelInstance) -> None:
        """Load an instance, and have its workers serve."""
        try:
            predictor = instance.load()
            predictor.warm_up()
            self._on_loaded(predictor)
        except BaseException as error:
            self._not_loaded(instance, error)
            return
        if not self._take_over(instance, predictor):
            return
        first, *others = instance.workers
        for worker in others:
            self._on_a_thread(instance, partial(self._work, instance, worker))
        self._work(instance, first)

    def _work(self, instance: ModelInstance, worker: Worker) -> None:
        try:
            self._serve(instance, worker)
        except BaseException as error:
            self._lose(instance, error)

    def _take_over(self, instance: ModelInstance, predictor: PredictorLike) -> bool:
        """False if it comes too late."""
        with self._lock:
            if instance.given_up:
                return False
            self._load, self.instance = instance.load, instance
            instance.predictor = self.predictor = predictor
            instance.workers = [Worker() for _ in range(predictor.backend.parallel)]
            instance.threads = len(instance.workers)
            self.ready, self.failure = True, None
            self._on_takeover()
        # Not the predictor: futures are long-lived garbage, and would keep its weights.
        instance.loaded.set_result(predictor.bundle)
        return True

    def _not_loaded(self, instance: ModelInstance, error: BaseException) -> None:
        with self._lock:
            if instance.given_up or instance.predictor is not None:
                return
            instance.given_up = True
        LOGGER.debug("a bundle was not loaded", exc_info=error)
        if not instance.standby:
            self._give_up(str(error) or type(error).__name__)
        instance.loaded.set_exception(error if isinstance(error, Exception) else RuntimeError(str(error)))

    def _lose(self, instance: ModelInstance, error: BaseException) -> None:
        """An instance died or hangs: its batch fails, and a successor loads the same bundle."""
        with self._lock:
            if self.instance is not instance:
                return
            self.instance, self.ready = None, False
            now = time.monotonic()
            self._losses = [at for at in self._losses if now - at < RESTARTS_SECONDS] + [now]
            self._on_lost(instance)
        reason = str(error) or type(error).__name__
        LOGGER.error("an inference thread is lost: %s", reason if isinstance(error, Stalled) else type(error).__name__)
        if len(self._losses) > MAX_RESTARTS:
            self._give_up(reason, lost=True)
        else:
            self._begin(ModelInstance(self._load))

    def _give_up(self, reason: str, lost: bool = False) -> None:
        with self._lock:
            self.ready, self.failure, self.lost = False, reason, self.lost or lost
        self._on_failure(reason)

    def _watch(self) -> None:
        """Lose an instance whose batch takes longer than ``stall_seconds`` of this thread's own running time."""
        pause = self._stall_seconds / 20
        ages: dict[Worker, tuple[list[Slice], float]] = {}
        last = time.monotonic()
        while not self.stopping.wait(pause):
            now = time.monotonic()
            instance, before = self.instance, ages
            ages = {}
            for worker in instance.workers if instance else ():
                batch = worker.batch
                watched, age = before.get(worker, ([], 0.0))
                # A process that was suspended comes back to a late clock, and its batch to the time that it had left.
                ages[worker] = batch, age + min(now - last, 2 * pause) if batch and batch is watched else 0.0
            last = now
            if instance and any(age > self._stall_seconds for _, age in ages.values()):
                self._lose(instance, Stalled(f"a batch took more than {self._stall_seconds:g} s"))
