"""A bundle of a BERT of four dimensions: real in form, for tests that are not about the model."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save_file

from models.bert.layouts.bert import BERT
from models.bert.tokenizer import Tokenizer
from models.bundle.known_answers import KnownAnswers
from models.bundle.manifest import MAX_BYTES, STACKED, STACKED_WEIGHTS, BaseModel, DataRecord, LossRecord, Origin
from models.bundle.precisions import Change, Measurement, Precisions
from models.bundle.training_rows import TrainingRows
from models.bundle.verify import labels_config
from models.bundle.weights import expected_tensors
from models.calibration.logit import softmax
from models.features.titanic import Companions
from models.reference import build_reference
from models.schema import Schema
from models.text import Renderer
from tests.titanic import SCHEMA
from training.calibrate.record import fit_record
from training.data.table import Table
from training.fit.pretrained import find_base

Contents = dict[str, bytes | Path]
FILES = tuple(name for name in MAX_BYTES if name not in (STACKED, STACKED_WEIGHTS))
"""The files of a tiny bundle: all but those of a stack (tests/models/bundle/test_stacked.py)."""
SHAPE: dict[str, Any] = {
    **BERT.written(), "vocab_size": 30522, "hidden_size": 4, "num_hidden_layers": 2, "num_attention_heads": 2,
    "intermediate_size": 8, "max_position_embeddings": 16, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
}  # fmt: skip
CONFIG = SHAPE | labels_config(SCHEMA)
ORIGIN = Origin(
    created="2026-01-01T00:00:00+00:00", seed=0, base=BaseModel("tiny", "0" * 64),
    loss=LossRecord("cross_entropy", {}), recipe={}, data=DataRecord("0" * 64, 60, {"died": 30, "survived": 30}),
    packages={},
)  # fmt: skip
GOOD = Change(value=0.001, standard_error=0.001, high=0.003, margin=0.005)
MEASURED = Measurement(
    precision="int8", device="cuda", rows=600, data_sha256="0" * 64, training_rows=False, log_loss=GOOD,
    calibration_error=GOOD, decisions_changed=0.0, largest_logit_difference=0.01, largest_probability_difference=0.01,
)  # fmt: skip


def few_words(schema: Schema = SCHEMA) -> bytes:
    """The base model's tokenizer with the words of a schema's texts alone, under their own ids: read in no time."""
    whole = Tokenizer.load(find_base(None)[1])
    used = {token for tokens in whole.token_ids(Renderer(schema).every_word()) for token in tokens}
    content = json.loads(whole.to_json())
    vocabulary: dict[str, int] = content["model"]["vocab"]
    used |= {token for word, token in vocabulary.items() if len(word.removeprefix("##")) == 1 or word[0] == "["}
    used.add(max(vocabulary.values()))
    content["model"]["vocab"] = {word: token for word, token in vocabulary.items() if token in used}
    return json.dumps(content).encode()


def make_contents(table: Table, folder: Path, vocabulary: bytes | None = None) -> Contents:
    """The files of a tiny bundle over the table's first 60 rows; its weights are written to ``folder``.

    ``vocabulary`` is the tokenizer, by default one of `few_words`.
    """
    vocabulary = vocabulary or few_words(table.schema)
    tokenizer = Tokenizer(vocabulary, SHAPE["max_position_embeddings"])
    schema, config = table.schema, SHAPE | labels_config(table.schema)
    rng = np.random.default_rng(0)
    tensors = {name: rng.normal(size=shape).astype(np.float32) for name, shape in expected_tensors(config).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    rows, labels = table.rows[:60], table.labels[:60]
    z = rng.normal(size=(60, len(schema.classes) - 1)) + (labels[:, None] == range(1, len(schema.classes)))
    logits = np.column_stack([np.zeros(60), z])
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": folder / "model.safetensors",
        "tokenizer.json": vocabulary,
        "tokenizer_config.json": b"{}",
        "schema.json": msgspec.json.encode(msgspec.structs.replace(schema, name="tiny")),
        "calibration.json": msgspec.json.encode(
            fit_record(logits, labels, rows, schema, inverse=None, coverage=0.9, seed=0, tokenizer=tokenizer)
        ),
        **({"feature.json": msgspec.json.encode(Companions.of(rows, labels.tolist()))} if schema.feature else {}),
        "selftest.json": msgspec.json.encode(KnownAnswers()),
        "training_rows.json": msgspec.json.encode(TrainingRows.of(rows)),
        "reference.json": msgspec.json.encode(build_reference(softmax(logits), rows, schema, tokenizer)),
        "evaluation.json": b'{"rows": 60}',
        "README.md": b"# tiny\n",
        "precisions.json": msgspec.json.encode(Precisions((MEASURED,))),
    }
