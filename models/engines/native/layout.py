"""A checkpoint's tensors as the structs of bert.c, in its order of panels."""

import ctypes
import math
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ctypes import POINTER, c_float, c_long, c_void_p
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike

from models.bert.config import BertConfig
from models.bert.layouts.layout import Layout
from models.bert.layouts.registry import LAYOUTS
from models.bundle.precisions import Precision
from models.engines.rounding import MAX_WEIGHT_CODE, ZERO_CODE, WordTable, rounded

ALIGNMENT = 64
"""Bytes: of a line of the cache, and the widest register."""
CHUNK = 1 << 24
"""Bytes of memory that are asked for at once."""
CODES_PER_DOT = 4
"""Inputs whose codes are multiplied and added by one instruction."""


class Linear(ctypes.Structure):
    """Weights (O, I) with their bias, O up to a whole panel: ``scales`` and ``zero_points`` are of int8 alone."""

    _fields_ = (
        ("inputs", c_long), ("outputs", c_long), ("weights", c_void_p), ("bias", c_void_p), ("scales", c_void_p),
        ("zero_points", c_void_p),
    )  # fmt: skip


class Norm(ctypes.Structure):
    """A layer norm's scale and bias (D,)."""

    _fields_ = (("scale", c_void_p), ("bias", c_void_p))


class Layer(ctypes.Structure):
    """An encoder layer."""

    _fields_ = (
        ("qkv", Linear), ("attention", Linear), ("inner", Linear), ("output", Linear), ("attention_norm", Norm),
        ("output_norm", Norm),
    )  # fmt: skip


class Model(ctypes.Structure):
    """A classifier without its words."""

    _fields_ = (
        ("layers", c_long), ("width", c_long), ("heads", c_long), ("tanh", c_long), ("epsilon", c_float),
        ("positions", c_void_p), ("norm", Norm), ("layer", POINTER(Layer)), ("pooler", Linear),
        ("classifier", Linear),
    )  # fmt: skip


class Call(ctypes.Structure):
    """Some texts, and the memory that they are computed in."""

    _fields_ = (
        ("model", POINTER(Model)), ("team", c_void_p), ("texts", c_long), ("scratch_size", c_long),
        ("starts", c_void_p), ("x", c_void_p), ("y", c_void_p), ("wide", c_void_p), ("scratch", c_void_p),
        ("scales", c_void_p), ("logits", c_void_p), ("codes", c_void_p),
    )  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """Of a library: the floats of a register, the outputs of a panel, and the rows of scores and mask that a head
    needs memory for."""

    lanes: int
    panel: int
    score_rows: int


def unsupported(config: BertConfig, shape: Shape) -> str | None:
    """Why kernels are not for a network of this shape; None where they are."""
    for name, value, multiple in (
        ("hidden_size", config.hidden_size, shape.panel),
        ("hidden_size / num_attention_heads", config.hidden_size // config.num_attention_heads, shape.lanes),
        ("intermediate_size", config.intermediate_size, shape.panel),
    ):
        if value % multiple:
            return f"{name} is {value}, and no multiple of {multiple}"
    return None


def aligned_zeros(size: int) -> np.ndarray:
    """So many bytes, at an address that whole registers can be read from."""
    memory = np.zeros(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size]


class Tensors:
    """Takes a checkpoint's tensors, one after the other, and keeps what they become. ``weights`` is emptied."""

    def __init__(self, config: BertConfig, weights: dict[str, np.ndarray], precision: Precision, panel: int):
        self._weights, self._precision, self._panel = weights, precision, panel
        self._layout: Layout = LAYOUTS[config.model_type]
        self._chunks: list[np.ndarray] = []
        self._free = np.empty(0, np.uint8)
        self._tasks: list[Future[None]] = []
        with ThreadPoolExecutor(2) as self._pool:
            self._layers = (Layer * config.num_hidden_layers)(*map(self._layer, range(config.num_hidden_layers)))
            embeddings = "bert.embeddings"
            self.model = Model(
                config.num_hidden_layers, config.hidden_size, config.num_attention_heads,
                config.pooler_activation == "tanh", config.layer_norm_eps, self._positions(embeddings, config),
                self._norm(f"{embeddings}.LayerNorm"), self._layers,
                self._linear("float32", "bert.pooler.dense"), self._linear("float32", "classifier"),
            )  # fmt: skip
            self.words = WordTable(self._take(f"{embeddings}.word_embeddings.weight"), precision)
            for task in self._tasks:
                task.result()
        weights.clear()

    def _layer(self, number: int) -> Layer:
        name = f"bert.encoder.layer.{number}"
        qkv = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        return Layer(
            self._linear(self._precision, *qkv), self._linear(self._precision, f"{name}.attention.output.dense"),
            self._linear(self._precision, f"{name}.intermediate.dense"),
            self._linear(self._precision, f"{name}.output.dense"), self._norm(f"{name}.attention.output.LayerNorm"),
            self._norm(f"{name}.output.LayerNorm"),
        )  # fmt: skip

    def _linear(self, precision: Precision, *names: str) -> Linear:
        """Of the weights of all names, one below the other."""
        weights, bias = (_joined([self._take(f"{name}.{part}") for name in names]) for part in ("weight", "bias"))
        inputs, outputs = weights.shape[1], -(-len(weights) // self._panel) * self._panel
        kept_bias = self._kept((outputs,), np.float32)
        kept_bias[: len(bias)] = bias
        if precision == "float32":
            panels = self._kept((outputs // self._panel, inputs, self._panel), np.float32)
            self._tasks.append(self._pool.submit(_arrange, weights, panels))
            return Linear(inputs, outputs, _address(panels), _address(kept_bias))
        codes = self._kept((outputs // self._panel, inputs // CODES_PER_DOT, self._panel, CODES_PER_DOT), np.int8)
        scales, zero_points = self._kept((outputs,), np.float32), self._kept((outputs,), np.int32)
        self._tasks.append(self._pool.submit(_quantize, weights, codes, scales, zero_points))
        return Linear(
            inputs, outputs, _address(codes), _address(kept_bias), _address(scales), _address(zero_points)
        )  # fmt: skip

    def _norm(self, name: str) -> Norm:
        return Norm(*(self._copied(self._take(f"{name}.{part}")) for part in ("weight", "bias")))

    def _positions(self, name: str, config: BertConfig) -> int:
        positions = self._take(f"{name}.position_embeddings.weight")
        if config.type_vocab_size:
            # A row is one text, so its tokens are of the first type. Beyond float32 the bundle is refused later on.
            with np.errstate(over="ignore"):
                positions = positions + self._take(f"{name}.token_type_embeddings.weight")[0]
        return self._copied(positions)

    def _take(self, name: str) -> np.ndarray:
        return self._weights.pop(self._layout.tensor(name))

    def _copied(self, values: np.ndarray) -> int:
        kept = self._kept(values.shape, values.dtype)
        kept[...] = values
        return _address(kept)

    def _kept(self, shape: tuple[int, ...], dtype: DTypeLike) -> np.ndarray:
        """Zeros, behind what was kept before: for memory in large chunks NumPy asks for huge pages."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        needed = -(-size // ALIGNMENT) * ALIGNMENT
        if len(self._free) < needed:
            self._free = aligned_zeros(max(needed, CHUNK))
            self._chunks.append(self._free)
        kept, self._free = self._free[:size].view(dtype).reshape(shape), self._free[needed:]
        return kept


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _arrange(weights: np.ndarray, panels: np.ndarray) -> None:
    """Weights (O, I) → panels (P, I, outputs of a panel)."""
    count, _, size = panels.shape
    for panel in range(count):
        part = weights[panel * size : (panel + 1) * size]
        panels[panel, :, : len(part)] = part.T


def _quantize(weights: np.ndarray, panels: np.ndarray, scales: np.ndarray, zero_points: np.ndarray) -> None:
    """Weights (O, I) → codes in panels (P, I / 4, outputs of a panel, 4), with a scale and 128 times the codes' sum for
    each output."""
    codes, scales[: len(weights)] = rounded(weights, MAX_WEIGHT_CODE)
    zero_points[: len(weights)] = ZERO_CODE * codes.sum(axis=1, dtype=np.int32)
    count, groups, size, each = panels.shape
    for panel in range(count):
        part = codes[panel * size : (panel + 1) * size]
        panels[panel, :, : len(part)] = part.reshape(len(part), groups, each).swapaxes(0, 1)


def _address(array: np.ndarray) -> int:
    return int(array.ctypes.data)
