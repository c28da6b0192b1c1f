"""Fused kernels: compiled for this processor in a folder of this user's, or left out."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest

from models.bert import kernels


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    kernels.fused.cache_clear()
    kernels._compiler.cache_clear()
    yield tmp_path / "evenkeel"
    kernels.fused.cache_clear()
    kernels._compiler.cache_clear()


def libraries(folder: Path) -> list[Path]:
    return list(folder.rglob("*.so"))


def test_a_kernel_is_kept_for_the_next_process_and_is_this_users_alone(cache: Path) -> None:
    # Constants that no other test has, so that MLX does not know the kernel already.
    kernel = kernels.fused(lambda x: x * 0.61803 + x * x * 1.41421)
    x = np.linspace(-3, 3, 1001, dtype=np.float32)
    assert np.allclose(np.array(kernel(mx.array(x))), x * 0.61803 + x * x * 1.41421, atol=1e-5)
    (library,) = libraries(cache)
    folder = next(iter(cache.iterdir()))
    assert not stat.S_IMODE(folder.stat().st_mode) & 0o077
    assert library.is_relative_to(folder)


def test_the_environment_is_as_before() -> None:
    before = dict(os.environ)
    with kernels.native_compiler(), kernels.native_compiler():
        assert os.environ["PATH"] != before["PATH"]
    assert dict(os.environ) == before


def test_a_folder_that_others_may_write_is_not_used(cache: Path) -> None:
    with kernels.native_compiler():
        pass
    folder = next(iter(cache.iterdir()))
    folder.chmod(0o777)
    kernel = kernels.fused(lambda x: x * 0.57721 + x * x * 2.71828)
    assert np.allclose(np.array(kernel(mx.full((4,), 2.0))), 2 * 0.57721 + 4 * 2.71828)
    assert not libraries(cache)


def test_without_a_place_to_write_kernels_are_made_for_the_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    kernel = kernels.fused(lambda x: x * 0.30103 + x * x * 1.20205)
    assert np.allclose(np.array(kernel(mx.full((4,), 2.0))), 2 * 0.30103 + 4 * 1.20205)
    assert not libraries(tmp_path)


def test_without_a_compiler_an_expression_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    def expression(x: mx.array) -> mx.array:
        return x * x + 3.0

    assert kernels.fused(expression) is expression
    assert kernels.compiler() == "none"


def test_a_compiler_that_fails_is_done_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "bin" / "g++"
    broken.parent.mkdir()
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo broken && exit 0\nexit 1\n')
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")

    def expression(x: mx.array) -> mx.array:
        return x * 0.91596 + x * x

    assert kernels.fused(expression) is expression


def test_a_kernel_that_comes_out_wrong_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compiler that turns products into sums."""
    real = kernels._compiler()
    assert real is not None
    wrong = tmp_path / "bin" / "g++"
    wrong.parent.mkdir()
    change = """for one; do case "$one" in *.cpp) sed -i 's/Multiply()(/Add()(/' "$one" ;; esac; done"""
    wrong.write_text(f'#!/bin/sh\n{change}\nexec {real[0]} "$@"\n')
    wrong.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrong.parent}:{os.environ['PATH']}")
    kernels._compiler.cache_clear()

    def expression(x: mx.array) -> mx.array:
        return x * 0.26149 + x * x

    assert kernels.fused(expression) is expression
    with kernels.native_compiler():
        assert np.array(mx.compile(expression)(mx.full((4,), 2.0)))[0] != pytest.approx(2 * 0.26149 + 4)
