"""ONNX Runtime on a CPU: the bundle's weights in a graph that is written when they are loaded (graph.py)."""

from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import onnxruntime

from models.bert.layouts.registry import layout_of
from models.bundle.precisions import FULL, Precision
from models.engines.cores import CpuEngine
from models.engines.engine import Chosen
from models.engines.memory import return_memory
from models.engines.onnx.graph import Precision as GraphPrecision
from models.engines.onnx.graph import bert_graphs, inputs, text_inputs
from models.engines.onnx.proto import Graph

PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
MIN_TOKENS = 64
"""Below which texts have all cores, one after the other, and not a core each: reading the weights takes most of their
time."""
SPIN_MICROSECONDS = 20
"""That threads wait for the next operator before they sleep: as long as the gaps between operators. Spinning without a
bound, ONNX Runtime's default, burns half as much again of a processor that others want (docs/decisions/engines.md)."""
ERRORS = 3
"""ONNX Runtime's severity from which on it writes to standard error, which is the log's."""


class OnnxEngine(CpuEngine):
    """Two sessions over the same tensors: one thread for batches, and all cores for a text."""

    def __init__(
        self, config: dict[str, Any], weights: dict[str, np.ndarray], chosen: Chosen, precision: Precision = FULL,
        threads: int | None = None,
    ):  # fmt: skip
        classes = len(weights["classifier.bias"])
        super().__init__(chosen, onnxruntime.__version__, precision, threads, classes, MIN_TOKENS)
        network = layout_of(config).network(config)
        self._words, several, one = bert_graphs(network, weights, cast(GraphPrecision, precision))
        loading = self._cores.submit(session, one, self.backend.parallel)
        self._session = session(several, 1)
        self._one = loading.result()
        del several, one, loading
        # The sessions have copies, most of them arranged for their products.
        return_memory()

    def _together(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        return np.array([self._one.run(None, text_inputs(self._words, ids))[0][0] for ids in token_ids])

    def _batch(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        logits: np.ndarray = self._session.run(None, inputs(self._words, token_ids))[0]
        return logits[: len(token_ids)]


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
