"""The kernels of bert.c: a text's logits to the last bit, int8 as it is written down, and where they are not for."""

import ctypes
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle.precisions import Precision
from models.engines.choice import choose_engine
from models.engines.engine import EngineError
from models.engines.native import build, engine
from models.engines.native.engine import Kernels, NativeEngine
from tests.conftest import ROOT
from tests.models.engines.networks import (
    Weights,
    draw_tokens,
    make_config,
    make_distilbert_config,
    make_weights,
    reference_logits,
)

CONFIG = make_config(hidden=128, layers=3, heads=4, classes=3, intermediate_size=192)
TOKENS = draw_tokens(CONFIG, [3, 1, 7, 7, 16, 17, 40, 6, 5, 4, 2, 33, 32, 31], 0)
PRECISIONS: tuple[Precision, ...] = ("float32", "int8")
HERE = [name for name, flags in build.VARIANTS.items() if build._processor_flags().issuperset(flags)]
VARIANTS = [] if build.unavailable() else HERE
"""Kinds of processors whose kernels this one can run."""
COMPILERS = [name for name in ("gcc", "clang") if VARIANTS and shutil.which(name)]
here = pytest.mark.skipif(not VARIANTS, reason=f"no kernels here: {build.unavailable()}")


def load(
    precision: Precision = "float32", threads: int = 2, weights: Weights | None = None, variant: str | None = None
) -> NativeEngine:
    chosen = choose_engine("native", CONFIG)
    return NativeEngine(CONFIG, dict(weights or make_weights(CONFIG, 1)), chosen, precision, threads, variant)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_text_has_the_same_bits_by_itself_and_in_any_company_on_any_number_of_threads(
    precision: Precision, variant: str
) -> None:
    one = load(precision, 1, variant=variant)
    alone = np.concatenate([one._batch([ids]) for ids in TOKENS])
    rng = np.random.default_rng(0)
    for threads in (1, 2, 3, 5):
        engine = load(precision, threads, variant=variant)
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


@pytest.mark.parametrize("variant", VARIANTS)
def test_int8_is_what_it_is_written_down_to_be(variant: str) -> None:
    weights = make_weights(CONFIG, 1)
    exact, found = (load(precision, weights=weights, variant=variant).logits(TOKENS) for precision in PRECISIONS)
    expected = np.stack([reference_logits(CONFIG, weights, ids, int8=True) for ids in TOKENS])
    off = np.abs(found - expected).max(axis=1)
    # Where a float32 and a float64 are rounded to two codes that are neighbours, what follows differs.
    assert np.median(off) < 1e-5
    assert off.max() < 0.2 * np.abs(found - exact).max()
    assert np.abs(found - exact).max() > 1e-3


@pytest.mark.parametrize("variant", VARIANTS)
def test_large_numbers_saturate_as_they_should(variant: str) -> None:
    weights = make_weights(CONFIG, 2)
    for name in weights:
        if ".query." in name or ".key." in name or ".intermediate." in name:
            weights[name] = weights[name] * np.float32(40)
    found = load(weights=weights, variant=variant).logits(TOKENS)
    expected = np.stack([reference_logits(CONFIG, weights, ids) for ids in TOKENS])
    assert np.abs(found - expected).max() < 2e-3


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("part", ["query.weight", "value.weight", "q_lin.weight", "intermediate.dense.weight"])
@pytest.mark.parametrize("config", [CONFIG, make_distilbert_config(128, 2, 4, 3, hidden_dim=192)])
def test_what_overflows_gives_no_number(config: dict[str, Any], part: str, precision: Precision, variant: str) -> None:
    weights = make_weights(config, 0)
    there = [name for name in weights if part in name]
    for name in there:  # Of one head alone, where it is about heads.
        weights[name][:32] = np.where(weights[name][:32] < 0, np.float32(-3e38), np.float32(3e38))
    engine = NativeEngine(config, weights, choose_engine("native", config), precision, 2, variant)
    # A text of one token has nothing to compare.
    assert np.isfinite(engine.logits(TOKENS[2:])).all() == (not there)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_largest_codes_are_multiplied_exactly(variant: str) -> None:
    """Where products are added up in 16 bits, those of 8 and 7 bits must not leave them."""
    config = {**CONFIG, "num_hidden_layers": 1}
    weights = {name: np.zeros_like(value) for name, value in make_weights(config, 0).items()}
    weights["bert.embeddings.LayerNorm.bias"][:] = 2
    weights["bert.encoder.layer.0.attention.self.value.weight"][:] = 3
    engine = NativeEngine(config, weights, choose_engine("native", config), "int8", 1, variant)
    engine.logits([[1, 2, 3]])
    wide = ctypes.cast(engine._workspaces.own.call.wide, ctypes.POINTER(ctypes.c_float * (3 * 3 * 128))).contents
    # Queries, keys and values of three tokens: the last value is not written over.
    assert list(wide)[-128:] == pytest.approx([2 * 3 * 128] * 128, rel=1e-6)


@here
def test_who_finds_the_team_busy_computes_alone_and_the_same() -> None:
    engine = load()
    wanted = engine.logits(TOKENS[:2])
    with engine._team.lock:
        assert np.array_equal(engine.logits(TOKENS[:2]), wanted)


FORKING = """
import os
from tests.models.engines.test_native import TOKENS, load

wanted = load().logits(TOKENS).tolist()
child = os.fork()
if child == 0:
    os._exit(0 if load().logits(TOKENS).tolist() == wanted else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@here
def test_a_child_of_a_fork_loads_again_and_computes() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr


@here
def test_zeros_give_zeros() -> None:
    weights = {name: np.zeros_like(value) for name, value in make_weights(CONFIG, 0).items()}
    for precision in PRECISIONS:
        assert np.array_equal(load(precision, weights=weights).logits(TOKENS), np.zeros((len(TOKENS), 3)))


@here
def test_a_text_of_more_tokens_than_there_are_places_is_refused() -> None:
    with pytest.raises(ValueError, match="a text has 41 tokens; at most 40 have positions"):
        load().logits([[1] * 41])


@here
@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"hidden": 36, "heads": 6}, "hidden_size is 36, and no multiple of "),
        ({"hidden": 128, "heads": 32}, "hidden_size / num_attention_heads is 4, and no multiple of "),
        ({"hidden": 128, "heads": 4}, "intermediate_size is 257, and no multiple of "),
    ],
)
def test_networks_of_other_widths_are_left_to_onnx_runtime(more: dict[str, int], told: str) -> None:
    config = make_config(layers=1, classes=2, **more)
    chosen = choose_engine("auto", config)
    assert chosen.engine == "onnx"
    assert chosen.reason.startswith(f"no GPU for MLX, and no native kernels: {told}")
    with pytest.raises(EngineError, match=told):
        choose_engine("native", config)


def test_they_are_compiled_once_for_each_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "bert.c"
    source.write_bytes(build.SOURCE.read_bytes())
    monkeypatch.setattr(build, "SOURCE", source)
    monkeypatch.setattr(build, "library", build.library.__wrapped__)
    try:
        first = build.build()
    except build.BuildError as error:
        pytest.skip(str(error))
    if not first:
        pytest.skip("another processor's architecture")
    made = [path.stat().st_mtime_ns for path in first]
    assert build.build() == first
    assert [path.stat().st_mtime_ns for path in first] == made
    source.write_text(source.read_text() + "/* changed */\n")
    assert not any(build.library(kind).exists() for kind in build.VARIANTS)
    second = build.build()
    assert sorted(tmp_path.iterdir()) == sorted([source, *second])
    assert len(second) == len(build.VARIANTS)


@pytest.mark.skipif(not COMPILERS, reason="no C compiler that is known by name")
@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_compiler_makes_the_same_of_them(
    precision: Precision, compiler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    for variant in VARIANTS:
        expected = load(precision, variant=variant).logits(TOKENS)
        made = Kernels(build.compile_library(variant, tmp_path / f"bert-{variant}-{compiler}.so"))
        with monkeypatch.context() as patched:
            patched.setattr(engine, "kernels", lambda _=None, made=made: made)
            found = load(precision, variant=variant)
        assert found.backend.version == f"{variant}-{compiler}"
        assert np.array_equal(found.logits(TOKENS), expected)


@here
@pytest.mark.parametrize(
    ("compiler", "told"),
    [
        ("no-such-compiler -O3", "there is no C compiler no-such-compiler; CC may name one"),
        ('cc "', "CC cannot be read: No closing quotation"),
        ("false", "false failed: it ended without a word"),
        ("sh -c 'echo \\377 why >&2; exit 1'", "sh failed: .* why"),
        ("true", ".* failed: .*No such file"),
        ("cc -c", ".* failed: .*only ET_DYN and ET_EXEC can be loaded"),
        ("cc -DLANES=x", "cc failed: .*error"),
    ],
)
def test_without_a_compiler_that_makes_them_it_is_said_why_and_nothing_is_left(
    compiler: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if compiler.startswith("cc ") and not shutil.which("cc"):
        pytest.skip("no C compiler")
    monkeypatch.setattr(build, "SOURCE", Path(shutil.copy(build.SOURCE, tmp_path)))
    monkeypatch.setattr(build, "library", build.library.__wrapped__)
    monkeypatch.setenv("CC", compiler)
    assert build.main() == 1
    assert re.search(f"so ONNX Runtime serves: {told}", capsys.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["bert.c"]
    assert "not compiled" in str(build.unavailable())


@here
def test_a_library_that_is_not_whole_is_not_loaded_and_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build.library(VARIANTS[0]).read_bytes()
    monkeypatch.setattr(build, "SOURCE", Path(shutil.copy(build.SOURCE, tmp_path)))
    monkeypatch.setattr(build, "library", build.library.__wrapped__)
    library = build.library(VARIANTS[0])
    for content in (b"", b"this is no library, though it is longer than the head of one is" * 9, whole[:-1]):
        library.write_bytes(content)
        assert "not compiled" in str(build.unavailable())
    if shutil.which("cc"):
        build.build()
        assert build.unavailable() is None


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        ("fpu sse2 avx2 fma avx512f avx512bw avx512dq avx512vl avx512_vnni", "avx512"),
        ("fpu sse2 avx2 fma avx512f avx512bw avx512dq avx512vl", "avx2"),
        ("fpu sse2 avx2 fma avx_vnni", "avx2"),
        ("fpu sse2 avx", None),
    ],
)
def test_a_processor_gets_what_it_can_run(flags: str, kind: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.sys, "platform", "linux")
    monkeypatch.setattr(build.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(build, "_processor_flags", lambda: set(flags.split()))
    monkeypatch.setattr(build, "variant", build.variant.__wrapped__)
    assert build.variant() == kind
    if kind is None:
        assert build.unavailable() == "the processor has no AVX2"
    monkeypatch.setattr(build.platform, "machine", lambda: "aarch64")
    assert (build.variant(), build.unavailable()) == (None, "this is no Linux on x86-64")
