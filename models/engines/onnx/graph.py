"""A BERT classifier as an ONNX graph, from the tensors of its checkpoint, in the names of its layout.

Hidden states are (T, D), those of all tokens of all texts one after the other: only attention sees texts, padded to the
longest. A text by itself has a graph of its own, without padding. The last layer computes the CLS position
alone, the only one that the pooler reads. Layer norm is the standard operator and not ONNX Runtime's fused
`SkipLayerNormalization`, which is a scalar loop on a CPU; query, key and value are three products, which saves taking
one apart again (docs/decisions/engines.md).

In int8 the encoder's products are of whole numbers: weights of −63 … 63 with a scale for each output, and activations
of 1 … 255 around 128 with a scale for each *token*, taken from that token alone. So a row's answer is its own whatever
its batch; ONNX Runtime's own dynamic quantisation takes one scale for all rows of a batch.

The words' embeddings are looked up before the graph (`WordTable`), so that all sessions share one copy of them.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from models.bert.config import BertConfig
from models.bert.layouts.layout import Layout
from models.bert.layouts.registry import LAYOUTS
from models.engines.onnx.proto import CONTRIB, ELEMENT_TYPES, Graph
from models.engines.rounding import MAX_CODE, MAX_WEIGHT_CODE, SMALLEST_SCALE, ZERO_CODE, WordTable, rounded

Precision = Literal["float32", "int8"]


def text_inputs(words: WordTable, token_ids: Sequence[int]) -> dict[str, np.ndarray]:
    """Token ids of one text → the inputs of its graph: ``words`` (T, D) float32 and ``positions`` (T,) int64. Its
    logits (2, K) have the text twice, as `inputs` says."""
    return {"words": words(np.array(token_ids, np.int64)), "positions": np.arange(len(token_ids))}


def inputs(words: WordTable, token_ids: Sequence[Sequence[int]]) -> dict[str, np.ndarray]:
    """Token ids of each text (B), at least one → the inputs of the graph of several:

    ``words`` (T, D) float32, ``positions`` (T,) int64 of each token in its text, ``lengths`` (B,) int32;
    ``rows`` (B, L) int64, which tokens are a text's, the last one again for what is padding; ``tokens`` (T,) int64,
    where each token is in the padded texts, and ``first`` (F,) int64, where each text begins; ``mask`` (B, 1, L)
    float32, 0 for a text's tokens and −∞ for padding.

    ``first`` has a single text twice, and so have the logits (F, K): a product of one row is rounded otherwise than the
    same row among others.
    """
    lengths = np.array([len(ids) for ids in token_ids], np.int64)
    longest = int(lengths.max())
    first = np.cumsum(lengths) - lengths
    positions = np.arange(longest)
    inside = positions < lengths[:, None]
    return {
        "words": words(np.concatenate([np.asarray(ids, np.int64) for ids in token_ids])),
        "positions": np.broadcast_to(positions, inside.shape)[inside],
        "lengths": lengths.astype(np.int32),
        "rows": first[:, None] + np.minimum(positions, lengths[:, None] - 1),
        "tokens": np.flatnonzero(inside),
        "first": first if len(first) > 1 else np.zeros(2, np.int64),
        "mask": np.where(inside, np.float32(0), np.float32(-np.inf))[:, None],
    }


def bert_graphs(
    config: BertConfig, weights: dict[str, np.ndarray], precision: Precision = "float32"
) -> tuple[WordTable, Graph, Graph]:
    """The words' embeddings, a graph of several texts from `inputs` and one of a text from `text_inputs`, each to
    logits (F, K) float32. They share their tensors. ``weights`` is emptied as they are taken over."""
    tensors = _Tensors(weights, LAYOUTS[config.model_type])
    several, one = (_BertWriter(config, tensors, precision, single).write() for single in (False, True))
    words = WordTable(tensors.take("bert.embeddings.word_embeddings.weight"), precision)
    weights.clear()
    return words, several, one


class _Tensors:
    """A checkpoint's tensors, and what was made of them, by name."""

    def __init__(self, weights: dict[str, np.ndarray], layout: Layout):
        self._weights, self._layout = weights, layout
        self._made: dict[str, np.ndarray] = {}
        self._rounded: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    def take(self, name: str) -> np.ndarray:
        return self._weights.pop(self._layout.tensor(name))

    def made(self, name: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """What ``make`` makes; of a name once."""
        if name not in self._made:
            self._made[name] = make()
        return self._made[name]

    def rounded(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A matrix (O, I) → its codes (I, O) int8 and a scale (O,) for each output; of a name once."""
        if name not in self._rounded:
            codes, scales = rounded(self.take(name), MAX_WEIGHT_CODE)
            self._rounded[name] = np.ascontiguousarray(codes.T), scales
        return self._rounded[name]


class _BertWriter:
    def __init__(self, config: BertConfig, tensors: _Tensors, precision: Precision, single: bool):
        self._config, self._tensors, self._single = config, tensors, single
        self._precision: Precision = precision
        self._graph = Graph()

    def write(self) -> Graph:
        graph, config = self._graph, self._config
        words = graph.input("words", "float32", ("T", config.hidden_size))
        graph.input("positions", "int64", ("T",))
        if self._single:
            self._first = self._numbers(0, 0)
            # Without lengths attention is faster, and rounded otherwise than among others.
            self._lengths = graph.add("Cast", graph.add("Shape", "positions"), to=ELEMENT_TYPES["int32"])
        else:
            graph.input("tokens", "int64", ("T",))
            self._lengths = graph.input("lengths", "int32", ("B",))
            graph.input("rows", "int64", ("B", "L"))
            self._first = graph.input("first", "int64", ("F",))
            graph.input("mask", "float32", ("B", 1, "L"))
        x = self._embeddings(words)
        for number in range(config.num_hidden_layers):
            x = self._layer(f"bert.encoder.layer.{number}", x, number == config.num_hidden_layers - 1)
        x = graph.add({"tanh": "Tanh", "relu": "Relu"}[config.pooler_activation], self._linear("bert.pooler.dense", x))
        graph.output(self._linear("classifier", x), "float32", ("F", "K"))
        return graph

    def _embeddings(self, words: str) -> str:
        """The words' embeddings (T, D) → those of tokens in their places."""
        graph, name = self._graph, "bert.embeddings"
        places = graph.add("Gather", self._weight(f"{name}.places", self._places), "positions")
        return self._norm(f"{name}.LayerNorm", graph.add("Add", words, places))

    def _places(self) -> np.ndarray:
        table = self._take("bert.embeddings.position_embeddings.weight")
        if not self._config.type_vocab_size:
            return table
        with np.errstate(over="ignore"):  # Then the logits are not finite, and the bundle is refused for that.
            # A row is one text, so its tokens are of the first type.
            return np.asarray(table + self._take("bert.embeddings.token_type_embeddings.weight")[0])

    def _layer(self, name: str, x: str, last: bool) -> str:
        """Hidden states (T, D) → the same, of the ``last`` layer those of each text's first token (F, D)."""
        first = self._graph.add("Gather", x, self._first) if last else None
        queries = x if first is None else first
        self._zeros = ""
        attention = f"{name}.attention.self"
        y = self._attention(attention, x) if first is None else self._attention_of(attention, x, first)
        x = self._output(f"{name}.attention.output", y, queries)
        (y,) = self._products(x, f"{name}.intermediate.dense")
        y = self._graph.add("BiasGelu", y, self._vector(f"{name}.intermediate.dense.bias"), domain=CONTRIB)
        return self._output(f"{name}.output", y, x)

    def _attention(self, name: str, x: str) -> str:
        graph, parts = self._graph, ("query", "key", "value")
        q, k, v = map(self._padded, self._products(x, *(f"{name}.{part}" for part in parts)))
        bias = self._weight(
            f"{name}.bias", lambda: np.concatenate([self._take(f"{name}.{part}.bias") for part in parts])
        )
        y = graph.add(
            "MultiHeadAttention", q, k, v, bias, self._lengths, domain=CONTRIB,
            num_heads=self._config.num_attention_heads,
        )  # fmt: skip
        y = graph.add("Reshape", y, self._numbers(-1, self._config.hidden_size))
        return y if self._single else graph.add("Gather", y, "tokens")

    def _attention_of(self, name: str, x: str, first: str) -> str:
        """The attention of single tokens ``first`` (F, D) to their texts, without their keys and values.

        q · (W x) = (Wᵀ q) · x for keys, and Σ p (W x) = W Σ p x for values: W then meets one token of each text and not
        all of them. What a key's bias adds to a query's scores is the same for all, so softmax does not see it.
        """
        graph, heads = self._graph, self._config.num_attention_heads
        width, size = self._config.hidden_size, self._config.hidden_size // heads

        def by_head(part: str) -> np.ndarray:
            return self._take(f"{name}.{part}.weight").reshape(heads, size, width)

        keys = self._weight(f"{name}.key.weight", lambda: by_head("key"))
        values = self._weight(
            f"{name}.value.weight", lambda: np.ascontiguousarray(by_head("value").transpose(0, 2, 1))
        )  # fmt: skip
        q = graph.add("Reshape", self._linear(f"{name}.query", first), self._numbers(-1, heads, size))
        q = graph.add("MatMul", self._swap(q), keys)
        rows = self._padded(x)
        scores = graph.add("FusedMatMul", self._swap(q), rows, domain=CONTRIB, transB=1, alpha=size**-0.5)
        p = graph.add("Softmax", scores if self._single else graph.add("Add", scores, "mask"))
        mean = self._swap(graph.add("MatMul", p, rows))
        y = self._swap(graph.add("MatMul", mean, values))
        return graph.add("Add", graph.add("Reshape", y, self._numbers(-1, width)), self._vector(f"{name}.value.bias"))

    def _padded(self, x: str) -> str:
        """(T, D) → (B, L, D)."""
        if self._single:
            return self._graph.add("Reshape", x, self._numbers(1, -1, self._config.hidden_size))
        return self._graph.add("Gather", x, "rows")

    def _swap(self, x: str) -> str:
        """(I, J, K) → (J, I, K)."""
        return self._graph.add("Transpose", x, perm=(1, 0, 2))

    def _output(self, name: str, y: str, residual: str) -> str:
        """Projection, residual and layer norm, after attention and after the feed-forward layer alike."""
        if self._precision == "float32":
            y = self._linear(f"{name}.dense", y)
        else:
            (y,) = self._products(y, f"{name}.dense")
            y = self._graph.add("Add", y, self._vector(f"{name}.dense.bias"))
        return self._norm(f"{name}.LayerNorm", self._graph.add("Add", y, residual))

    def _norm(self, name: str, x: str) -> str:
        scale, bias = self._vector(f"{name}.weight"), self._vector(f"{name}.bias")
        return self._graph.add("LayerNormalization", x, scale, bias, epsilon=float(self._config.layer_norm_eps))

    def _products(self, x: str, *names: str) -> list[str]:
        """x (T, I) times the weights of each name (O, I), without their biases."""
        if self._precision == "float32":
            return [self._graph.add("Gemm", x, self._vector(f"{name}.weight"), transB=1) for name in names]
        codes, scale = self._quantized(x)
        return [self._graph.add("Mul", self._whole_product(codes, f"{name}.weight"), scale) for name in names]

    def _quantized(self, x: str) -> tuple[str, str]:
        """x (T, I) → codes (T, I) and scales (T, 1), with x ≈ scale · (code − 128)."""
        graph = self._graph
        largest = graph.add("ReduceMax", graph.add("Abs", x), self._numbers(-1), keepdims=0)
        scale = graph.add("Mul", largest, self._number(1 / MAX_CODE))
        scale = graph.add("Max", scale, self._number(SMALLEST_SCALE))
        # As many for all products of a layer.
        zero = graph.constant(np.array([ZERO_CODE], np.uint8))
        self._zeros = self._zeros or graph.add("Expand", zero, graph.add("Shape", scale))
        codes = graph.add("QuantizeLinear", x, scale, self._zeros, axis=0)
        return codes, graph.add("Unsqueeze", scale, self._numbers(-1))

    def _whole_product(self, codes: str, name: str) -> str:
        """Codes (T, I) times rounded weights (O, I), in units of the tokens' scales."""
        graph = self._graph
        weights, scales = self._tensors.rounded(name)
        return graph.add(
            "MatMulIntegerToFloat", codes, graph.weight(f"{name}.codes", weights), self._number(1.0),
            graph.weight(f"{name}.scales", scales),
            graph.constant(np.array(ZERO_CODE, np.uint8)), graph.constant(np.zeros((), np.int8)), domain=CONTRIB,
        )  # fmt: skip

    def _linear(self, name: str, x: str) -> str:
        """A product with its bias, in float32 in every precision."""
        return self._graph.add("Gemm", x, self._vector(f"{name}.weight"), self._vector(f"{name}.bias"), transB=1)

    def _numbers(self, *values: int) -> str:
        return self._graph.constant(np.array(values, np.int64))

    def _number(self, value: float) -> str:
        return self._graph.constant(np.array(value, np.float32))

    def _vector(self, name: str) -> str:
        return self._weight(name, lambda: self._take(name))

    def _weight(self, name: str, make: Callable[[], np.ndarray]) -> str:
        return self._graph.weight(name, self._tensors.made(name, make))

    def _take(self, name: str) -> np.ndarray:
        return self._tensors.take(name)
