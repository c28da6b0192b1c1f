"""Stream parallelism: a batch computed on all cores of a CPU.

MLX computes a graph on one thread per stream, and only its matrix products use more. So the rows of a batch are split
over as many streams as there are cores, each with its share of BLAS threads. A GPU gets the whole batch.
"""

import threading
from collections.abc import Callable
from itertools import pairwise

import mlx.core as mx
import numpy as np

from models.engines.backend import set_blas_threads
from models.engines.engine import Backend

STREAM_ROWS = 32
"""Rows of one stream: more gain little, take memory, and hold the next request longer."""
MIN_STREAM_ROWS = 6
"""Below this a stream's products are too small, and the cores do better on one product together."""
GPU_ROWS = 64
STREAMS = threading.local()


class StreamParallel:
    """The streams of this thread's batches: make it and call it on one and the same thread."""

    def __init__(self, backend: Backend):
        self._backend = backend
        cores = max(1, backend.threads)
        self._streams = _streams(cores) if backend.device == "cpu" else []
        self.rows = STREAM_ROWS * cores if self._streams else GPU_ROWS
        """Rows to compute at once."""

    def __call__(
        self, model: Callable[[mx.array, mx.array | None], mx.array], ids: np.ndarray, mask: np.ndarray
    ) -> np.ndarray:  # fmt: skip
        """ids, mask (B, L) → the model's logits (B, 2) float64. Rows that are sorted by length cost the least."""
        if not self._streams:
            return np.array(model(*_trimmed(ids, mask)), np.float64)
        parts = max(1, min(len(self._streams), len(ids) // MIN_STREAM_ROWS))
        set_blas_threads(self._backend, len(self._streams) // parts)
        bounds = np.linspace(0, len(ids), parts + 1).astype(int).tolist()
        logits = []
        for stream, (first, stop) in zip(self._streams, pairwise(bounds), strict=False):
            with mx.stream(stream):
                logits.append(model(*_trimmed(ids[first:stop], mask[first:stop])))
        # One evaluation of all: MLX holds a second one back until the first is nearly done.
        mx.eval(logits)
        return np.concatenate([np.array(part, np.float64) for part in logits])


def _streams(count: int) -> list[mx.Stream]:
    """The calling thread's streams: made once, since MLX ends neither a stream nor its thread, nor lets go of what the
    BLAS library holds for that."""
    streams: list[mx.Stream] = STREAMS.__dict__.setdefault("streams", [])
    streams += [mx.new_stream(mx.cpu) for _ in range(count - len(streams))]
    return streams[:count]


def _trimmed(ids: np.ndarray, mask: np.ndarray) -> tuple[mx.array, mx.array | None]:
    """The same rows without the columns that are padding in all, and no mask where none is left."""
    longest = max(1, int(mask.sum(axis=1).max()))
    ids, mask = ids[:, :longest], mask[:, :longest]
    return mx.array(ids), None if mask.all() else mx.array(mask)
