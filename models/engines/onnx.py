"""ONNX Runtime on a CPU: the bundle's weights in a graph that is written when they are loaded (onnx_bert.py)."""

import math
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import onnxruntime

from models.bert.layouts.registry import layout_of
from models.bundle.precisions import FULL, Precision
from models.engines.batches import even_batches
from models.engines.engine import Backend, Chosen, usable_cores
from models.engines.memory import return_memory
from models.engines.onnx_bert import Precision as GraphPrecision
from models.engines.onnx_bert import bert_graphs, inputs, text_inputs
from models.engines.onnx_proto import Graph

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
TOKENS_PER_CORE = 256
"""Of a batch that a core computes: 184 are 2 % slower than 736 for each."""
MIN_TOKENS = 64
"""Below which texts are computed one by one on all cores, not side by side on a core each: reading the weights takes
most of their time."""
MAX_PARALLEL = 8
"""Batches at once: what Python does for a row takes an eighth of what a core does, and for one row at a time."""
QUIET_SECONDS = 0.2
"""Since two calls were computed at once, after which a call may hope to stay alone."""
SPIN_MICROSECONDS = 20
"""That threads wait for the next operator before they sleep: as long as the gaps between operators. Spinning without a
bound, ONNX Runtime's default, burns half as much again of a processor that others want (docs/decisions/engines.md)."""
ERRORS = 3
"""ONNX Runtime's severity from which on it writes to standard error, which is the log's."""


class OnnxEngine:
    """Implements `models.engines.engine.Engine`; calls may come from any thread.

    Each core computes batches of its own: threads that share a batch wait for each other at every operator. Only a
    text, or some that are short, and that are alone, have all cores.
    """

    def __init__(
        self, config: dict[str, Any], weights: dict[str, np.ndarray], chosen: Chosen, precision: Precision = FULL,
        threads: int | None = None,
    ):  # fmt: skip
        threads = threads or usable_cores()
        self.backend = Backend(
            engine="onnx", version=onnxruntime.__version__, device="cpu", threads=threads,
            parallel=min(threads, MAX_PARALLEL), reason=chosen.reason, warning=chosen.warning, precision=precision,
            offered=chosen.precisions,
        )  # fmt: skip
        self._classes = len(weights["classifier.bias"])
        self._cores = ThreadPoolExecutor(threads, "onnx")
        self._lock, self._calls, self._overlapped = threading.Lock(), 0, -math.inf
        network = layout_of(config).network(config)
        self._words, several, one = bert_graphs(network, weights, cast(GraphPrecision, precision))
        loading = self._cores.submit(session, one, self.backend.parallel)
        self._session = session(several, 1)
        self._one = loading.result()
        del several, one, loading
        # The sessions have copies, most of them arranged for their products.
        return_memory()

    def logits(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of each text, unpadded → logits (B, K) float64."""
        tokens = sum(map(len, token_ids))
        with self._call(tokens) as alone:
            if alone and (len(token_ids) == 1 or tokens < MIN_TOKENS):
                return self._one_by_one(token_ids)
            return self._in_batches(token_ids, self.backend.threads if alone else 1)

    def _one_by_one(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        logits = np.empty((len(token_ids), self._classes))
        for row, ids in enumerate(token_ids):
            logits[row] = self._one.run(None, text_inputs(self._words, ids))[0][0]
        return logits

    def _in_batches(self, token_ids: Sequence[Sequence[int]], cores: int) -> np.ndarray:
        logits = np.empty((len(token_ids), self._classes))

        def compute(rows: list[int]) -> None:
            logits[rows] = self._run([token_ids[row] for row in rows])

        rounds = max(1, math.ceil(sum(map(len, token_ids)) / cores / TOKENS_PER_CORE))
        # The longest first, so that none is begun when the other cores are done.
        batches = list(even_batches(token_ids, cores * rounds))[::-1]
        if cores == 1 or len(batches) == 1:
            for rows in batches:
                compute(rows)
        else:
            list(self._cores.map(compute, batches))
        return logits

    def _run(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        logits: np.ndarray = self._session.run(None, inputs(self._words, token_ids))[0]
        return logits[: len(token_ids)]

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
        """Have the memory of a whole batch of the longest, and of one alone; nothing here is made for a shape."""
        longest = [0] * max(lengths)
        self.logits([longest])
        self._run([longest] * max(1, TOKENS_PER_CORE // len(longest)))


def session(graph: Graph, threads: int) -> onnxruntime.InferenceSession:
    """Load a graph, which takes a copy of its weights; nothing in it is left to optimise."""
    onnxruntime.set_default_logger_severity(ERRORS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = ERRORS
    # A plan of the memory for each shape of a batch, of which there are many.
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
    tensors = [onnxruntime.OrtValue.ortvalue_from_numpy(tensor) for tensor in graph.weights.values()]
    options.add_external_initializers(list(graph.weights), tensors)
    return onnxruntime.InferenceSession(graph.serialize(), options, providers=["CPUExecutionProvider"])
