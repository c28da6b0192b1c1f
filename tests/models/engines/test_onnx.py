"""Whole numbers in place of float32: near to it, the same on every processor, and safe where one would overflow."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from models.bert.config import BertConfig
from models.bundle.read import Bundle
from models.engines.choice import choose_engine, load_engine
from models.engines.onnx import engine as onnx
from models.engines.onnx.graph import bert_graphs
from models.engines.onnx.proto import CONTRIB, Graph
from models.engines.rounding import MAX_WEIGHT_CODE, rounded
from tests.models.engines.networks import draw_tokens, make_config, make_weights

CONFIG = make_config(hidden=64, layers=2, heads=4, classes=3)
TOKENS = draw_tokens(CONFIG, [3, 7, 7, 20, 40], 0)


def logits(precision: str) -> np.ndarray:
    return load_engine(choose_engine("onnx"), CONFIG, make_weights(CONFIG, 1), precision).logits(TOKENS)  # type: ignore[arg-type]


def test_int8_is_near_to_float32_and_not_the_same() -> None:
    exact, rounded = logits("float32"), logits("int8")
    assert 1e-5 < np.abs(rounded - exact).max() < 0.05 * exact.std()


def test_products_of_whole_numbers_are_exact_at_their_largest_on_every_processor() -> None:
    graph = Graph()
    codes = graph.input("codes", "uint8", ("B", 64))
    weights = graph.weight("weights", np.full((64, 16), MAX_WEIGHT_CODE, np.int8))
    one, zero = graph.constant(np.ones((), np.float32)), graph.constant(np.zeros((), np.uint8))
    product = graph.add("MatMulIntegerToFloat", codes, weights, one, one, zero, domain=CONTRIB)
    graph.output(product, "float32", ("B", 16))
    found = onnx.session(graph, 1).run(None, {"codes": np.full((8, 64), 255, np.uint8)})[0]
    assert (found == 255 * MAX_WEIGHT_CODE * 64).all()


def test_several_calls_at_once_answer_as_one_after_the_other() -> None:
    for precision in ("float32", "int8"):
        engine = load_engine(choose_engine("onnx"), CONFIG, make_weights(CONFIG, 1), precision, threads=2)  # type: ignore[arg-type]
        assert engine.backend.parallel == 2
        texts = [draw_tokens(CONFIG, [3 + seed, 20, 40] * 4, seed) for seed in range(8)]
        with ThreadPoolExecutor(4) as threads:
            at_once = list(threads.map(engine.logits, texts))
        for own, mine in zip(texts, at_once, strict=True):
            assert np.abs(engine.logits(own) - mine).max() < 1e-5


def test_no_weight_moves_by_more_than_half_a_scale() -> None:
    matrix = np.random.default_rng(0).normal(size=(30, 50)).astype(np.float32)
    matrix[3] = 0
    codes, scales = rounded(matrix, MAX_WEIGHT_CODE)
    assert codes.dtype == np.int8
    assert codes.min() >= -MAX_WEIGHT_CODE
    assert np.abs(codes * scales[:, None] - matrix).max(axis=1) == pytest.approx(scales / 2, rel=0.5)
    assert np.abs(codes * scales[:, None] - matrix).max() <= scales.max() / 2 * 1.001
    assert not codes[3].any()


def test_rows_of_zeros_give_numbers() -> None:
    weights = {name: np.zeros_like(value) for name, value in make_weights(CONFIG, 0).items()}
    for precision in ("float32", "int8"):
        engine = load_engine(choose_engine("onnx"), CONFIG, dict(weights), precision)  # type: ignore[arg-type]
        assert np.array_equal(engine.logits(TOKENS), np.zeros((5, 3)))


def test_a_text_answers_alike_by_itself_on_all_cores_and_in_a_batch() -> None:
    for precision in ("float32", "int8"):
        engine = load_engine(choose_engine("onnx"), CONFIG, make_weights(CONFIG, 1), precision, threads=2)  # type: ignore[arg-type]
        assert isinstance(engine, onnx.OnnxEngine)
        one_by_one = engine._together(TOKENS)
        for cores in (1, 2):
            assert np.array_equal(engine._in_batches(TOKENS, cores), one_by_one)
        for row, ids in enumerate(TOKENS):
            assert np.array_equal(engine._in_batches([ids], 1)[0], one_by_one[row])
        assert np.array_equal(engine.logits(TOKENS[3:4]), one_by_one[3:4])
        assert engine.logits([]).shape == (0, 3)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_graphs_are_small_the_same_each_time_and_share_their_tensors(precision: str) -> None:
    first, second = (graphs(precision) for _ in range(2))
    assert [graph.serialize() for graph in first] == [graph.serialize() for graph in second]
    assert all(len(graph.serialize()) < 50_000 for graph in first)
    several, one = first
    assert several.weights.keys() == one.weights.keys()
    assert all(several.weights[name] is one.weights[name] for name in one.weights)


def graphs(precision: str) -> tuple[Graph, Graph]:
    weights = make_weights(CONFIG, 0)
    _, several, one = bert_graphs(BertConfig.from_dict(CONFIG), weights, precision)  # type: ignore[arg-type]
    assert not weights
    return several, one


def test_a_bundle_is_loaded_without_mlx(tiny_bundle: Bundle) -> None:
    code = (
        "import sys; sys.modules['mlx'] = None; from models.predictor import Predictor; "
        f"print(Predictor.load({str(tiny_bundle.folder)!r}, engine='onnx').logits(['third class man']).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "(1, 2)"), done.stderr
