"""Bases of every layout that is read give the network that transformers makes of them; all others are named."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from safetensors.numpy import load_file, save_file

from models.bert.classifier import from_pretrained
from models.bert.tokenizer import Tokenizer
from tests.training.bases import SMALL, write_base
from tests.training.commands import few_rows, run
from training.fit.pretrained import BaseError, find_base

Tensors = dict[str, np.ndarray]
FAST = ("--seeds", "1", "--folds", "2", "--epochs", "1", "--learning-rate", "5e-3", "--head-learning-rate", "5e-3")


@pytest.fixture(scope="module")
def good_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("good") / "base")


@pytest.fixture
def base(good_base: Path, tmp_path: Path) -> Path:
    return shutil.copytree(good_base, tmp_path / "base")


def rewritten(base: Path, change: Callable[[Tensors], Tensors]) -> Tensors:
    """Change the base's weights; what they were."""
    before = load_file(base / "model.safetensors")
    save_file(change(dict(before)), base / "model.safetensors")
    return before


def parameters(base: Path) -> Tensors:
    found, _ = find_base(str(base))
    model = from_pretrained(found.config, found.weights, seed=1)
    return {name: np.array(value) for name, value in tree_flatten(model.bert.parameters(), prefix=".bert")}


def old_names(tensors: Tensors) -> Tensors:
    pairs = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, old in pairs.items():
        tensors = {name.replace(new, old): value for name, value in tensors.items()}
    return tensors


def without_prefix(tensors: Tensors) -> Tensors:
    return {name.removeprefix("bert."): value for name, value in tensors.items()}


def with_heads(tensors: Tensors) -> Tensors:
    heads = {"cls.predictions.bias": (7,), "cls.seq_relationship.weight": (2, 32), "classifier.weight": (5, 32)}
    return tensors | {name: np.ones(shape, np.float32) for name, shape in heads.items()}


@pytest.mark.parametrize(
    "change",
    [old_names, without_prefix, with_heads, lambda t: old_names(without_prefix(t)), lambda t: with_heads(old_names(t))],
    ids=["gamma and beta", "no prefix", "heads", "gamma, no prefix", "gamma, heads"],
)
def test_a_checkpoint_is_read_whatever_its_names(base: Path, change: Callable[[Tensors], Tensors]) -> None:
    before = rewritten(base, change)
    after = parameters(base)
    assert after.keys() == before.keys()
    for name, value in before.items():
        assert np.array_equal(after[name], value), name


def test_tensors_that_are_not_used_are_named(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rewritten(base, with_heads)
    found, _ = find_base(str(base))
    assert found.unused == ("classifier.weight", "cls.predictions.bias", "cls.seq_relationship.weight")
    found.print_notes(quiet=False)
    assert "not used: classifier.weight, cls.predictions.bias, cls.seq_relationship.weight\n" in capsys.readouterr().err
    found.print_notes(quiet=True)
    assert capsys.readouterr().err == ""


def test_without_a_pooler_a_new_one_begins(base: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = rewritten(base, lambda t: {name: value for name, value in t.items() if "pooler" not in name})
    after = parameters(base)
    assert np.isfinite(after["bert.pooler.dense.weight"]).all()
    assert not np.array_equal(after["bert.pooler.dense.weight"], before["bert.pooler.dense.weight"])
    find_base(str(base))[0].print_notes(quiet=False)
    assert "has no pooler" in capsys.readouterr().err


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_are_converted(base: Path, dtype: type) -> None:
    before = rewritten(base, lambda t: {name: value.astype(dtype) for name, value in t.items()})
    for name, value in parameters(base).items():
        assert np.array_equal(value, before[name].astype(dtype).astype(np.float32)), name


def test_so_is_bfloat16(base: Path) -> None:
    before = load_file(base / "model.safetensors")
    mx.save_safetensors(
        str(base / "model.safetensors"), {name: mx.array(value).astype(mx.bfloat16) for name, value in before.items()}
    )
    for name, value in parameters(base).items():
        assert np.array_equal(value, np.array(mx.array(before[name]).astype(mx.bfloat16).astype(mx.float32))), name


@pytest.mark.parametrize("kind", ["BertModel", "BertForMaskedLM", "BertForPreTraining", "BertForTokenClassification"])
@pytest.mark.parametrize(
    "sizes",
    [{"hidden_size": 48, "num_attention_heads": 3, "num_hidden_layers": 1}, {"hidden_size": 8, "intermediate_size": 5}],
    ids=["one layer of 48", "8 wide"],
)
def test_what_transformers_saves_gives_its_pooled_vectors(
    base: Path, transformers_classifier: type, kind: str, sizes: dict[str, int]
) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    config = transformers.BertConfig(**{**SMALL, **sizes, "initializer_range": 0.3})
    theirs = getattr(transformers, kind)(config).eval()
    theirs.save_pretrained(base)
    found, _ = find_base(str(base))
    ours = from_pretrained(found.config, found.weights, seed=0)
    ours.eval()
    ids, mask = np.array([[101, 2000, 3000, 102], [101, 4000, 102, 0]]), np.array([[1, 1, 1, 1], [1, 1, 1, 0]])
    assert found.has_pooler == (kind in ("BertModel", "BertForPreTraining"))
    hidden = np.array(ours.bert.hidden(mx.array(ids), mx.array(mask), config.num_hidden_layers))
    with torch.no_grad():
        inner = theirs if kind == "BertModel" else theirs.bert
        expected = inner(input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask))
    assert np.abs(hidden - expected.last_hidden_state.numpy())[mask == 1].max() < 1e-5
    if found.has_pooler:
        pooled = np.array(ours.bert(mx.array(ids), mx.array(mask)))
        assert np.abs(pooled - expected.pooler_output.numpy()).max() < 1e-5


def write_tokenizer(base: Path, words: list[str], lowercase: bool) -> None:
    vocabulary = {word: place for place, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])}
    content = json.loads((base / "tokenizer.json").read_text())
    content["model"]["vocab"] = vocabulary
    content["normalizer"] |= {"lowercase": lowercase, "strip_accents": None}
    content["added_tokens"] = []
    for token in content["post_processor"]["special_tokens"].values():
        token["ids"] = [vocabulary[token["id"]]]
    (base / "tokenizer.json").write_text(json.dumps(content))


def test_cased_and_other_alphabets_are_read_as_transformers_reads_them(
    base: Path, transformers_classifier: type
) -> None:
    from transformers import PreTrainedTokenizerFast

    letters = sorted({*"abcdefghijklmnopqrstuvwxyzABC", *"éÅäßñ", *"привет", *"你好", *"שלום", *"नमस्ते"})
    write_tokenizer(base, [*letters, *(f"##{letter}" for letter in letters)], lowercase=False)
    text = "Aé bÅ привет 你好 שלום नमस्ते B"
    _, path = find_base(str(base))
    peer = PreTrainedTokenizerFast(tokenizer_file=str(path))
    assert Tokenizer.load(path).token_ids([text])[0] == peer(text)["input_ids"]
    assert Tokenizer.load(path).token_ids(["A"]) != Tokenizer.load(path).token_ids(["a"])


@pytest.mark.slow
def test_a_cased_base_with_old_names_and_a_head_trains_a_bundle(base: Path, tmp_path: Path) -> None:
    rewritten(base, lambda t: with_heads(old_names(t)))
    content = json.loads((base / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    (base / "tokenizer.json").write_text(json.dumps(content))
    config = SMALL | {"problem_type": "regression", "auto_map": {"AutoModel": "modeling.Net"}}
    (base / "config.json").write_text(json.dumps(config))
    done = run("fit", "--data", few_rows(tmp_path / "rows.csv"), "--base", base, *FAST, "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert "not used: classifier.weight, cls.predictions.bias, cls.seq_relationship.weight" in done.stderr
    kept = json.loads((tmp_path / "b" / "config.json").read_bytes())
    assert "problem_type" not in kept
    assert "auto_map" not in kept


OTHERS = {
    "roberta": {"model_type": "roberta"},
    "xlm": {"model_type": "xlm-roberta"}, "modernbert": {"model_type": "modernbert"},
    "deberta": {"model_type": "deberta-v2"},
    "electra": {"model_type": "electra"}, "relu": {"hidden_act": "relu"},
    "relative positions": {"position_embedding_type": "relative_key"}, "a decoder": {"is_decoder": True},
    "cross attention": {"add_cross_attention": True}, "quantized": {"quantization_config": {"load_in_8bit": True}},
    "pruned": {"pruned_heads": {"0": [1]}},
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_another_architecture_is_one_sentence_that_says_what_is_read(base: Path, name: str) -> None:
    (base / "config.json").write_text(json.dumps(SMALL | OTHERS[name]))
    field, value = next(iter(OTHERS[name].items()))
    with pytest.raises(BaseError) as raised:
        find_base(str(base))
    assert f"{field} is {value!r}, it must be" in str(raised.value)
    assert "layout of Hugging Face's BertModel or DistilBertModel" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("field", ["vocab_size", "num_hidden_layers", "max_position_embeddings", "type_vocab_size"])
@pytest.mark.parametrize("value", [None, 0, "12", 1e9, True])
def test_a_config_without_a_size_is_named(base: Path, field: str, value: Any) -> None:
    config = SMALL | {field: value}
    if value is None:
        del config[field]
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(BaseError, match=rf"config\.json: {field} is .*; it must be an integer from 1 to"):
        find_base(str(base))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_attention_heads": 3}, "hidden_size 32 is not a multiple of num_attention_heads 3"),
        ({"hidden_dropout_prob": 1.5}, "hidden_dropout_prob is 1.5"),
        ({"num_hidden_layers": 3}, r"no tensor bert\.encoder\.layer\.2\.attention"),
        ({"num_hidden_layers": 1}, r"a tensor bert\.encoder\.layer\.1\.\S+, for which .* no place"),
        ({"intermediate_size": 60}, r"has shape \(64, 32\), its config\.json says \(60, 32\)"),
        ({"vocab_size": 30521}, r"has shape \(30522, 32\)"),
    ],
)
def test_a_config_of_another_model_is_named(base: Path, change: dict[str, Any], message: str) -> None:
    (base / "config.json").write_text(json.dumps(SMALL | change))
    with pytest.raises(BaseError, match=message):
        find_base(str(base))


def test_a_vocabulary_that_is_smaller_than_the_tokenizers(base: Path) -> None:
    rewritten(base, lambda t: t | {"bert.embeddings.word_embeddings.weight": np.ones((1000, 32), np.float32)})
    (base / "config.json").write_text(json.dumps(SMALL | {"vocab_size": 1000}))
    with pytest.raises(BaseError, match=r"gives token ids up to 30521, and by config\.json the model has 1000"):
        find_base(str(base))


def with_nan(tensors: Tensors) -> Tensors:
    tensors["bert.encoder.layer.1.output.dense.bias"][3] = np.nan
    return tensors


def too_large(tensors: Tensors) -> Tensors:
    name = "bert.pooler.dense.bias"
    return tensors | {name: tensors[name].astype(np.float64) + 1e300}


def whole_numbers(tensors: Tensors) -> Tensors:
    name = "bert.embeddings.LayerNorm.bias"
    return tensors | {name: np.zeros_like(tensors[name], np.int32)}


def twice(tensors: Tensors) -> Tensors:
    return tensors | {"embeddings.LayerNorm.gamma": np.ones(32, np.float32)}


def relative(tensors: Tensors) -> Tensors:
    return tensors | {"bert.encoder.layer.0.attention.self.distance_embedding.weight": np.ones((127, 16), np.float32)}


def half_a_pooler(tensors: Tensors) -> Tensors:
    return {name: value for name, value in tensors.items() if name != "bert.pooler.dense.bias"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_nan, r"layer\.1\.output\.dense\.bias holds a value that is not finite"),
        (too_large, r"pooler\.dense\.bias holds a value that is not finite"),
        (whole_numbers, r"LayerNorm\.bias has dtype I32, which is not read; it must be one of F64, F32, F16, BF16"),
        (twice, r"LayerNorm\.weight and embeddings\.LayerNorm\.gamma are the same parameter"),
        (relative, r"distance_embedding\.weight, for which .* no place"),
        (half_a_pooler, r"no tensor bert\.pooler\.dense\.bias"),
        (lambda _: {"model.layers.0.weight": np.ones(3, np.float32)}, r"no tensor bert\.\S+; it holds 1, the first is"),
    ],
)
def test_weights_that_cannot_be_used_are_named(base: Path, change: Callable[[Tensors], Tensors], message: str) -> None:
    rewritten(base, change)
    with pytest.raises(BaseError, match=message):
        find_base(str(base))


def test_eight_bit_floats_are_no_numbers_here(base: Path) -> None:
    """MLX loads them as the integers of their codes."""
    path = base / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    name = max((key for key in header if key != "__metadata__"), key=lambda key: header[key]["data_offsets"][1])
    start, end = header[name]["data_offsets"]
    header[name] |= {"dtype": "F8_E4M3", "data_offsets": [start, start + (end - start) // 4]}
    made = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(made)) + made + data[: start + (end - start) // 4])
    with pytest.raises(BaseError, match=rf"{name} has dtype F8_E4M3, which is not read"):
        find_base(str(base))


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22e\nsize 9\n"


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_what_git_lfs_left_is_named_with_its_cure(base: Path, name: str) -> None:
    (base / name).write_bytes(POINTER)
    with pytest.raises(BaseError, match=rf"{name} is a pointer .* `git lfs pull` in {base}"):
        find_base(str(base))


@pytest.mark.parametrize("kept", [0, 7, 100, 20_000, -1])
def test_a_cut_file_is_one_sentence(base: Path, kept: int) -> None:
    path = base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BaseError, match="it is cut, or no safetensors file"):
        find_base(str(base))


@pytest.mark.parametrize(
    ("gone", "there", "message"),
    [
        ("model.safetensors", "pytorch_model.bin", "a pickle"),
        ("model.safetensors", "model.safetensors.index.json", "several files"),
        ("model.safetensors", "", "is needed"),
        ("tokenizer.json", "vocab.txt", "vocab.txt only"),
        ("config.json", "", "is needed"),
    ],
)
def test_a_file_that_is_missing_and_what_is_there_instead(base: Path, gone: str, there: str, message: str) -> None:
    (base / gone).unlink()
    if there:
        (base / there).write_text("x")
    with pytest.raises(BaseError, match=rf"lacks {gone}: .*{message}"):
        find_base(str(base))


@pytest.mark.parametrize("content", ["{", "[]", '"bert"', "{}", "[" * 100_000])
def test_a_config_that_is_none(base: Path, content: str) -> None:
    (base / "config.json").write_text(content)
    with pytest.raises(BaseError, match=r"config\.json (is not JSON|does not say its model_type)"):
        find_base(str(base))


def test_a_tokenizer_of_another_kind(base: Path) -> None:
    content = json.loads((base / "tokenizer.json").read_text())
    content["model"] = {"type": "BPE", "vocab": {}, "merges": []}
    (base / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(BaseError, match=r"tokenizer\.json is no tokenizer of a BERT"):
        find_base(str(base))
