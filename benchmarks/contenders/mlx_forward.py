"""Evenkeel's own forward pass on either engine, MLX on its wheel as it comes, and the matrix products of it alone."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from benchmarks.contenders.forward import Forward
from models.bundle.precisions import FULL, Precision
from models.bundle.read import open_bundle, read_bundle
from models.engines import mlx
from models.engines.choice import EngineChoice, choose_engine, load_engine
from models.engines.engine import Backend, usable_cores
from models.engines.logit_cache import LogitCache
from models.prediction import positive_logits
from models.predictor import Predictor


def evenkeel(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, FULL)


def on_mlx(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, FULL, "mlx")


def float16(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, "float16")


def bfloat16(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, "bfloat16")


def int8(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, "int8")


def _rounded(bundle: Path, precision: Precision, engine: EngineChoice = "auto") -> tuple[str, Forward]:
    """The bundle in a precision, measured or not."""
    opened, chosen = open_bundle(bundle), choose_engine(engine)
    chosen.check(precision)
    loaded = load_engine(chosen, opened.bundle.config, opened.weights, precision)
    predictor = Predictor(opened.bundle, loaded, opened.tokenizer, LogitCache(0))
    predictor.warm_up()
    return f"models.predictor.Predictor without cache, {predictor.backend.describe()}", _positive(predictor)


def wheel(bundle: Path, _: int | None) -> tuple[str, Forward]:
    """The same code without the tuned BLAS and the kept memory of models/engines/backend.py."""
    untuned = Backend(engine="mlx", version="", device="cpu", blas="wheel", threads=usable_cores())
    mlx.prepare = lambda threads=None: untuned
    return "the same code on the BLAS in MLX's wheel", _rounded(bundle, FULL, "mlx")[1]


def products(bundle: Path, _: int | None) -> tuple[str, Forward]:
    """The same path with a model that is nothing but its matrix products."""
    opened = open_bundle(bundle)
    engine: Any = load_engine(choose_engine("mlx"), opened.bundle.config, opened.weights)
    engine._model._model = Products(read_bundle(bundle).config)
    predictor = Predictor(opened.bundle, engine, opened.tokenizer, LogitCache(0))
    return (
        "Evenkeel's tokenising, sorting and threads around the model's matrix products alone",
        _positive(predictor),
    )


def _positive(predictor: Predictor) -> Forward:
    return lambda texts: positive_logits(predictor.logits(texts))


class Products:
    """ids, mask (B, L) → (B, 2), by products of the shapes of a BERT classifier that reads the first token.

    Operands that the encoder would compute otherwise (by softmax, norm, gelu) are constants; tokens lie in columns, the
    faster way round for OpenBLAS.
    """

    def __init__(self, config: dict[str, Any]):
        D, F = config["hidden_size"], config["intermediate_size"]
        self._heads = config["num_attention_heads"]
        self._layers = [
            {"qkv": _weight(3 * D, D), "out": _weight(D, D), "up": _weight(F, D), "down": _weight(D, F)}
            for _ in range(config["num_hidden_layers"])
        ]
        self._head = [_weight(D, D), _weight(2, D)]
        self._size = D
        self._constants: dict[tuple[int, ...], mx.array] = {}

    def __call__(self, ids: mx.array, mask: mx.array | None) -> mx.array:
        B, L = ids.shape
        x = self._constant(self._size, B * L)
        for layer in self._layers[:-1]:
            x = self._feed(layer, mx.depends(x, [layer["qkv"] @ x, self._attention(B, L, L)]))
        last = self._layers[-1]
        first = self._constant(self._size, B)
        projected = [last["qkv"][: self._size] @ first, last["qkv"][self._size :] @ x]
        x = self._feed(last, mx.depends(first, [*projected, self._attention(B, L, 1)]))
        for weight in self._head:
            x = weight @ x
        return x.T

    def _feed(self, layer: dict[str, mx.array], x: mx.array) -> mx.array:
        y: mx.array = layer["down"] @ (layer["up"] @ (layer["out"] @ x))
        return y

    def _attention(self, texts: int, keys: int, queries: int) -> mx.array:
        width = self._size // self._heads
        k = self._constant(texts, self._heads, width, keys)
        scores = k.swapaxes(-1, -2) @ self._constant(texts, self._heads, width, queries)
        y: mx.array = k @ scores
        return y

    def _constant(self, *shape: int) -> mx.array:
        if shape not in self._constants:
            self._constants[shape] = mx.array(np.full(shape, 0.1, np.float32))
            mx.eval(self._constants[shape])
        return self._constants[shape]


def _weight(rows: int, columns: int) -> mx.array:
    weight = mx.array(np.random.default_rng(0).normal(0, columns**-0.5, (rows, columns)).astype(np.float32))
    mx.eval(weight)
    return weight
