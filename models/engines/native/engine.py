"""Kernels of our own on processors with AVX-512 and VNNI (bert.c), loaded by ctypes."""

import ctypes
import functools
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from models.bert.config import BertConfig
from models.bert.layouts.registry import layout_of
from models.bundle.precisions import FULL, Precision
from models.engines.cores import MAX_PARALLEL, CpuEngine
from models.engines.engine import Backend, Chosen, usable_cores
from models.engines.memory import return_memory
from models.engines.native.build import library
from models.engines.native.layout import LANES, Call, Tensors, aligned

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
QUERIES = 8
"""Queries that attend together: bert.c has the same."""
MIN_TOKENS = 256
"""Below which a team is as fast as a batch for each core, and needs no other thread of Python."""
FLOAT_BYTES = 4


@functools.cache
def kernels() -> ctypes.CDLL:
    """The compiled library. Raises OSError where it is not there, or not for this system's C library."""
    loaded = ctypes.CDLL(str(library()))
    loaded.make_team.argtypes, loaded.make_team.restype = [ctypes.c_long], ctypes.c_void_p
    loaded.compute.argtypes, loaded.compute.restype = [ctypes.POINTER(Call)], None
    return loaded


class Team:
    """Threads that compute one call together; they outlive the engines that ask them."""

    def __init__(self, threads: int):
        self.lock = threading.Lock()
        self.threads, self.address = threads, kernels().make_team(threads)
        if not self.address:
            raise MemoryError


team = functools.cache(Team)


class Workspace:
    """Memory of one thread that calls, for so many tokens."""

    def __init__(self, model: Any, network: BertConfig, classes: int, tokens: int, threads: int):
        width, wide = network.hidden_size, max(3 * network.hidden_size, network.intermediate_size)
        longest = -(-network.max_position_embeddings // LANES) * LANES
        own_size = longest * (width // network.num_attention_heads + QUERIES)
        self.tokens = tokens
        sizes = (tokens * width, tokens * width, tokens * wide, threads * own_size, tokens, tokens * classes)
        parts = [-(-size // LANES) * LANES for size in sizes]
        memory = aligned((sum(parts) * FLOAT_BYTES) + tokens * wide)
        first, *addresses = (
            int(memory.ctypes.data) + FLOAT_BYTES * at for at in itertools.accumulate(parts, initial=0)
        )
        floats = memory[: sum(parts) * FLOAT_BYTES].view(np.float32)
        self.x = floats[: tokens * width].reshape(tokens, width)
        self.logits = floats[sum(parts[:-1]) :][: tokens * classes].reshape(tokens, classes)
        self.starts = np.zeros(tokens + 1, np.int32)
        self.call = Call(model, None, 0, own_size, self.starts.ctypes.data, first, *addresses)


class NativeEngine(CpuEngine):
    """A text's logits are its own to the last bit: by itself on all cores or in any batch."""

    def __init__(
        self, config: dict[str, Any], weights: dict[str, np.ndarray], chosen: Chosen, precision: Precision = FULL,
        threads: int | None = None,
    ):  # fmt: skip
        threads = threads or usable_cores()
        backend = Backend(
            engine="native", version=library().stem.removeprefix("bert-"), device="cpu", threads=threads,
            parallel=min(threads, MAX_PARALLEL), reason=chosen.reason, warning=chosen.warning, precision=precision,
            offered=chosen.precisions,
        )  # fmt: skip
        super().__init__(backend, len(weights["classifier.bias"]), MIN_TOKENS)
        self._kernels, self._team = kernels(), team(backend.parallel)
        self._network = layout_of(config).network(config)
        self._tensors = Tensors(self._network, weights, precision)
        self._model, self._words = ctypes.pointer(self._tensors.model), self._tensors.words
        self._workspaces = threading.local()
        return_memory()

    def _together(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        with self._team.lock:
            return self._compute(token_ids, self._team.address)

    def _batch(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        return self._compute(token_ids, None)

    def _compute(self, token_ids: Sequence[Sequence[int]], team: int | None) -> np.ndarray:
        texts, longest = len(token_ids), max(map(len, token_ids))
        if longest > self._network.max_position_embeddings:
            raise ValueError(
                f"a text has {longest} tokens; at most {self._network.max_position_embeddings} have places"
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
            classes = self._classes
            found = Workspace(self._model, self._network, classes, tokens, self._team.threads)
            self._workspaces.own = found
        return found
