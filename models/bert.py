"""BERT (Devlin et al., 2019) in MLX, with the parameter names of Hugging Face's checkpoints."""

from dataclasses import dataclass, fields
from typing import Any, Self

import mlx.core as mx
import mlx.nn as nn

from models.operators import gelu

MASKED = -1e9
"""Added to the scores of padding. Finite, so that a wholly padded row attends evenly and gives no NaN."""


@dataclass(frozen=True)
class BertConfig:
    """The fields of ``config.json`` that shape the network; the others are ignored."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})


class BertEmbeddings(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def __call__(self, ids: mx.array) -> mx.array:
        positions = self.position_embeddings.weight[: ids.shape[1]]
        return self.LayerNorm(self.word_embeddings(ids) + positions + self.token_type_embeddings.weight[0])


class BertSelfAttention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)

    def __call__(self, x: mx.array, attended: mx.array, mask: mx.array) -> mx.array:
        B, L, D = x.shape
        q, k, v = self._split(self.query(x)), self._split(self.key(attended)), self._split(self.value(attended))
        scale = (D // self.heads) ** -0.5
        y = mx.fast.scaled_dot_product_attention(q, k, v, scale=scale, mask=mask)
        return y.transpose(0, 2, 1, 3).reshape(B, L, D)

    def _split(self, x: mx.array) -> mx.array:
        B, L, D = x.shape
        return x.reshape(B, L, self.heads, D // self.heads).transpose(0, 2, 1, 3)


class BertOutput(nn.Module):
    """Projection, dropout, residual and layer norm, after attention and after the feed-forward layer alike."""

    def __init__(self, inputs: int, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def __call__(self, y: mx.array, residual: mx.array) -> mx.array:
        return self.LayerNorm(self.dropout(self.dense(y)) + residual)


class BertAttention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertOutput(config.hidden_size, config)

    def __call__(self, x: mx.array, attended: mx.array, mask: mx.array) -> mx.array:
        return self.output(self.self(x, attended, mask), x)


class BertIntermediate(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def __call__(self, x: mx.array) -> mx.array:
        return gelu(self.dense(x))


class BertLayer(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config.intermediate_size, config)

    def __call__(self, x: mx.array, mask: mx.array, rows: int | None = None) -> mx.array:
        """Hidden states (B, L, D) → (B, rows or L, D): only the first ``rows`` positions are computed, from all."""
        x, attended = (x if rows is None else x[:, :rows]), x
        x = self.attention(x, attended, mask)
        return self.output(self.intermediate(x), x)


class BertEncoder(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = [BertLayer(config) for _ in range(config.num_hidden_layers)]


class BertPooler(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def __call__(self, x: mx.array) -> mx.array:
        return mx.tanh(self.dense(x[:, 0]))


class BertModel(nn.Module):
    """Encoder and pooler: token ids → one vector per text, tanh(W h_CLS + b)."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config)

    def __call__(self, ids: mx.array, mask: mx.array) -> mx.array:
        """ids, mask (B, L) integers, mask 1 on tokens and 0 on padding → pooled (B, D) float32."""
        return self.pooled(self.hidden(ids, mask, len(self.encoder.layer) - 1), mask, len(self.encoder.layer) - 1)

    def hidden(self, ids: mx.array, mask: mx.array, layers: int) -> mx.array:
        """Hidden states (B, L, D) after the embeddings and the first ``layers`` layers."""
        x, bias = self.embeddings(ids), _bias(mask)
        for layer in self.encoder.layer[:layers]:
            x = layer(x, bias)
        return x

    def pooled(self, x: mx.array, mask: mx.array, start: int) -> mx.array:
        """Hidden states before layer ``start`` → pooled (B, D).

        The last layer computes the CLS position alone, the only one that the pooler reads.
        """
        bias = _bias(mask)
        for layer in self.encoder.layer[start:-1]:
            x = layer(x, bias)
        if start < len(self.encoder.layer):
            x = self.encoder.layer[-1](x, bias, rows=1)
        return self.pooler(x)


def _bias(mask: mx.array) -> mx.array:
    return mx.where(mask[:, None, None, :] > 0, 0.0, MASKED).astype(mx.float32)
