"""BERTs with random weights, and their logits by NumPy in float64: what every engine must give."""

from collections.abc import Sequence
from math import erf
from typing import Any

import numpy as np

from models.bert.layouts.registry import layout_of
from models.bundle.weights import expected_tensors
from models.engines.choice import EngineChoice
from models.engines.native import build

Weights = dict[str, np.ndarray]
ENGINES: tuple[EngineChoice, ...] = ("mlx", "onnx", *(() if build.unavailable() else ("native",)))  # type: ignore[assignment]
"""Those of this machine."""
ON_A_CPU: EngineChoice = "onnx" if build.unavailable() else "native"
"""What computes networks of usual widths without a GPU."""


def make_config(hidden: int, layers: int, heads: int, classes: int, **more: Any) -> dict[str, Any]:
    return {
        "vocab_size": 97, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": 2 * hidden + 1, "max_position_embeddings": 40, "type_vocab_size": 2,
        "layer_norm_eps": 1e-12, "num_labels": classes,
        "id2label": {str(number): f"class {number}" for number in range(classes)}, **more,
    }  # fmt: skip


def make_distilbert_config(hidden: int, layers: int, heads: int, classes: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "distilbert", "vocab_size": 97, "dim": hidden, "n_layers": layers, "n_heads": heads,
        "hidden_dim": 2 * hidden + 1, "max_position_embeddings": 40, "activation": "gelu", "num_labels": classes,
        "id2label": {str(number): f"class {number}" for number in range(classes)}, **more,
    }  # fmt: skip


def make_weights(config: dict[str, Any], seed: int) -> Weights:
    """Tensors whose products neither vanish nor grow; layer norms near to one, as trained ones are."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in expected_tensors(config).items():
        value = rng.normal(size=shape) * (shape[-1] ** -0.5 if len(shape) == 2 else 0.3)
        weights[name] = (value + name.endswith(("LayerNorm.weight", "layer_norm.weight"))).astype(np.float32)
    return weights


def draw_tokens(config: dict[str, Any], lengths: Sequence[int], seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, config["vocab_size"], length).tolist() for length in lengths]


def reference_logits(config: dict[str, Any], weights: Weights, tokens: Sequence[int], int8: bool = False) -> np.ndarray:
    """Logits (K,) float64 of one text (Devlin et al., 2019), one head after the other, without a shortcut.

    In int8 words have 8 bits, the encoder's weights 7 with a scale for each output, and what they multiply 8 with a
    scale for each token.
    """
    layout = layout_of(config)
    network = layout.network(config)

    class InOurNames:
        def __getitem__(self, name: str) -> np.ndarray:
            return weights[layout.tensor(name)].astype(np.float64)

    w = InOurNames()

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        weight = w[f"{name}.weight"]
        if int8 and ".layer." in name:
            x, weight = _rounded(x, 127), _rounded(weight, 63)
        return np.asarray(x @ weight.T + w[f"{name}.bias"])

    def norm(name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + network.layer_norm_eps)
        return np.asarray(scaled * w[f"{name}.weight"] + w[f"{name}.bias"])

    place = "bert.embeddings"
    words = w[f"{place}.word_embeddings.weight"][list(tokens)]
    x = (_rounded(words, 127) if int8 else words) + w[f"{place}.position_embeddings.weight"][: len(tokens)]
    if network.type_vocab_size:
        x = x + w[f"{place}.token_type_embeddings.weight"][0]
    x = norm(f"{place}.LayerNorm", x)
    width = network.hidden_size // network.num_attention_heads
    for number in range(network.num_hidden_layers):
        layer = f"bert.encoder.layer.{number}"
        q, k, v = (linear(f"{layer}.attention.self.{part}", x) for part in ("query", "key", "value"))
        heads = []
        for first in range(0, network.hidden_size, width):
            of = slice(first, first + width)
            scores = q[:, of] @ k[:, of].T / np.sqrt(width)
            e = np.exp(scores - scores.max(-1, keepdims=True))
            heads.append(e / e.sum(-1, keepdims=True) @ v[:, of])
        x = norm(f"{layer}.attention.output.LayerNorm", x + linear(f"{layer}.attention.output.dense", np.hstack(heads)))
        y = linear(f"{layer}.intermediate.dense", x)
        y = y * (1 + np.vectorize(erf)(y / np.sqrt(2))) / 2
        x = norm(f"{layer}.output.LayerNorm", x + linear(f"{layer}.output.dense", y))
    pooled = linear("bert.pooler.dense", x[0])
    return linear("classifier", np.tanh(pooled) if network.pooler_activation == "tanh" else np.maximum(pooled, 0))


def _rounded(rows: np.ndarray, largest: int) -> np.ndarray:
    steps = np.abs(rows).max(axis=-1, keepdims=True) / largest
    return np.asarray(np.round(rows / steps) * steps)
