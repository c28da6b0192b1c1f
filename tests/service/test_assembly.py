"""What the start-up line says of the engine, and of what fewer bits would gain."""

import logging

import msgspec
import pytest

from models.bundle.precisions import Precisions
from models.bundle.read import Bundle
from models.engines.engine import Backend
from service.assembly import announce
from tests.service.inference.test_batcher import Echo
from tests.tiny import GOOD, MEASURED

ON_CPU = msgspec.structs.replace(MEASURED, device="cpu")
REFUSED = msgspec.structs.replace(ON_CPU, log_loss=msgspec.structs.replace(GOOD, high=1.0))
ONNX = Backend(engine="onnx", version="1.32.0", device="cpu", threads=2, reason="no GPU", offered=("float32", "int8"))
MLX = Backend(
    engine="mlx", version="0.32.4", device="cpu", threads=2, blas="openblas-zen", gflops=123.4,
    warning="slow",
)  # fmt: skip


def said(bundle: Bundle, backend: Backend, caplog: pytest.LogCaptureFixture, *measured: object) -> list[str]:
    predictor = Echo(msgspec.structs.replace(bundle, precisions=Precisions(measured)))  # type: ignore[arg-type]
    predictor.backend = backend
    caplog.clear()
    with caplog.at_level(logging.INFO, "evenkeel"):
        announce(predictor, "http://here")
    return [record.getMessage() for record in caplog.records]


def test_it_names_the_engine_its_reason_and_its_threads(tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture) -> None:
    serves = f"ready: http://here/v1/model serves tiny version {tiny_bundle.version} by"
    assert said(tiny_bundle, ONNX, caplog) == [
        f"{serves} ONNX Runtime 1.32.0 (no GPU) on cpu, 2 threads, float32 weights"
    ]
    assert said(tiny_bundle, MLX, caplog) == [
        "slow",
        f"{serves} MLX 0.32.4 (as asked for) on cpu, BLAS openblas-zen at 123 GFLOP/s, 2 threads, float32 weights",
    ]


def test_it_says_what_fewer_bits_would_gain_where_they_may_be_served(
    tiny_bundle: Bundle, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = said(tiny_bundle, ONNX, caplog, ON_CPU)
    assert line.endswith(
        "; --precision int8 would be about twice as fast on a CPU, a quarter of the memory, and was measured to change "
        "the log loss by +0.0010"
    )
    for backend, measured in (
        (ONNX, REFUSED), (ONNX, MEASURED), (MLX, ON_CPU), (msgspec.structs.replace(ONNX, precision="int8"), ON_CPU)
    ):  # fmt: skip
        assert "--precision" not in said(tiny_bundle, backend, caplog, measured)[-1]
