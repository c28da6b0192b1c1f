"""Kernels of our own for a CPU (bert.c), loaded by ctypes."""

import ctypes
import functools
import itertools
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from models.bert.config import BertConfig
from models.bert.layouts.registry import layout_of
from models.bundle.precisions import FULL, Precision
from models.engines.cores import TOKENS_PER_CORE, CpuEngine
from models.engines.engine import Chosen
from models.engines.memory import return_memory
from models.engines.native import build
from models.engines.native.build import library
from models.engines.native.layout import ALIGNMENT, Call, Shape, Tensors, aligned_zeros

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
MIN_TOKENS = 256
"""Below which a team is as fast as a batch for each core, and needs no other thread of Python."""
FLOAT_BYTES = 4


class Kernels:
    """A compiled library, and what it is made for. Raises OSError where it is not there, or not for this system's C
    library."""

    def __init__(self, path: Path):
        loaded = ctypes.CDLL(str(path))
        loaded.make_team.argtypes, loaded.make_team.restype = [ctypes.c_long], ctypes.c_void_p
        loaded.compute.argtypes, loaded.compute.restype = [ctypes.POINTER(Call)], None
        self.version = path.stem.removeprefix("bert-")
        self.shape = Shape(*(ctypes.c_long * 3).in_dll(loaded, "shape"))
        self.compute = loaded.compute
        self._make_team, self._teams, self._lock = loaded.make_team, dict[tuple[int, int], Team](), threading.Lock()

    def team(self, threads: int) -> "Team":
        """Of so many threads, with the priority of the one that calls; engines share it."""
        niceness = os.getpriority(os.PRIO_PROCESS, 0)
        with self._lock:
            if (threads, niceness) not in self._teams:
                self._teams[threads, niceness] = Team(threads, self._make_team(threads))
            return self._teams[threads, niceness]


class Team:
    """Threads that compute one call together, one call at a time: whoever asks them holds ``lock``."""

    def __init__(self, threads: int, address: int | None):
        if not address:
            raise MemoryError
        self.threads, self.address, self.lock = threads, address, threading.Lock()


@functools.cache
def kernels(variant: str | None = None) -> Kernels:
    """Those of a kind of processor, by default of this one. Raises OSError."""
    kind = variant or build.variant()
    if kind is None:
        raise OSError("there are none for this processor")
    return Kernels(library(kind))


# A child has none of its parent's threads.
os.register_at_fork(after_in_child=kernels.cache_clear)


class Workspace:
    """Memory of one thread that calls, for so many tokens."""

    def __init__(self, model: Any, network: BertConfig, shape: Shape, classes: int, tokens: int, threads: int):
        width, wide = network.hidden_size, max(3 * network.hidden_size, network.intermediate_size)
        head = width // network.num_attention_heads
        scratch_size = _whole_lines(network.max_position_embeddings) * (head + shape.score_rows)
        self.tokens = tokens
        outputs = -(-classes // shape.panel) * shape.panel
        sizes = (tokens * width, tokens * width, tokens * wide, threads * scratch_size, tokens, tokens * outputs)
        parts = list(map(_whole_lines, sizes))
        memory = aligned_zeros((sum(parts) * FLOAT_BYTES) + tokens * wide)
        first, *addresses = (
            int(memory.ctypes.data) + FLOAT_BYTES * at for at in itertools.accumulate(parts, initial=0)
        )
        floats = memory[: sum(parts) * FLOAT_BYTES].view(np.float32)
        self.x = floats[: tokens * width].reshape(tokens, width)
        self.logits = floats[sum(parts[:-1]) :][: tokens * outputs].reshape(tokens, outputs)[:, :classes]
        self.starts = np.zeros(tokens + 1, np.int32)
        self.call = Call(model, None, 0, scratch_size, self.starts.ctypes.data, first, *addresses)


class NativeEngine(CpuEngine):
    """A text's logits are its own to the last bit: by itself on all cores or in any batch."""

    def __init__(
        self, config: dict[str, Any], weights: dict[str, np.ndarray], chosen: Chosen, precision: Precision = FULL,
        threads: int | None = None, variant: str | None = None,
    ):  # fmt: skip
        self._kernels = kernels(variant)
        classes = len(weights["classifier.bias"])
        super().__init__(chosen, self._kernels.version, precision, threads, classes, MIN_TOKENS)
        self._team = self._kernels.team(self.backend.parallel)
        self._network = layout_of(config).network(config)
        self._tensors = Tensors(self._network, weights, precision, self._kernels.shape.panel)
        self._model, self._words = ctypes.pointer(self._tensors.model), self._tensors.words
        self._workspaces = threading.local()
        return_memory()

    def _together(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        # Another engine may have the team: this thread is faster by itself than by waiting.
        if not self._team.lock.acquire(blocking=False):
            return self._compute(token_ids, None)
        try:
            return self._compute(token_ids, self._team.address)
        finally:
            self._team.lock.release()

    def _batch(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        return self._compute(token_ids, None)

    def _compute(self, token_ids: Sequence[Sequence[int]], team: int | None) -> np.ndarray:
        texts, longest = len(token_ids), max(map(len, token_ids))
        if longest > self._network.max_position_embeddings:
            raise ValueError(
                f"a text has {longest} tokens; at most {self._network.max_position_embeddings} have positions"
            )
        ids = np.array(list(itertools.chain.from_iterable(token_ids)), np.int64)
        workspace = self._workspace(len(ids))
        workspace.x[: len(ids)] = self._words(ids)
        workspace.starts[1 : texts + 1] = list(itertools.accumulate(map(len, token_ids)))
        workspace.call.texts, workspace.call.team = texts, team
        self._kernels.compute(workspace.call)
        return workspace.logits[:texts].copy()

    def _workspace(self, tokens: int) -> Workspace:
        """This thread's, of tokens enough."""
        found: Workspace | None = getattr(self._workspaces, "own", None)
        if found is None or found.tokens < tokens:
            shape, threads = self._kernels.shape, self._team.threads
            # Grown by whole batches: each new memory is slow when it is first written to.
            room = -(-tokens // TOKENS_PER_CORE) * TOKENS_PER_CORE
            found = Workspace(self._model, self._network, shape, self._classes, room, threads)
            self._workspaces.own = found
        return found


def _whole_lines(numbers: int) -> int:
    """So many numbers, up to a whole line of the cache."""
    each = ALIGNMENT // FLOAT_BYTES
    return -(-numbers // each) * each
