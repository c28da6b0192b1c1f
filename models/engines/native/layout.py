"""A checkpoint's tensors as the structs of bert.c, in its order of panels."""

import ctypes
from ctypes import POINTER, c_float, c_long, c_void_p
from dataclasses import dataclass

import numpy as np

from models.bert.config import BertConfig
from models.bert.layouts.layout import Layout
from models.bert.layouts.registry import LAYOUTS
from models.bundle.precisions import Precision
from models.engines.rounding import MAX_WEIGHT_CODE, ZERO_CODE, WordTable, rounded

ALIGNMENT = 64
"""Bytes: of a line of the cache, and the widest register."""
CHUNK = 1 << 24
"""Bytes of memory that are asked for at once."""
CODES_TOGETHER = 4
"""Inputs whose codes are multiplied and added by one instruction."""


class Product(ctypes.Structure):
    """Weights (O, I) with their bias, O up to a whole panel: ``scales`` and ``zero_sums`` are of int8 alone."""

    _fields_ = (
        ("inputs", c_long), ("outputs", c_long), ("weights", c_void_p), ("bias", c_void_p), ("scales", c_void_p),
        ("zero_sums", c_void_p),
    )  # fmt: skip


class Norm(ctypes.Structure):
    """A layer norm's scale and bias (D,)."""

    _fields_ = (("scale", c_void_p), ("bias", c_void_p))


class Layer(ctypes.Structure):
    """An encoder layer."""

    _fields_ = (
        ("qkv", Product), ("attention", Product), ("inner", Product), ("output", Product), ("attention_norm", Norm),
        ("output_norm", Norm),
    )  # fmt: skip


class Model(ctypes.Structure):
    """A classifier without its words."""

    _fields_ = (
        ("layers", c_long), ("width", c_long), ("heads", c_long), ("tanh", c_long), ("epsilon", c_float),
        ("positions", c_void_p), ("norm", Norm), ("layer", POINTER(Layer)), ("pooler", Product),
        ("classifier", Product),
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
    """Of a library: the numbers of a register, the outputs that are computed together, and what a head remembers of
    each token beside its key."""

    lanes: int
    panel: int
    remembered: int


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


def aligned(size: int) -> np.ndarray:
    """So many bytes, at an address that whole registers can be read from."""
    memory = np.empty(size + ALIGNMENT, np.uint8)
    first = -memory.ctypes.data % ALIGNMENT
    return memory[first : first + size]


class Tensors:
    """Takes a checkpoint's tensors, one after the other, and keeps what they become. ``weights`` is emptied."""

    def __init__(self, config: BertConfig, weights: dict[str, np.ndarray], precision: Precision, panel: int):
        self._weights, self._precision, self._panel = weights, precision, panel
        self._layout: Layout = LAYOUTS[config.model_type]
        self._chunks: list[np.ndarray] = []
        self._free = np.empty(0, np.uint8)
        self._layers = (Layer * config.num_hidden_layers)(*map(self._layer, range(config.num_hidden_layers)))
        embeddings = "bert.embeddings"
        positions = self._take(f"{embeddings}.position_embeddings.weight")
        if config.type_vocab_size:
            # A row is one text, so its tokens are of the first type. Beyond float32 the bundle is refused later on.
            with np.errstate(over="ignore"):
                positions = positions + self._take(f"{embeddings}.token_type_embeddings.weight")[0]
        self.model = Model(
            config.num_hidden_layers, config.hidden_size, config.num_attention_heads,
            config.pooler_activation == "tanh", config.layer_norm_eps, self._keep(positions),
            self._norm(f"{embeddings}.LayerNorm"), self._layers,
            self._product("float32", "bert.pooler.dense"), self._product("float32", "classifier"),
        )  # fmt: skip
        self.words = WordTable(self._take(f"{embeddings}.word_embeddings.weight"), precision)
        weights.clear()

    def _layer(self, number: int) -> Layer:
        name = f"bert.encoder.layer.{number}"
        qkv = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        return Layer(
            self._product(self._precision, *qkv), self._product(self._precision, f"{name}.attention.output.dense"),
            self._product(self._precision, f"{name}.intermediate.dense"),
            self._product(self._precision, f"{name}.output.dense"), self._norm(f"{name}.attention.output.LayerNorm"),
            self._norm(f"{name}.output.LayerNorm"),
        )  # fmt: skip

    def _product(self, precision: Precision, *names: str) -> Product:
        """Of the weights of all names, one below the other."""
        weights = np.concatenate([self._take(f"{name}.weight") for name in names])
        bias = self._keep(self._padded(np.concatenate([self._take(f"{name}.bias") for name in names])))
        inputs = weights.shape[1]
        outputs = -(-len(weights) // self._panel) * self._panel
        if precision == "float32":
            panels = self._padded(weights).reshape(-1, self._panel, inputs).transpose(0, 2, 1)
            return Product(inputs, outputs, self._keep(panels), bias)
        codes, scales = rounded(weights, MAX_WEIGHT_CODE)
        zero_sums = ZERO_CODE * codes.sum(axis=1, dtype=np.int32)
        by_fours = self._padded(codes).reshape(-1, self._panel, inputs // CODES_TOGETHER, CODES_TOGETHER)
        kept = self._keep(by_fours.transpose(0, 2, 1, 3))
        return Product(
            inputs, outputs, kept, bias, self._keep(self._padded(scales)), self._keep(self._padded(zero_sums))
        )

    def _norm(self, name: str) -> Norm:
        return Norm(self._keep(self._take(f"{name}.weight")), self._keep(self._take(f"{name}.bias")))

    def _take(self, name: str) -> np.ndarray:
        return self._weights.pop(self._layout.tensor(name))

    def _keep(self, values: np.ndarray) -> int:
        """The address of a copy, after what was kept before: for memory in large chunks NumPy asks for huge pages."""
        size = -(-values.nbytes // ALIGNMENT) * ALIGNMENT
        if len(self._free) < size:
            self._free = aligned(max(size, CHUNK))
            self._chunks.append(self._free)
        kept, self._free = self._free[: values.nbytes].view(values.dtype).reshape(values.shape), self._free[size:]
        kept[...] = values
        return int(kept.ctypes.data)

    def _padded(self, values: np.ndarray) -> np.ndarray:
        """(O, …) → the same with zeros up to a whole panel."""
        return np.pad(values, [(0, -len(values) % self._panel), *[(0, 0)] * (values.ndim - 1)])
