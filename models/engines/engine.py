"""What computes logits: one protocol, and which of its two implementations a machine gets.

MLX serves on Metal and CUDA, ONNX Runtime on a plain CPU, where it is about twice as fast (docs/decisions/engines.md).
Both read the same weights and give the same float32 logits to 1e-4. Nothing of either is imported before it is chosen.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, get_args

import numpy as np
from msgspec import Struct

from models.bundle.precisions import FULL, Precision

EngineName = Literal["mlx", "onnx"]
EngineChoice = Literal["auto", "mlx", "onnx"]
ENGINES: tuple[EngineChoice, ...] = get_args(EngineChoice)
NVIDIA_DEVICES = ("/dev/nvidiactl", "/dev/dxg")
"""Of the driver on Linux, and under Windows."""


NAMES: dict[EngineName, str] = {"mlx": "MLX", "onnx": "ONNX Runtime"}


class EngineError(RuntimeError):
    """The engine that was asked for is not to be had here, or not in that precision; the message says why."""


class Backend(Struct, frozen=True, kw_only=True):
    """What computes the logits, and ``reason``, why it does.

    Of MLX on a CPU: ``blas``, its ``gflops`` as measured by one matmul, and ``compiler``, which makes the fused
    kernels. ``warning`` says what is slow, and ``precision`` is that of the weights.
    """

    engine: EngineName
    version: str
    device: str
    threads: int
    reason: str = "as asked for"
    blas: str = "none"
    gflops: float = 0.0
    compiler: str = "none"
    warning: str | None = None
    precision: Precision = "float32"

    def describe(self) -> str:
        """In one line, as the start-up says it."""
        parts = [f"{NAMES[self.engine]} {self.version} ({self.reason}) on {self.device}"]
        if self.engine == "mlx" and self.device == "cpu":
            parts.append(f"BLAS {self.blas} at {self.gflops:.0f} GFLOP/s, kernels by {self.compiler}")
        return ", ".join([*parts, f"{self.threads} threads", f"{self.precision} weights"])


class Engine(Protocol):
    """A loaded classifier. Make it and call it on one and the same thread: MLX is bound to threads."""

    backend: Backend

    def logits(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of each text, unpadded → logits (B, K) float64."""
        ...

    def warm_up(self, tokens: int) -> None:
        """Compute texts of this many tokens, one and many, so that the first batch is as fast as the next."""
        ...


class Chosen(Struct, frozen=True, kw_only=True):
    """An engine, the device that it computes on, and the precisions that it offers there."""

    engine: EngineName
    device: str
    precisions: tuple[Precision, ...]
    reason: str
    warning: str | None = None

    def check(self, precision: Precision) -> None:
        """Raise EngineError where this precision is not offered."""
        if precision not in self.precisions:
            raise EngineError(
                f"{precision}: {NAMES[self.engine]} on {self.device} offers {', '.join(self.precisions)}; the others "
                "are no faster there"
            )

    def load(
        self, config: dict[str, Any], weights: dict[str, np.ndarray], precision: Precision = FULL,
        threads: int | None = None,
    ) -> Engine:  # fmt: skip
        """The classifier of a verified bundle; ``weights`` is emptied as they are taken over."""
        if self.engine == "mlx":
            from models.engines.mlx import MLXEngine

            return MLXEngine(config, weights, self, precision, threads)
        from models.engines.onnx import OnnxEngine

        return OnnxEngine(config, weights, self, precision, threads)


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
        return _mlx("no ONNX Runtime", f"{error}; MLX serves, at about half the speed")


def usable_cores() -> int:
    """The cores this process may use: its affinity, cut by the control group's CPU quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


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
