"""All engines give what NumPy gives, to 1e-4 in float32, and a row's answer is its own in every precision."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.bert.tokenizer import Tokenizer
from models.bundle.precisions import PRECISIONS, Precision
from models.engines import choice
from models.engines.choice import EngineChoice, choose_engine, load_engine
from models.engines.engine import NAMES, Chosen, Engine, EngineError
from tests.models.engines.networks import (
    ENGINES,
    ON_A_CPU,
    Weights,
    draw_tokens,
    make_config,
    make_distilbert_config,
    make_weights,
    reference_logits,
)
from training.data.table import Table
from training.fit.pretrained import find_base

OFFERED: list[tuple[EngineChoice, Precision]] = [
    (name, precision) for name in ENGINES for precision in choose_engine(name).precisions
]
NETWORKS = [
    make_config(hidden=4, layers=1, heads=2, classes=2),
    make_config(hidden=48, layers=3, heads=3, classes=5),
    make_config(hidden=64, layers=2, heads=1, classes=3, layer_norm_eps=1e-3, type_vocab_size=1),
    make_distilbert_config(hidden=48, layers=3, heads=3, classes=4),
    make_config(hidden=64, layers=3, heads=4, classes=5, intermediate_size=64),
    make_config(
        hidden=128, layers=2, heads=2, classes=70, layer_norm_eps=1e-3, type_vocab_size=1, intermediate_size=192
    ),
    make_distilbert_config(hidden=64, layers=3, heads=4, classes=4, hidden_dim=128),
]
WHOLE_WIDTHS = range(4, 7)
"""Of networks whose widths are multiples of what the kernels need."""
CASES = [
    (name, number) for name in ENGINES for number in range(len(NETWORKS)) if name != "native" or number in WHOLE_WIDTHS
]
LENGTHS = (3, 1, 40, 17, 17, 2, 29, 8, 8, 8, 33, 40, 5)
Case = tuple[dict[str, Any], Weights, list[list[int]]]


def load(name: EngineChoice, config: dict[str, Any], weights: Weights, precision: Precision = "float32") -> Engine:
    return load_engine(choose_engine(name), config, dict(weights), precision, threads=2)


@pytest.fixture(scope="module")
def pretrained(table: Table) -> Case:
    """The base encoder with a head of three classes, and texts from two to 512 tokens."""
    base, tokenizer = find_base(None)
    rng = np.random.default_rng(3)
    weights = {f"bert.{name}": value for name, value in load_file(base.weights).items() if "position_ids" not in name}
    weights["classifier.weight"] = rng.normal(0, 0.3, (3, base.config["hidden_size"])).astype(np.float32)
    weights["classifier.bias"] = rng.normal(0, 0.3, 3).astype(np.float32)
    words = ["third", "class", "man", "young", "alone", "cheap", "fare", "no", "cabin", "Southampton"]
    texts = [" ".join(rng.choice(words, size)) for size in (0, 1, 2, 5, 11, 17, 17, 40, 90, 200, 600)]
    return {**base.config, "num_labels": 3}, weights, Tokenizer.load(tokenizer).token_ids(texts)


@pytest.mark.parametrize(("name", "number"), CASES)
def test_logits_in_float32_equal_those_of_numpy(name: EngineChoice, number: int) -> None:
    config = NETWORKS[number]
    weights, token_ids = make_weights(config, number), draw_tokens(config, LENGTHS, number)
    found = load(name, config, weights).logits(token_ids)
    expected = np.stack([reference_logits(config, weights, tokens) for tokens in token_ids])
    assert (found.shape, found.dtype) == ((len(LENGTHS), config["num_labels"]), np.float64)
    assert expected.std() > 0.1
    assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("name", ENGINES)
def test_logits_of_a_pretrained_encoder_equal_those_of_transformers(
    name: EngineChoice, pretrained: Case, tmp_path: Path, transformers_classifier: type
) -> None:
    config, weights, token_ids = pretrained
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    import torch

    peer, report = transformers_classifier.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    peer.eval()
    with torch.no_grad():
        expected = [peer(input_ids=torch.tensor([tokens])).logits.numpy()[0] for tokens in token_ids]
    assert np.abs(load(name, config, weights).logits(token_ids) - np.stack(expected)).max() < 1e-4


@pytest.mark.parametrize(("name", "precision"), OFFERED)
def test_a_row_is_its_own_whatever_its_batch(name: EngineChoice, precision: Precision, pretrained: Case) -> None:
    config, weights, token_ids = pretrained
    engine, token_ids = load(name, config, weights, precision), token_ids[:9]
    alone = np.concatenate([engine.logits([tokens]) for tokens in token_ids])
    rng = np.random.default_rng(0)
    for rows in (2, 3, 5, 24):
        chosen = rng.integers(0, len(token_ids), rows)
        assert np.abs(engine.logits([token_ids[row] for row in chosen]) - alone[chosen]).max() < 1e-5


def test_engines_agree_on_a_pretrained_encoder(pretrained: Case) -> None:
    config, weights, token_ids = pretrained
    first, *others = (load(name, config, weights).logits(token_ids) for name in ENGINES)
    for other in others:
        assert np.abs(first - other).max() < 1e-4


@pytest.mark.parametrize("name", ENGINES)
def test_no_text_gives_no_logits(name: EngineChoice) -> None:
    config = NETWORKS[4]
    assert load(name, config, make_weights(config, 0)).logits([]).shape == (0, 5)


@pytest.mark.parametrize("name", ENGINES)
def test_weights_are_taken_over_and_described(name: EngineChoice) -> None:
    config = NETWORKS[4]
    weights = make_weights(config, 0)
    chosen = choose_engine(name, config)
    engine = load_engine(chosen, config, weights, threads=1)
    engine.warm_up([3, 5])
    assert weights == {}
    assert (engine.backend.engine, engine.backend.device, engine.backend.precision) == (name, chosen.device, "float32")
    assert engine.backend.describe().startswith(f"{NAMES[engine.backend.engine]} {engine.backend.version} (as ")


def absent(what: str) -> Any:
    def fail(*_: Any) -> Chosen:
        raise EngineError(f"{what} cannot be imported (No module named …)")

    return fail


def test_the_device_chooses_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Chosen(engine="mlx", device="cuda", precisions=PRECISIONS, reason="for its GPU")
    monkeypatch.setattr(choice, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(choice, "_mlx", lambda *_: gpu)
    assert choose_engine() is gpu
    assert choose_engine("onnx").engine == "onnx"
    monkeypatch.undo()
    monkeypatch.setattr(choice, "_may_have_gpu", lambda: False)
    assert (choose_engine().engine, choose_engine().warning) == (ON_A_CPU, None)
    monkeypatch.setattr(choice.build, "unavailable", lambda: "the processor has no AVX2")
    chosen = choose_engine()
    assert (chosen.engine, chosen.warning) == ("onnx", None)
    assert chosen.reason == "no GPU for MLX, and no native kernels: the processor has no AVX2"
    with pytest.raises(EngineError, match="no native kernels: the processor has no AVX2"):
        choose_engine("native")


def test_a_driver_without_a_gpu_for_mlx_leaves_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(
        choice, "_mlx", lambda *_: Chosen(engine="mlx", device="cpu", precisions=("float32",), reason="")
    )
    assert choose_engine().engine == ON_A_CPU


def test_without_onnx_runtime_mlx_serves_with_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "_onnx", absent("ONNX Runtime"))
    monkeypatch.setattr(choice, "_may_have_gpu", lambda: False)
    chosen = choose_engine("auto", NETWORKS[0])
    assert chosen.engine == "mlx"
    assert "ONNX Runtime cannot be imported" in str(chosen.warning)
    engine = load_engine(chosen, NETWORKS[0], make_weights(NETWORKS[0], 0), threads=1)
    assert engine.backend.warning == chosen.warning
    with pytest.raises(EngineError, match="ONNX Runtime cannot be imported"):
        choose_engine("onnx")


def test_a_precision_that_an_engine_has_not_is_refused() -> None:
    with pytest.raises(
        EngineError, match=r"bfloat16: with ONNX Runtime on cpu there are float32, int8; the others are "
    ):
        choose_engine("onnx").check("bfloat16")
