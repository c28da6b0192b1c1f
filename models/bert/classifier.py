"""BertClassifier: encoder, pooler and a linear head of K logits, in one of Hugging Face's layouts on disk."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from models.bert.bert import BertModel, Linear
from models.bert.checkpoint import Checkpoint
from models.bert.config import BertConfig
from models.bert.layouts.registry import LAYOUTS, layout_of
from models.bert.quantization import HALVES, quantize


class BertClassifier(nn.Module):
    """A classifier of texts; parameter names are equal to the keys of a ``BertForSequenceClassification``."""

    def __init__(self, config: BertConfig):
        super().__init__()
        self.model_type = config.model_type
        self.bert = BertModel(config)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.classifier = Linear(config.hidden_size, config.num_labels)

    def __call__(self, ids: mx.array, mask: mx.array | None) -> mx.array:
        """ids, mask (B, L), mask None without padding → logits (B, K) float32, in the order of the classes."""
        return self.classifier(self.dropout(self.bert(ids, mask)))

    def forward_from(self, x: mx.array, mask: mx.array | None, start: int) -> mx.array:
        """Hidden states (B, L, D) before layer ``start`` → logits (B, K)."""
        return self.classifier(self.dropout(self.bert.pooled(x, mask, start)))


def load_classifier(
    config: dict[str, Any], weights: dict[str, np.ndarray], precision: str = "float32"
) -> BertClassifier:
    """The classifier of a verified bundle (`models.bundle.read.open_bundle`), evaluated and in inference mode.

    ``weights`` is emptied as they are taken over, so that they are in memory once; then they are rounded to
    ``precision`` (`models.bundle.precisions`). The head stays as it is.
    """
    layout = layout_of(config)
    model = BertClassifier(layout.network(config))
    # Before anything is evaluated, or the random weights that a new model has would be drawn.
    names = [name for name, _ in tree_flatten(model.parameters())]
    model.load_weights([(name, _taken(weights, layout.tensor(name))) for name in names])
    mx.eval(model.parameters())
    model.eval()
    for layer in model.bert.encoder.layer:
        layer.attention.self.fuse_qkv(precision)
    _round(model.bert, precision)
    return model


def _round(encoder: BertModel, precision: str) -> None:
    if precision in HALVES:
        encoder.apply(lambda parameter: parameter.astype(HALVES[precision]))
        mx.eval(encoder.parameters())
    elif precision == "int8":
        for module in encoder.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                module.weight = quantize(module.weight, precision)


def _taken(weights: dict[str, np.ndarray], name: str) -> mx.array:
    return mx.array(weights.pop(name))


def from_pretrained(config: dict[str, Any], weights: Path, seed: int) -> BertClassifier:
    """A classifier on a pretrained BERT: encoder (and pooler, where the file has one) from the file, the rest new.

    Raises CheckpointError.
    """
    mx.random.seed(seed)
    layout = layout_of(config)
    model = BertClassifier(layout.network(config))
    model.classifier.weight = 0.02 * mx.random.normal(model.classifier.weight.shape)
    model.classifier.bias = mx.zeros_like(model.classifier.bias)
    parameters = dict(tree_flatten(model.bert.parameters(), prefix=".bert"))
    ours = {layout.tensor(name): name for name in parameters}
    expected = {tensor: parameters[name].shape for tensor, name in ours.items()}
    for tensor, values in Checkpoint(weights, expected, layout).tensors():
        # One by one: the arrays of NumPy and of MLX need not be in memory together.
        model.load_weights([(ours[tensor], mx.array(values))], strict=False)
    mx.eval(model.parameters())
    return model


def save_weights(model: BertClassifier, path: Path) -> None:
    """Write ``model.safetensors`` as Hugging Face reads it."""
    layout = LAYOUTS[model.model_type]
    tensors = {layout.tensor(name): value for name, value in tree_flatten(model.parameters())}
    mx.save_safetensors(str(path), tensors, metadata={"format": "pt"})
