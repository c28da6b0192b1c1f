"""python -m benchmarks.contenders.forward NAME BUNDLE [GROUP_ROWS]: texts → logits by one library, timed."""

import importlib
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import worker

Forward = Callable[[Sequence[str]], np.ndarray]
"""Texts → z, the positive class's logit less the other's, of each, (B,), tokenising included."""

LOADERS = {
    "evenkeel": "evenkeel_forward:evenkeel",
    "evenkeel_float32": "evenkeel_forward:evenkeel",
    "evenkeel_mlx": "evenkeel_forward:on_mlx",
    "evenkeel_onnx": "evenkeel_forward:on_onnx",
    "evenkeel_float16": "evenkeel_forward:float16",
    "evenkeel_bfloat16": "evenkeel_forward:bfloat16",
    "evenkeel_int8": "evenkeel_forward:int8",
    "mlx_wheel": "evenkeel_forward:wheel",
    "torch_eager": "torch_forward:eager",
    "torch_sdpa": "torch_forward:sdpa",
    "torch_bfloat16": "torch_forward:bfloat16",
    "torch_float16": "torch_forward:float16",
    "onnx": "onnx_forward:float32",
    "onnx_int8": "onnx_forward:int8",
}


def load(name: str, bundle: Path, group_rows: int | None) -> tuple[str, Forward]:
    """The settings and the function; ``group_rows`` None chooses the fastest, where that is a choice."""
    module, function = LOADERS[name].split(":")
    loader = getattr(importlib.import_module(f"benchmarks.contenders.{module}"), function)
    settings, forward = loader(bundle, group_rows)
    return settings, forward


def commands(forward: Forward) -> worker.Commands:
    def timed(batches: list[list[str]]) -> list[float]:
        """Seconds of each batch; the first is computed once before, to come back from having been stopped."""
        forward(batches[0])
        return [_seconds(forward, batch) for batch in batches]

    def logits(texts: list[str]) -> list[float]:
        return [float(z) for z in forward(texts)]

    return {"time": timed, "logits": logits}


def _seconds(forward: Forward, batch: list[str]) -> float:
    start = time.perf_counter()
    forward(batch)
    return time.perf_counter() - start


def main(name: str, bundle: str, group_rows: str = "") -> int:
    def ready() -> tuple[str, dict[str, Any]]:
        settings, forward = load(name, Path(bundle), int(group_rows) if group_rows else None)
        return settings, commands(forward)

    return worker.answer(ready)


if __name__ == "__main__":
    worker.end(main(*sys.argv[1:]))
