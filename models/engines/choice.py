"""Which engine a machine gets: MLX on Metal and CUDA; on a plain CPU our own kernels where they are compiled for the
processor, else ONNX Runtime.

All read the same weights and give the same float32 logits to 1e-4 (docs/decisions/engines.md). Nothing of any is
imported before it is chosen.
"""

import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from models.bert.layouts.registry import layout_of
from models.bundle.precisions import FULL, Precision
from models.engines.engine import Chosen, Engine, EngineError
from models.engines.native import build

EngineChoice = Literal["auto", "mlx", "native", "onnx"]
ENGINES: tuple[EngineChoice, ...] = get_args(EngineChoice)
NVIDIA_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""Of the driver on Linux, and under Windows."""


def choose_engine(asked: EngineChoice = "auto", config: dict[str, Any] | None = None) -> Chosen:
    """The engine that is asked for, or the one for this machine's device and, where it is given, for the network of a
    ``config.json``. Raises EngineError."""
    if asked == "onnx":
        return _onnx("as asked for")
    if asked == "mlx":
        return _mlx("as asked for")
    if asked == "native":
        return _native("as asked for", config)
    if _may_have_gpu() and importlib.util.find_spec("mlx") is not None:
        mlx = _mlx("for its GPU")
        if mlx.device != "cpu":
            return mlx
    try:
        return _native("no GPU for MLX", config)
    except EngineError as error:
        why = f"no GPU for MLX, and {error}"
    try:
        return _onnx(why)
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
    if chosen.engine == "native":
        from models.engines.native.engine import NativeEngine

        return NativeEngine(config, weights, chosen, precision, threads)
    from models.engines.onnx.engine import OnnxEngine

    return OnnxEngine(config, weights, chosen, precision, threads)


def _may_have_gpu() -> bool:
    """Whether it is worth to ask MLX, which takes a while to import."""
    return sys.platform == "darwin" or any(Path(device).exists() for device in NVIDIA_DEVICES)


def _native(reason: str, config: dict[str, Any] | None) -> Chosen:
    fault = build.unavailable()
    if fault is None:
        from models.engines.native.engine import PRECISIONS, kernels
        from models.engines.native.layout import unsupported

        try:
            shape = kernels().shape
            fault = None if config is None else unsupported(layout_of(config).network(config), shape)
        except OSError as error:
            fault = f"they cannot be loaded ({error})"
    if fault is not None:
        raise EngineError(f"no native kernels: {fault}")
    return Chosen(engine="native", device="cpu", precisions=PRECISIONS, reason=reason)


def _mlx(reason: str, warning: str | None = None) -> Chosen:
    try:
        from models.engines.mlx import offered
    except ImportError as error:
        raise EngineError(f"MLX cannot be imported ({error})") from error
    device, precisions = offered()
    return Chosen(engine="mlx", device=device, precisions=precisions, reason=reason, warning=warning)


def _onnx(reason: str) -> Chosen:
    try:
        from models.engines.onnx.engine import PRECISIONS
    except ImportError as error:
        raise EngineError(f"ONNX Runtime cannot be imported ({error})") from error
    return Chosen(engine="onnx", device="cpu", precisions=PRECISIONS, reason=reason)
