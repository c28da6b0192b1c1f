"""Which engine a machine gets: MLX on Metal and CUDA, ONNX Runtime on a plain CPU, where it is about twice as fast.

Both read the same weights and give the same float32 logits to 1e-4 (docs/decisions/engines.md). Nothing of either is
imported before it is chosen.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from models.bundle.precisions import FULL, Precision
from models.engines.engine import Chosen, Engine, EngineError

EngineChoice = Literal["auto", "mlx", "onnx"]
ENGINES: tuple[EngineChoice, ...] = get_args(EngineChoice)
NVIDIA_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""Of the driver on Linux, and under Windows."""


def choose_engine(asked: EngineChoice = "auto") -> Chosen:
    """The engine that is asked for, or the one for this machine's device. Raises EngineError."""
    if asked == "onnx":
        return _onnx("as asked for")
    if asked == "mlx":
        return _mlx("as asked for")
    if _may_have_gpu() and importlib.util.find_spec("mlx") is not None:
        mlx = _mlx("for its GPU")
        if mlx.device != "cpu":
            return mlx
    try:
        return _onnx("no GPU for MLX")
    except EngineError as error:
        return _mlx("no ONNX Runtime", f"{error}; MLX serves, several times slower")


def load_engine(
    chosen: Chosen, config: dict[str, Any], weights: dict[str, np.ndarray], precision: Precision = FULL,
    threads: int | None = None,
) -> Engine:  # fmt: skip
    """The classifier of a verified bundle; ``weights`` is emptied as they are taken over."""
    if chosen.engine == "mlx":
        from models.engines.mlx import MLXEngine

        return MLXEngine(config, weights, chosen, precision, threads)
    from models.engines.onnx import OnnxEngine

    return OnnxEngine(config, weights, chosen, precision, threads)


def _may_have_gpu() -> bool:
    """Whether it is worth to ask MLX, which takes a while to import."""
    return sys.platform == "darwin" or any(Path(device).exists() for device in NVIDIA_DEVICES)


def _mlx(reason: str, warning: str | None = None) -> Chosen:
    try:
        from models.engines.mlx import offered
    except ImportError as error:
        raise EngineError(f"MLX cannot be imported ({error})") from error
    device, precisions = offered()
    return Chosen(engine="mlx", device=device, precisions=precisions, reason=reason, warning=warning)


def _onnx(reason: str) -> Chosen:
    try:
        from models.engines.onnx import PRECISIONS
    except ImportError as error:
        raise EngineError(f"ONNX Runtime cannot be imported ({error})") from error
    return Chosen(engine="onnx", device="cpu", precisions=PRECISIONS, reason=reason)
