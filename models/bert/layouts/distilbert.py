"""DistilBERT (Sanh et al., 2019) on disk: BERT's layers without token types, and a head that begins with a ReLU.

Its positions may have been sines when it was made (``sinusoidal_pos_embds``); on disk they are a table like any other.
"""

from models.bert.layouts.layout import Layout

DISTILBERT = Layout(
    model_type="distilbert", classifier="DistilBertForSequenceClassification", encoder="distilbert.",
    names={
        "bert.pooler.dense": "pre_classifier", "bert.embeddings": "distilbert.embeddings",
        "bert.encoder.layer": "distilbert.transformer.layer",
        "attention.self.query": "attention.q_lin", "attention.self.key": "attention.k_lin",
        "attention.self.value": "attention.v_lin", "attention.output.dense": "attention.out_lin",
        "attention.output.LayerNorm": "sa_layer_norm", "intermediate.dense": "ffn.lin1",
        "output.dense": "ffn.lin2", "output.LayerNorm": "output_layer_norm",
    },
    fields={
        "hidden_size": "dim", "num_hidden_layers": "n_layers", "num_attention_heads": "n_heads",
        "intermediate_size": "hidden_dim", "hidden_dropout_prob": "dropout", "hidden_act": "activation",
    },
    fixed={"type_vocab_size": 0, "layer_norm_eps": 1e-12, "pooler_activation": "relu"},
    required={"activation": ("gelu",), "quantization_config": (None,), "pruned_heads": ({}, None)},
)  # fmt: skip
