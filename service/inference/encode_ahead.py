"""A thread that encodes the rows of the next batch while a device computes one.

Where the processor computes, it has nothing to spare: encoding row by row costs several times what a batch does.
"""

import threading

from models.prediction import Stage, timed
from service.inference.fair_queue import Entry, FairQueue
from service.inference.inference_thread import ModelInstance
from service.inference.supervision import Supervisor


class EncodeAhead:
    """``notify`` it under the lock when all batches are being computed and there may be rows to encode."""

    def __init__(self, queue: FairQueue, supervisor: Supervisor, lock: threading.RLock, max_batch_rows: int):
        self._queue, self._supervisor, self._max_batch_rows = queue, supervisor, max_batch_rows
        self._wake = threading.Condition(lock)

    def start(self) -> None:
        threading.Thread(target=self._run, name="encoding", daemon=True).start()

    def notify(self, instance: ModelInstance) -> None:
        """Look for rows of the instance's next batch."""
        if instance.predictor is not None and instance.predictor.backend.device != "cpu":
            self._wake.notify()

    def stop(self) -> None:
        """End, under the lock, once the supervisor stops."""
        self._wake.notify_all()

    def _run(self) -> None:
        while True:
            with self._wake:
                while (entry := self._next()) is None:
                    if self._supervisor.stopping.is_set():
                        return
                    self._wake.wait()
                start, epoch, predictor = len(entry.encoded), entry.epoch, self._supervisor.predictor
            assert predictor is not None
            stages: list[Stage] = []
            encode = timed(stages, "tokenise", predictor.encode)
            encoded = encode(entry.rows[start : start + self._max_batch_rows])
            with self._wake:
                if entry.epoch == epoch:
                    entry.encoded += encoded
                    entry.stages += stages

    def _next(self) -> Entry | None:
        """The first request of the next batch with rows to encode; none when a worker is free."""
        instance = self._supervisor.instance
        if instance is None or not instance.busy:
            return None
        coming = self._queue.peek(self._max_batch_rows)
        return next((entry for entry, rows in coming.items() if len(entry.encoded) < entry.taken + rows), None)
