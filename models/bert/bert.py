"""BERT (Devlin et al., 2019) in MLX, with the parameter names of Hugging Face's checkpoints."""

import mlx.core as mx
import mlx.nn as nn

from models.bert.config import BertConfig
from models.bert.operators import attention, dequantize, gelu, linear
from models.bert.quantization import Weight, quantize

MASKED = -1e9
"""Added to the scores of padding. Finite, so that a wholly padded row attends evenly and gives no NaN."""


class Linear(nn.Linear):
    def __call__(self, x: mx.array) -> mx.array:
        return linear(x, self.weight, self.bias)


class BertEmbeddings(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        if config.type_vocab_size:
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def __call__(self, ids: mx.array) -> mx.array:
        """ids (B, L) → (B·L, D)."""
        B, L = ids.shape
        places = dequantize(self.position_embeddings.weight[:L])
        if "token_type_embeddings" in self:
            places = places + dequantize(self.token_type_embeddings.weight[:1])
        x = (dequantize(self.word_embeddings.weight[ids]) + places).reshape(B * L, -1)
        return self.LayerNorm(x)


class BertSelfAttention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(config.hidden_size, config.hidden_size)
        self.value = Linear(config.hidden_size, config.hidden_size)
        self._held: tuple[Weight, mx.array] | None = None

    def __call__(self, x: mx.array, attended: mx.array, bias: mx.array | None, texts: int) -> mx.array:
        weight, offset = self._held or self._joined()
        D = x.shape[1]
        if x is attended:
            y = linear(x, weight, offset)
            q, k, v = y[:, :D], y[:, D : 2 * D], y[:, 2 * D :]
        else:
            q, y = linear(x, weight[:D], offset[:D]), linear(attended, weight[D:], offset[D:])
            k, v = y[:, :D], y[:, D:]
        return attention(q, k, v, bias, texts, self.heads)

    def fuse_qkv(self, precision: str) -> None:
        """Join the projections once and for all: for inference, where weights do not change."""
        weight, offset = self._joined()
        mx.eval(weight, offset)
        self._held = quantize(weight, precision), offset

    def _joined(self) -> tuple[mx.array, mx.array]:
        """Query, key and value as one projection, queries scaled by 1/√d."""
        scale = (self.query.weight.shape[0] // self.heads) ** -0.5
        weight = mx.concatenate([self.query.weight * scale, self.key.weight, self.value.weight])
        return weight, mx.concatenate([self.query.bias * scale, self.key.bias, self.value.bias])


class BertOutput(nn.Module):
    """Projection, dropout, residual and layer norm, after attention and after the feed-forward layer alike."""

    def __init__(self, inputs: int, config: BertConfig):
        super().__init__()
        self.dense = Linear(inputs, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def __call__(self, y: mx.array, residual: mx.array) -> mx.array:
        return self.LayerNorm(self.dropout(self.dense(y)) + residual)


class BertAttention(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.self = BertSelfAttention(config)
        self.output = BertOutput(config.hidden_size, config)

    def __call__(self, x: mx.array, attended: mx.array, bias: mx.array | None, texts: int) -> mx.array:
        return self.output(self.self(x, attended, bias, texts), x)


class BertIntermediate(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.intermediate_size)

    def __call__(self, x: mx.array) -> mx.array:
        return gelu(self.dense(x))


class BertLayer(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.attention = BertAttention(config)
        self.intermediate = BertIntermediate(config)
        self.output = BertOutput(config.intermediate_size, config)

    def __call__(self, x: mx.array, bias: mx.array | None, texts: int, first_only: bool = False) -> mx.array:
        """Hidden states (B·L, D) → the same, or (B, D) of each text's first token alone, computed from all."""
        x, attended = (x.reshape(texts, -1, x.shape[1])[:, 0] if first_only else x), x
        x = self.attention(x, attended, bias, texts)
        return self.output(self.intermediate(x), x)


class BertEncoder(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.layer = [BertLayer(config) for _ in range(config.num_hidden_layers)]


class BertPooler(nn.Module):
    def __init__(self, config: BertConfig):
        super().__init__()
        self.dense = Linear(config.hidden_size, config.hidden_size)
        self._activation = {"tanh": mx.tanh, "relu": nn.relu}[config.pooler_activation]

    def __call__(self, x: mx.array) -> mx.array:
        return self._activation(self.dense(x))


class BertModel(nn.Module):
    """Encoder and pooler: token ids → one vector per text, tanh(W h_CLS + b), or with a ReLU."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.embeddings = BertEmbeddings(config)
        self.encoder = BertEncoder(config)
        self.pooler = BertPooler(config)

    def __call__(self, ids: mx.array, mask: mx.array | None) -> mx.array:
        """ids, mask (B, L) integers, mask 1 on tokens and 0 on padding (None: no padding) → pooled (B, D) float32."""
        return self.pooled(self.hidden(ids, mask, len(self.encoder.layer) - 1), mask, len(self.encoder.layer) - 1)

    def hidden(self, ids: mx.array, mask: mx.array | None, layers: int) -> mx.array:
        """Hidden states (B, L, D) after the embeddings and the first ``layers`` layers."""
        B, L = ids.shape
        x, bias = self.embeddings(ids), _bias(mask)
        for layer in self.encoder.layer[:layers]:
            x = layer(x, bias, B)
        return x.reshape(B, L, -1)

    def pooled(self, x: mx.array, mask: mx.array | None, start: int) -> mx.array:
        """Hidden states (B, L, D) before layer ``start`` → pooled (B, D).

        The last layer computes the CLS position alone, the only one that the pooler reads.
        """
        B, L, D = x.shape
        x, bias = x.reshape(B * L, D), _bias(mask)
        for layer in self.encoder.layer[start:-1]:
            x = layer(x, bias, B)
        if start < len(self.encoder.layer):
            x = self.encoder.layer[-1](x, bias, B, first_only=True)
        else:
            x = x.reshape(B, L, D)[:, 0]
        return self.pooler(x)


def _bias(mask: mx.array | None) -> mx.array | None:
    return None if mask is None else mx.where(mask > 0, 0.0, MASKED).astype(mx.float32)
