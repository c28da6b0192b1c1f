"""What computes logits: the protocol of all engines, and what each says of itself."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from msgspec import Struct

from models.bundle.precisions import Precision

EngineName = Literal["mlx", "native", "onnx"]


NAMES: dict[EngineName, str] = {"mlx": "MLX", "native": "native kernels", "onnx": "ONNX Runtime"}


class EngineError(RuntimeError):
    """The engine that was asked for is not to be had here, or not in that precision; the message says why."""


class Backend(Struct, frozen=True, kw_only=True):
    """What computes the logits, and ``reason``, why it does.

    ``parallel`` batches at once are computed faster than one after the other.
    Of MLX on a CPU: ``blas``, and its ``gflops`` as measured by one matmul. ``warning`` says what is slow,
    ``precision`` is that of the weights, and ``offered`` are all that it has.
    """

    engine: EngineName
    version: str
    device: str
    threads: int
    parallel: int = 1
    reason: str = "as asked for"
    blas: str = "none"
    gflops: float = 0.0
    warning: str | None = None
    precision: Precision = "float32"
    offered: tuple[Precision, ...] = ("float32",)

    def describe(self) -> str:
        """In one line, as the start-up says it."""
        parts = [f"{NAMES[self.engine]} {self.version} ({self.reason}) on {self.device}"]
        if self.engine == "mlx" and self.device == "cpu":
            parts.append(f"BLAS {self.blas} at {self.gflops:.0f} GFLOP/s")
        return ", ".join([*parts, f"{self.threads} threads", f"{self.precision} weights"])


class Engine(Protocol):
    """A loaded classifier; calls may come from any thread, and from several at once."""

    backend: Backend

    def logits(self, token_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Token ids of each text, unpadded → logits (B, K) float64."""
        ...

    def warm_up(self, lengths: Sequence[int]) -> None:
        """Compute texts of these numbers of tokens, one and many, so that the first batch is as fast as the next."""
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
            verb = "is" if len(self.precisions) == 1 else "are"
            there = f"there {verb} {', '.join(self.precisions)}; the others are no faster there"
            raise EngineError(f"{precision}: with {NAMES[self.engine]} on {self.device} {there}")


def usable_cores() -> int:
    """The cores this process may use: its affinity, cut by the control group's CPU quota; at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))
