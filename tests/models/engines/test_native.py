"""The kernels of bert.c: a text's logits to the last bit, int8 as it is written down, and where they are not for."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle.precisions import Precision
from models.engines.choice import choose_engine, load_engine
from models.engines.engine import EngineError
from models.engines.native import build
from tests.models.engines.networks import Weights, draw_tokens, make_config, make_weights, reference_logits

CONFIG = make_config(hidden=96, layers=3, heads=3, classes=3, intermediate_size=192)
TOKENS = draw_tokens(CONFIG, [3, 1, 7, 7, 16, 17, 40, 6, 5, 4, 2, 33, 32, 31], 0)
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
here = pytest.mark.skipif(build.unavailable() is not None, reason=f"no kernels here: {build.unavailable()}")


def load(precision: Precision = "float32", threads: int = 2, weights: Weights | None = None) -> Any:
    chosen = choose_engine("native", CONFIG)
    return load_engine(chosen, CONFIG, dict(weights or make_weights(CONFIG, 1)), precision, threads=threads)


@here
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_text_has_the_same_bits_by_itself_and_in_any_company_on_any_number_of_threads(precision: Precision) -> None:
    alone = np.concatenate([load(precision, 1)._batch([ids]) for ids in TOKENS])
    rng = np.random.default_rng(0)
    for threads in (1, 2, 3, 5):
        engine = load(precision, threads)
        assert np.array_equal(engine._together(TOKENS), alone)
        assert np.array_equal(engine._in_batches(TOKENS, threads), alone)
        for rows in (1, 2, 6, 30):
            chosen = rng.integers(0, len(TOKENS), rows)
            company = [TOKENS[row] for row in chosen]
            for compute in (engine._together, engine._batch, engine.logits):
                assert np.array_equal(compute(company), alone[chosen])


@here
@pytest.mark.parametrize("precision", PRECISIONS)
def test_several_calls_at_once_answer_as_one_after_the_other(precision: Precision) -> None:
    engine, other = load(precision), load(precision)
    texts = [draw_tokens(CONFIG, [3 + seed, 20, 40] * (1 + seed % 3), seed) for seed in range(24)]
    wanted = [engine.logits(own) for own in texts]
    with ThreadPoolExecutor(4) as threads:
        for each in (engine.logits, other.logits, other._together):
            for mine, own in zip(threads.map(each, texts), wanted, strict=True):
                assert np.array_equal(mine, own)


@here
def test_int8_is_what_it_is_written_down_to_be() -> None:
    weights = make_weights(CONFIG, 1)
    exact, found = (load(precision, weights=weights).logits(TOKENS) for precision in PRECISIONS)
    expected = np.stack([reference_logits(CONFIG, weights, ids, int8=True) for ids in TOKENS])
    off = np.abs(found - expected).max(axis=1)
    # Where a float32 and a float64 are rounded to two codes that are neighbours, what follows differs.
    assert np.median(off) < 1e-5
    assert off.max() < 0.2 * np.abs(found - exact).max()
    assert np.abs(found - exact).max() > 1e-3


@here
def test_large_numbers_saturate_as_they_should() -> None:
    weights = make_weights(CONFIG, 2)
    for name in weights:
        if ".query." in name or ".key." in name or ".intermediate." in name:
            weights[name] = weights[name] * np.float32(40)
    found = load(weights=weights).logits(TOKENS)
    expected = np.stack([reference_logits(CONFIG, weights, ids) for ids in TOKENS])
    assert np.abs(found - expected).max() < 2e-3


@here
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("part", ["query.weight", "intermediate.dense.weight", "pooler.dense.weight"])
def test_what_overflows_gives_no_number(part: str, precision: Precision) -> None:
    weights = make_weights(CONFIG, 0)
    for name in weights:
        if part in name:
            weights[name] = np.full_like(weights[name], 3e38)
            weights[name][::2] *= -1
    logits = load(precision, weights=weights).logits(TOKENS)
    # tanh brings the pooler's back.
    assert np.isfinite(logits).all() == (part == "pooler.dense.weight") or not np.isfinite(logits).all()


@here
def test_zeros_give_zeros() -> None:
    weights = {name: np.zeros_like(value) for name, value in make_weights(CONFIG, 0).items()}
    for precision in PRECISIONS:
        assert np.array_equal(load(precision, weights=weights).logits(TOKENS), np.zeros((len(TOKENS), 3)))


@here
def test_a_text_of_more_tokens_than_there_are_places_is_refused() -> None:
    with pytest.raises(ValueError, match="a text has 41 tokens; at most 40 have places"):
        load().logits([[1] * 41])


@here
@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"hidden": 40, "heads": 5}, "hidden_size is 40, and no multiple of 16"),
        ({"hidden": 96, "heads": 12}, "hidden_size / num_attention_heads is 8, and no multiple of 16"),
        ({"hidden": 96, "heads": 3}, "intermediate_size is 193, and no multiple of 64"),
    ],
)
def test_networks_of_other_widths_are_left_to_onnx_runtime(more: dict[str, int], told: str) -> None:
    config = make_config(layers=1, classes=2, **more)
    chosen = choose_engine("auto", config)
    assert (chosen.engine, chosen.reason) == ("onnx", f"no GPU for MLX, and no AVX-512 kernels: {told}")
    with pytest.raises(EngineError, match=told):
        choose_engine("native", config)


def test_they_are_compiled_once_for_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("cc") is None or build.library().suffix != ".so":
        pytest.skip("no C compiler here")
    source = tmp_path / "bert.c"
    source.write_bytes(build.SOURCE.read_bytes())
    monkeypatch.setattr(build, "SOURCE", source)
    first = build.build()
    if first is None:
        pytest.skip("another processor's architecture")
    made = first.stat().st_mtime_ns
    assert build.build() == first
    assert first.stat().st_mtime_ns == made
    source.write_text(source.read_text() + "/* changed */\n")
    assert not build.library().exists()
    second = build.build()
    assert second is not None
    assert sorted(tmp_path.iterdir()) == sorted([source, second])


def test_without_a_compiler_or_with_a_fault_nothing_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "SOURCE", tmp_path / "bert.c")
    build.SOURCE.write_text("this is no C\n")
    assert build.build() is None
    monkeypatch.setenv("CC", "no-such-compiler")
    assert build.build() is None
    assert [path.name for path in tmp_path.iterdir()] == ["bert.c"]
    assert build.unavailable() is not None


def test_a_processor_without_the_instructions_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.sys, "platform", "linux")
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build, "_processor_flags", lambda: {"avx512f", "avx512bw", "avx512dq", "avx512vl"})
    assert build.unavailable() == "the processor has no AVX512-VNNI"
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    assert build.unavailable() == "this is no Linux on x86-64"
