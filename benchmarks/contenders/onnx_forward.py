"""ONNX Runtime on the CPU: the bundle exported from torch, as it is, fused by its BERT optimizer, and in int8."""

import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.contenders.grouping import Grouped, Pairs
from benchmarks.harness.machine import KEPT, cores
from models.bundle.read import read_bundle

FUSIONS = ("plain", "fused")


def float32(bundle: Path, group_rows: int | None) -> tuple[str, Grouped]:
    """The faster of the graph as exported and the one fused by onnxruntime.transformers' BERT optimizer."""
    chosen, grouped = fastest(
        {fusion: Grouped(bundle, session(model_file(bundle, fusion)), group_rows) for fusion in FUSIONS}
    )
    graph = "fused by its BERT optimizer" if chosen == "fused" else "as exported"
    return f"graph {graph}, the faster of two, {_threads(grouped)}", grouped


def int8(bundle: Path, group_rows: int | None) -> tuple[str, Grouped]:
    """Dynamic quantisation: weights int8 per channel, activations uint8 per tensor."""
    grouped = Grouped(bundle, session(model_file(bundle, "int8")), group_rows)
    return f"quantize_dynamic, weights int8 per channel, {_threads(grouped)}", grouped


def _threads(grouped: Grouped) -> str:
    return f"all graph optimisations, {cores()} threads, rows sorted by length in groups of {grouped.rows}"


def session(path: Path) -> Pairs:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = cores()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    model = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def pairs(ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
        inputs = {"input_ids": ids.astype(np.int64), "attention_mask": mask.astype(np.int64)}
        result: np.ndarray = model.run(None, inputs)[0]
        return result

    return pairs


def fastest(candidates: dict[str, Grouped]) -> tuple[str, Grouped]:
    """By the best of five batches of 32 texts."""
    from benchmarks.harness.texts import draw

    texts = draw(np.random.default_rng(0), 32)
    seconds = dict.fromkeys(candidates, np.inf)
    for _ in range(5):
        for name, forward in candidates.items():
            start = time.perf_counter()
            forward(texts)
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    chosen = min(seconds, key=lambda name: seconds[name])
    return chosen, candidates[chosen]


def model_file(bundle: Path, kind: str) -> Path:
    """The exported model of a bundle; made the first time, kept by the bundle's version."""
    path = KEPT / "onnx" / f"{read_bundle(bundle).version}-{onnxruntime.__version__}-{kind}.onnx"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{os.getpid()}-{path.name}")
        MAKERS[kind](bundle, partial)
        partial.rename(path)
    return path


def _export(bundle: Path, path: Path) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # The BERT optimizer knows eager attention's pattern, not SDPA's.
            self.model = AutoModelForSequenceClassification.from_pretrained(bundle, attn_implementation="eager").eval()

        def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.model(input_ids=ids, attention_mask=mask).logits
            return logits

    ids = torch.ones((2, 16), dtype=torch.int64)
    axes = {0: "rows", 1: "tokens"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The newer exporter leaves the mask out when the example has no padding.
        torch.onnx.export(
            Logits(), (ids, ids), str(path), dynamo=False, opset_version=17,
            input_names=["input_ids", "attention_mask"], output_names=["logits"],
            dynamic_axes={"input_ids": axes, "attention_mask": axes, "logits": {0: "rows"}},
        )  # fmt: skip


def _fuse(bundle: Path, path: Path) -> None:
    from onnxruntime.transformers.optimizer import optimize_model

    config = read_bundle(bundle).config
    optimize_model(
        str(model_file(bundle, "plain")), model_type="bert", num_heads=config["num_attention_heads"],
        hidden_size=config["hidden_size"], opt_level=0,
    ).save_model_to_file(str(path))  # fmt: skip


def _quantise(bundle: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(str(model_file(bundle, "plain")), str(path), weight_type=QuantType.QInt8, per_channel=True)


MAKERS: dict[str, Callable[[Path, Path], None]] = {"plain": _export, "fused": _fuse, "int8": _quantise}
