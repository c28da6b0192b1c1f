"""A thread that encodes the rows of the next batch while one is computed."""

import threading

from models.prediction import Stage, timed
from service.inference.fair_queue import Entry, FairQueue
from service.inference.supervision import Supervisor


class EncodeAhead:
    """``wake`` it under the lock when a batch is being computed and there may be rows to encode."""

    def __init__(self, queue: FairQueue, supervisor: Supervisor, lock: threading.RLock, max_batch_rows: int):
        self._queue, self._supervisor, self._max_batch_rows = queue, supervisor, max_batch_rows
        self.wake = threading.Condition(lock)

    def start(self) -> None:
        threading.Thread(target=self._run, name="encoding", daemon=True).start()

    def _run(self) -> None:
        while True:
            with self.wake:
                while (entry := self._next()) is None:
                    if self._supervisor.stopping.is_set():
                        return
                    self.wake.wait()
                start, epoch, predictor = len(entry.encoded), entry.epoch, self._supervisor.predictor
            assert predictor is not None
            stages: list[Stage] = []
            encode = timed(stages, "tokenise", predictor.encode)
            encoded = encode(entry.rows[start : start + self._max_batch_rows])
            with self.wake:
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
