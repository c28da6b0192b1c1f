"""Texts onto the cores of a CPU: a batch for each, or all cores for a text that is alone."""

import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np

from models.bundle.precisions import Precision
from models.engines.batches import even_batches
from models.engines.engine import Backend, Chosen, usable_cores

TOKENS_PER_CORE = 256
"""Of a batch that a core computes: more make a token no faster."""
MAX_PARALLEL = 8
"""Batches at once: what Python does for a row takes an eighth of what a core does, and for one row at a time."""
QUIET_SECONDS = 0.2
"""Since two calls were computed at once, after which a call may hope to stay alone."""


class CpuEngine(ABC):
    """Implements `models.engines.engine.Engine`; calls may come from any thread.

    Each core computes batches of its own: threads that share a batch wait for each other at every operator. Only a
    text, or some of less than ``min_tokens`` together, and that are alone, have all cores (`MAX_PARALLEL` at most).
    """

    def __init__(
        self, chosen: Chosen, version: str, precision: Precision, threads: int | None, classes: int, min_tokens: int
    ):
        threads = threads or usable_cores()
        self.backend = backend = Backend(
            engine=chosen.engine, version=version, device="cpu", threads=threads, parallel=min(threads, MAX_PARALLEL),
            reason=chosen.reason, warning=chosen.warning, precision=precision, offered=chosen.precisions,
        )  # fmt: skip
        self._classes, self._min_tokens = classes, min_tokens
        self._cores = ThreadPoolExecutor(backend.threads, backend.engine)
        self._lock, self._calls, self._overlapped = threading.Lock(), 0, -math.inf

    @abstractmethod
    def _together(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of few texts → logits (B, K), on all cores; one call at a time."""

    @abstractmethod
    def _batch(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of some texts → logits (B, K), on the core of the thread that calls."""

    def logits(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of each text, unpadded → logits (B, K) float64."""
        if not token_ids:
            return np.empty((0, self._classes))
        tokens = sum(map(len, token_ids))
        with self._call(tokens) as alone:
            if alone and (len(token_ids) == 1 or tokens < self._min_tokens):
                return self._together(token_ids).astype(np.float64)
            return self._in_batches(token_ids, self.backend.threads if alone else 1)

    def _in_batches(self, token_ids: Sequence[Sequence[int]], cores: int) -> np.ndarray:
        logits = np.empty((len(token_ids), self._classes))

        def compute(rows: list[int]) -> None:
            logits[rows] = self._batch([token_ids[row] for row in rows])

        rounds = max(1, math.ceil(sum(map(len, token_ids)) / cores / TOKENS_PER_CORE))
        # The longest first, so that none is begun when the other cores are done.
        batches = list(even_batches(token_ids, cores * rounds))[::-1]
        if cores == 1 or len(batches) == 1:
            for rows in batches:
                compute(rows)
        else:
            list(self._cores.map(compute, batches))
        return logits

    @contextmanager
    def _call(self, tokens: int) -> Iterator[bool]:
        """Whether a call gets all cores: there is no other, and it is long or none is likely to come meanwhile."""
        with self._lock:
            self._calls += 1
            now = time.monotonic()
            quiet = now - self._overlapped > QUIET_SECONDS
            alone = self._calls == 1 and (quiet or tokens > TOKENS_PER_CORE)
            self._note_overlap(now)
        try:
            yield alone
        finally:
            with self._lock:
                self._note_overlap(time.monotonic())
                self._calls -= 1

    def _note_overlap(self, now: float) -> None:
        if self._calls > 1:
            self._overlapped = now

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Have the memory of a whole batch of the longest, and of one alone, on the thread that calls; nothing here is
        made for a shape."""
        longest = [0] * max(lengths)
        self.logits([longest])
        self._batch([longest] * max(1, TOKENS_PER_CORE // len(longest)))
