"""BERT (Devlin et al., 2019) on disk: the names that our parameters have too."""

from models.bert.layouts.layout import Layout

BERT = Layout(
    model_type="bert", classifier="BertForSequenceClassification", encoder="bert.",
    required={
        "hidden_act": ("gelu",), "position_embedding_type": ("absolute", None), "is_decoder": (False, None),
        "add_cross_attention": (False, None), "quantization_config": (None,), "pruned_heads": ({}, None),
    },
)  # fmt: skip
