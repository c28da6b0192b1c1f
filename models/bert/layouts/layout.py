"""How a network of BERT's operations lies on disk under another ``model_type``: its fields and its tensors' names."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from models.bert.config import BertConfig


@dataclass(frozen=True)
class Layout:
    """One ``model_type`` of Hugging Face's transformers.

    ``classifier`` is its class with a head for texts, ``encoder`` the prefix of all tensors without one. ``names`` are
    parts of our parameters' names, which are BERT's, and what stands there in their place, replaced in this order.
    ``fields`` are fields of `BertConfig` that ``config.json`` calls otherwise, ``fixed`` those that it does not say.
    ``required`` is what other fields of a pretrained model's ``config.json`` may be.
    """

    model_type: str
    classifier: str
    encoder: str
    names: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def tensor(self, name: str) -> str:
        """Our parameter's name → its tensor's on disk."""
        for ours, theirs in self.names.items():
            name = name.replace(ours, theirs)
        return name

    def field(self, name: str) -> str:
        """A field of `BertConfig` → what ``config.json`` calls it."""
        return self.fields.get(name, name)

    def written(self) -> dict[str, Any]:
        """What the ``config.json`` of a classifier says of the architecture."""
        return {"architectures": [self.classifier], "model_type": self.model_type, self.field("hidden_act"): "gelu"}

    def network(self, config: Mapping[str, Any]) -> BertConfig:
        """The content of ``config.json`` → the network's shape."""
        renamed = {ours: config[theirs] for ours, theirs in self.fields.items() if theirs in config}
        return BertConfig.from_dict({**config, **renamed, **self.fixed})
