"""Parity with transformers, and that neither padding nor company changes a row."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file

from models.bert.classifier import BertClassifier, from_pretrained, load_classifier, save_weights
from models.bert.tokenizer import Tokenizer
from models.engines.backend import prepare
from models.text import Renderer
from tests.titanic import SCHEMA
from training.data.table import Table
from training.fit.pretrained import find_base

WORDS = [
    "third",
    "class",
    "man",
    "young",
    "alone",
    "cheap",
    "fare",
    "no",
    "cabin",
    "Southampton",
    "noble",
    "deck",
    "family",
    "infant",
]


@pytest.fixture(scope="module")
def model() -> BertClassifier:
    prepare()
    base, _ = find_base(None)
    classifier = from_pretrained(base.config, base.weights, seed=3)
    classifier.eval()
    return classifier


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(find_base(None)[1])


def compute(model: BertClassifier, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.array(model(mx.array(ids), mx.array(mask)))


def texts_of_many_lengths(table: Table) -> list[str]:
    rng = np.random.default_rng(0)
    random = [" ".join(rng.choice(WORDS, size)) for size in (0, 1, 2, 5, 11, 17, 40, 90, 200, 505, 600)]
    return random + list(map(Renderer(SCHEMA), table.rows[:40]))


def test_logits_equal_transformers(
    model: BertClassifier, tokenizer: Tokenizer, table: Table, tmp_path: Path, transformers_classifier: type
) -> None:
    base, _ = find_base(None)
    (tmp_path / "config.json").write_text(json.dumps({**base.config, "num_labels": 2}))
    save_weights(model, tmp_path / "model.safetensors")
    import torch

    peer, report = transformers_classifier.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    peer.eval()
    texts = texts_of_many_lengths(table)
    for chosen in ([0], [1, 2], list(range(11)), [9, 10], list(range(11, 51))):
        ids, mask = tokenizer([texts[row] for row in chosen])
        with torch.no_grad():
            inputs = {"input_ids": torch.tensor(ids).long(), "attention_mask": torch.tensor(mask).long()}
            expected = peer(**inputs).logits.numpy()
        assert np.abs(compute(model, ids, mask) - expected).max() < 1e-4


def test_padding_and_company_leave_a_row_unchanged(model: BertClassifier, tokenizer: Tokenizer, table: Table) -> None:
    texts = texts_of_many_lengths(table)[:8]
    ids, mask = tokenizer(texts)
    together = compute(model, ids, mask)
    for row, text in enumerate(texts):
        alone = compute(model, *tokenizer([text]))
        assert np.abs(alone[0] - together[row]).max() < 1e-5


def test_a_wholly_padded_row_gives_no_nan(model: BertClassifier, tokenizer: Tokenizer) -> None:
    ids, mask = tokenizer(["third class man", "first class woman"])
    mask[1] = 0
    logits = compute(model, ids, mask)
    assert np.isfinite(logits).all()
    assert np.abs(logits[0] - compute(model, *tokenizer(["third class man"]))[0]).max() < 1e-5


def test_upper_layers_from_cached_states_equal_the_whole(model: BertClassifier, tokenizer: Tokenizer) -> None:
    ids, mask = (mx.array(part) for part in tokenizer(["third class man, alone", "first class woman"]))
    whole = np.array(model(ids, mask))
    for start in range(7):
        hidden = model.bert.hidden(ids, mask, start)
        assert np.abs(np.array(model.forward_from(hidden, mask, start)) - whole).max() < 1e-5


def test_weights_survive_the_disk(model: BertClassifier, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_weights(model, tmp_path / "model.safetensors")
    again = load_classifier(find_base(None)[0].config, load_file(tmp_path / "model.safetensors"))
    for (name, before), (_, after) in zip(
        tree_flatten(model.parameters()), tree_flatten(again.parameters()), strict=True
    ):
        assert np.array_equal(np.array(before), np.array(after)), name


def test_a_checkpoint_without_an_encoder_tensor_is_refused(tmp_path: Path) -> None:
    base, _ = find_base(None)
    weights = mx.load(str(base.weights))
    weights.pop("encoder.layer.2.output.dense.weight")
    mx.save_safetensors(str(tmp_path / "model.safetensors"), weights)
    with pytest.raises(ValueError, match=r"bert\.encoder\.layer\.2\.output\.dense\.weight"):
        from_pretrained(base.config, tmp_path / "model.safetensors", seed=0)
