"""Whole numbers in place of float32: near to it, the same on every processor, and safe where one would overflow."""

import subprocess
import sys

import numpy as np
import pytest

from models.bundle.read import Bundle
from models.engines import onnx
from models.engines.choice import choose_engine, load_engine
from models.engines.onnx_bert import _rounded, bert_graph
from tests.models.engines.networks import draw_tokens, make_config, make_weights

CONFIG = make_config(hidden=64, layers=2, heads=4, classes=3)
TOKENS = draw_tokens(CONFIG, [3, 7, 7, 20, 40], 0)


def logits(precision: str) -> np.ndarray:
    return load_engine(choose_engine("onnx"), CONFIG, make_weights(CONFIG, 1), precision).logits(TOKENS)  # type: ignore[arg-type]


def test_int8_is_near_to_float32_and_not_the_same() -> None:
    exact, rounded = logits("float32"), logits("int8")
    assert 1e-5 < np.abs(rounded - exact).max() < 0.05 * exact.std()


def test_unsigned_weights_answer_to_the_bit_as_signed_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    signed = logits("int8")
    monkeypatch.setattr(onnx, "signed_products_overflow", lambda: True)
    assert np.array_equal(logits("int8"), signed)


def test_the_overflow_is_looked_for_in_products_that_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    class Saturating:
        def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            return [np.full((len(inputs["codes"]), 16), 32767 * 32, np.float32)]

    onnx.signed_products_overflow.cache_clear()
    monkeypatch.setattr(onnx, "session", lambda *_: Saturating())
    assert onnx.signed_products_overflow()
    onnx.signed_products_overflow.cache_clear()
    monkeypatch.undo()
    # Whatever this processor says, it does not change.
    assert onnx.signed_products_overflow() == onnx.signed_products_overflow()


def test_no_weight_moves_by_more_than_half_a_scale() -> None:
    matrix = np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32)
    matrix[3] = 0
    codes, scales = _rounded(matrix)
    assert codes.dtype == np.int8
    assert codes.min() >= -127
    assert np.abs(codes * scales[:, None] - matrix).max(axis=1) == pytest.approx(scales / 2, rel=0.5)
    assert np.abs(codes * scales[:, None] - matrix).max() <= scales.max() / 2 * 1.001
    assert not codes[3].any()


def test_rows_of_zeros_give_numbers() -> None:
    weights = {name: np.zeros_like(value) for name, value in make_weights(CONFIG, 0).items()}
    for precision in ("float32", "int8"):
        engine = load_engine(choose_engine("onnx"), CONFIG, dict(weights), precision)  # type: ignore[arg-type]
        assert np.array_equal(engine.logits(TOKENS), np.zeros((5, 3)))


def test_a_graph_is_small_and_the_same_each_time() -> None:
    first, second = (bert_graph_bytes() for _ in range(2))
    assert first == second
    assert len(first) < 40_000


def bert_graph_bytes() -> bytes:
    from models.bert.config import BertConfig

    return bert_graph(BertConfig.from_dict(CONFIG), make_weights(CONFIG, 0)).serialize()


def test_a_bundle_is_loaded_without_mlx(tiny_bundle: Bundle) -> None:
    code = (
        "import sys; sys.modules['mlx'] = None; from models.predictor import Predictor; "
        f"print(Predictor.load({str(tiny_bundle.folder)!r}, engine='onnx').logits(['third class man']).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "(1, 2)"), done.stderr
