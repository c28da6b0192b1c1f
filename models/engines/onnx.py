"""ONNX Runtime on a CPU: the bundle's weights in a graph that is written when they are loaded (onnx_bert.py)."""

import functools
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, cast

import numpy as np
import onnxruntime

from models.bert.layouts.registry import layout_of
from models.bundle.precisions import FULL, Precision
from models.engines.batches import padded, token_batches
from models.engines.engine import Backend, Chosen, usable_cores
from models.engines.memory import return_memory
from models.engines.onnx_bert import Precision as GraphPrecision
from models.engines.onnx_bert import bert_graph
from models.engines.onnx_proto import CONTRIB, Graph

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
TOKENS_PER_CORE = 256
"""Of a batch, with its padding: 184 are 2 % slower than 736 for each, and more would be padded further."""
MIN_TOKENS = 64
"""Below which a batch is not split over cores: reading the weights takes most of its time."""
SPIN_MICROSECONDS = 20
"""That threads wait for the next operator before they sleep: as long as the gaps between operators. Spinning without a
bound, ONNX Runtime's default, burns half as much again of a processor that others want (docs/decisions/engines.md)."""
ERRORS = 3
"""ONNX Runtime's severity from which on it writes to standard error, which is the log's."""


class OnnxEngine:
    """Implements `models.engines.engine.Engine`; calls may come from any thread.

    In float32 each batch is computed on all cores, as a row by itself is then fastest. In int8, whose operators are too
    short to be shared, each core computes a batch of its own.
    """

    def __init__(
        self, config: dict[str, Any], weights: dict[str, np.ndarray], chosen: Chosen, precision: Precision = FULL,
        threads: int | None = None,
    ):  # fmt: skip
        threads = threads or usable_cores()
        self.backend = Backend(
            engine="onnx", version=onnxruntime.__version__, device="cpu", threads=threads, reason=chosen.reason,
            warning=chosen.warning, precision=precision, offered=chosen.precisions,
        )  # fmt: skip
        self._classes = len(weights["classifier.bias"])
        self._parallel = threads if precision == "int8" else 1
        self._max_tokens = TOKENS_PER_CORE * threads // self._parallel
        self._threads = ThreadPoolExecutor(self._parallel, "onnx")
        graph = bert_graph(
            layout_of(config).network(config), weights, cast(GraphPrecision, precision),
            unsigned_weights=precision == "int8" and signed_products_overflow(),
        )  # fmt: skip
        self._session = session(graph, threads // self._parallel)
        del graph
        # The session has copies, most of them arranged for its products.
        return_memory()

    def logits(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of each text, unpadded → logits (B, K) float64."""
        logits = np.empty((len(token_ids), self._classes))
        share = max(MIN_TOKENS, math.ceil(sum(map(len, token_ids)) / self._parallel))
        batches = list(token_batches(token_ids, min(share, self._max_tokens)))

        def compute(rows: list[int]) -> None:
            ids, lengths = padded([token_ids[row] for row in rows])
            logits[rows] = self._session.run(None, {"ids": ids, "lengths": lengths})[0]

        if self._parallel == 1 or len(batches) == 1:
            for rows in batches:
                compute(rows)
        else:
            # The longest first, so that none is begun when the other cores are done.
            list(self._threads.map(compute, reversed(batches)))
        return logits

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Have the memory of a whole batch of the longest, and of one alone; nothing here is made for a shape."""
        longest = max(lengths)
        for rows in (1, max(1, self._max_tokens * self._parallel // longest)):
            self.logits([[0] * longest] * rows)


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


@functools.cache
def signed_products_overflow() -> bool:
    """Whether products of unsigned by signed bytes come out wrong: on x86-64 without VNNI pairs of them are added up in
    16 bits, which overflow silently (ONNX Runtime's documentation of quantisation, "saturation issue")."""
    graph = Graph()
    codes = graph.input("codes", "uint8", ("B", 64))
    weights = graph.weight("weights", np.full((64, 16), 127, np.int8))
    one, zero = graph.constant(np.ones((), np.float32)), graph.constant(np.zeros((), np.uint8))
    product = graph.add("MatMulIntegerToFloat", codes, weights, one, one, zero, domain=CONTRIB)
    graph.output(product, "float32", ("B", 16))
    found = session(graph, 1).run(None, {"codes": np.full((8, 64), 255, np.uint8)})[0]
    return not bool(np.all(found == 255 * 127 * 64))
