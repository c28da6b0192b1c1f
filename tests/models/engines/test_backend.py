"""The BLAS under MLX: chosen, checked, and never a reason not to start."""

import sys

import mlx.core as mx
import numpy as np
import pytest

from models.engines import backend


def test_products_equal_numpy_after_preparation() -> None:
    prepared = backend.prepare()
    rng = np.random.default_rng(1)
    for m, k, n in ((1, 1, 1), (3, 384, 5), (64, 384, 1536), (200, 33, 7)):
        a, b = rng.standard_normal((m, k)).astype(np.float32), rng.standard_normal((k, n)).astype(np.float32)
        assert np.allclose(np.array(mx.array(a) @ mx.array(b)), a.astype(float) @ b, atol=1e-3)
    assert prepared.threads >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="the reference BLAS is in the Linux wheel only")
def test_a_tuned_blas_serves_on_linux() -> None:
    prepared = backend.prepare()
    assert prepared.blas.startswith("openblas-")
    assert prepared.gflops > 0


@pytest.mark.skipif(sys.platform != "linux", reason="the reference BLAS is in the Linux wheel only")
@pytest.mark.parametrize("fault", [LookupError("libmlx has no slot"), OSError("no such library"), ValueError("wrong")])
def test_without_it_the_plain_wheel_serves_with_a_warning(monkeypatch: pytest.MonkeyPatch, fault: Exception) -> None:
    def broken(_: int) -> str:
        raise fault

    monkeypatch.setattr(backend, "_use_openblas", broken)
    prepared = backend.prepare()
    assert prepared.blas == "wheel"
    assert prepared.warning is not None
    assert str(fault) in prepared.warning


@pytest.mark.skipif(sys.platform != "linux", reason="the reference BLAS is in the Linux wheel only")
def test_a_blas_with_wrong_products_is_taken_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter([False])
    monkeypatch.setattr(backend, "_products_are_right", lambda: next(verdicts))
    assert backend.prepare().blas == "wheel"
    monkeypatch.undo()
    assert backend._products_are_right()
    assert backend.prepare().blas.startswith("openblas-")
