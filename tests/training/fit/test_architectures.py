"""Each architecture that is read, from a pretrained model by transformers to a bundle that transformers reads back."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from models.bert.layouts.registry import LAYOUTS
from models.bert.tokenizer import Tokenizer
from models.bundle.read import open_bundle
from models.engines.choice import choose_engine, load_engine
from models.predictor import Predictor
from models.selftest import compare
from tests.models.engines.networks import ENGINES
from tests.training.commands import few_rows, run
from training.fit.pretrained import BaseError, find_base

SIZES: dict[str, dict[str, Any]] = {
    "bert": {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128},
    "distilbert": {"dim": 64, "n_layers": 2, "n_heads": 2, "hidden_dim": 128, "sinusoidal_pos_embds": False},
}
CONFIGS = {"bert": "BertConfig", "distilbert": "DistilBertConfig"}
HEADLESS = {"bert": ("BertModel", "BertForMaskedLM"), "distilbert": ("DistilBertModel", "DistilBertForMaskedLM")}
TEXTS = ["third class man", "first class woman, no cabin, Southampton", "", "child " * 90]
FAST = (
    "--seeds", "1", "--folds", "2", "--epochs", "2", "--learning-rate", "5e-3", "--head-learning-rate", "5e-3",
    "--quiet",
)  # fmt: skip


def make(kind: str, name: str, classes: int = 3) -> Any:
    """A model of transformers with random weights, larger than a new one's, so that its logits tell texts apart."""
    import torch
    import transformers

    torch.manual_seed(0)
    sizes = {"vocab_size": 30522, "max_position_embeddings": 64, "initializer_range": 0.2, "num_labels": classes}
    return getattr(transformers, name)(getattr(transformers, CONFIGS[kind])(**SIZES[kind], **sizes)).eval()


def saved(folder: Path, model: Any) -> Path:
    """A folder for ``--base``."""
    model.save_pretrained(folder)
    shutil.copy(find_base(None)[1], folder / "tokenizer.json")
    return folder


def logits_of(model: Any, token_ids: list[list[int]]) -> np.ndarray:
    import torch

    with torch.no_grad():
        return np.stack([model(input_ids=torch.tensor([tokens])).logits.numpy()[0] for tokens in token_ids])


def test_each_has_a_case_here() -> None:
    assert LAYOUTS.keys() == SIZES.keys()


@pytest.mark.parametrize("kind", LAYOUTS)
def test_all_engines_give_the_logits_of_transformers(kind: str, tmp_path: Path, transformers_classifier: type) -> None:
    theirs = make(kind, LAYOUTS[kind].classifier)
    saved(tmp_path, theirs)
    config = json.loads((tmp_path / "config.json").read_bytes()) | {"num_labels": 3}
    token_ids = Tokenizer.load(tmp_path / "tokenizer.json", 64).token_ids(TEXTS)
    expected = logits_of(theirs, token_ids)
    assert expected.std(axis=0).min() > 0.05
    for name in ENGINES:
        weights = load_file(tmp_path / "model.safetensors")
        found = load_engine(choose_engine(name), config, weights, threads=1).logits(token_ids)
        assert np.abs(found - expected).max() < 1e-4
    for name in ENGINES[1:]:
        weights = load_file(tmp_path / "model.safetensors")
        rounded = load_engine(choose_engine(name), config, weights, "int8", threads=1).logits(token_ids)
        assert 1e-5 < ((rounded - expected) ** 2).mean() ** 0.5 < 0.1 * expected.std()


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_head_beside_the_encoder_is_left_out_and_its_first_half_kept(
    kind: str, tmp_path: Path, transformers_classifier: type
) -> None:
    found, _ = find_base(str(saved(tmp_path / "classifier", make(kind, LAYOUTS[kind].classifier))))
    assert (found.has_pooler, found.unused) == (True, ("classifier.bias", "classifier.weight"))
    for name in HEADLESS[kind]:
        found, _ = find_base(str(saved(tmp_path / name, make(kind, name))))
        assert found.has_pooler == (name == "BertModel")


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_bundle_of_each_is_read_by_transformers_and_by_both_engines(
    kind: str, tmp_path: Path, transformers_classifier: type
) -> None:
    from transformers import AutoModelForSequenceClassification

    base = saved(tmp_path / "base", make(kind, HEADLESS[kind][0]))
    out = tmp_path / "b"
    done = run("fit", "--data", few_rows(tmp_path / "rows.csv"), "--base", base, *FAST, "--out", out)
    assert done.returncode == 0, done.stderr
    theirs, report = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert type(theirs).__name__ == LAYOUTS[kind].classifier
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    expected = logits_of(theirs.eval(), Tokenizer.load(out / "tokenizer.json", 64).token_ids(TEXTS))
    for name in ENGINES:
        assert np.abs(Predictor.load(out, engine=name).logits(TEXTS) - expected).max() < 1e-4
    bundle, tokenizer, weights = open_bundle(out)
    engine = load_engine(choose_engine("onnx"), bundle.config, weights, "int8", threads=1)
    answers = compare(bundle, tokenizer, engine)
    assert len(answers) == 16
    assert not any(one.fault for one in answers)


def test_the_upper_layers_and_the_head_are_trained_and_nothing_else(
    tmp_path: Path, transformers_classifier: type
) -> None:
    base = saved(tmp_path / "base", make("distilbert", "DistilBertForSequenceClassification"))
    done = run(
        "fit", "--data", few_rows(tmp_path / "rows.csv"), "--base", base, *FAST, "--trained-layers", "1", "--out",
        tmp_path / "b",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    before, after = (load_file(folder / "model.safetensors") for folder in (base, tmp_path / "b"))
    same = {name for name in before.keys() & after.keys() if np.array_equal(before[name], after[name])}
    frozen = {name for name in after if name.startswith(("distilbert.embeddings", "distilbert.transformer.layer.0"))}
    assert after.keys() == before.keys()
    # A bias of keys changes no softmax, so it has no gradient.
    assert same - {"distilbert.transformer.layer.1.attention.k_lin.bias"} == frozen


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dim": 65}, r"dim 65 is not a multiple of n_heads 2"),
        ({"n_layers": "2"}, r"n_layers is '2'; it must be an integer from 1 to"),
        ({"n_layers": 1}, r"a tensor transformer\.layer\.1\.\S+, for which .* no place"),
        ({"activation": "relu"}, r"activation is 'relu', it must be 'gelu'"),
        ({"dropout": 2}, r"dropout is 2"),
    ],
)
def test_a_distilbert_that_cannot_be_used_is_named_in_its_own_words(
    change: dict[str, Any], message: str, tmp_path: Path, transformers_classifier: type
) -> None:
    base = saved(tmp_path / "base", make("distilbert", "DistilBertModel"))
    config = json.loads((base / "config.json").read_bytes())
    (base / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(BaseError, match=message):
        find_base(str(base))
