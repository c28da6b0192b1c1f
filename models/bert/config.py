"""The fields of ``config.json`` that shape the network."""

from dataclasses import dataclass, fields
from typing import Any, Literal, Self


@dataclass(frozen=True)
class BertConfig:
    """The shape of a BERT; other fields of ``config.json`` are ignored.

    ``type_vocab_size`` 0 is of one without token types. ``model_type`` says how it lies on disk
    (`models.bert.layouts`).
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    max_position_embeddings: int
    type_vocab_size: int = 2
    layer_norm_eps: float = 1e-12
    hidden_dropout_prob: float = 0.1
    num_labels: int = 2
    pooler_activation: Literal["tanh", "relu"] = "tanh"
    model_type: str = "bert"

    @classmethod
    def from_dict(cls, config: dict[str, Any]) -> Self:
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})
