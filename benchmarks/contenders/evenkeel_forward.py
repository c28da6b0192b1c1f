"""Evenkeel's own forward pass on each engine and in each precision, and MLX on its wheel as it comes."""

from pathlib import Path

from benchmarks.contenders.forward import Forward
from models.bundle.precisions import FULL, Precision
from models.bundle.read import open_bundle
from models.engines import mlx
from models.engines.choice import EngineChoice, choose_engine, load_engine
from models.engines.engine import Backend, usable_cores
from models.engines.logit_cache import LogitCache
from models.prediction import positive_logits
from models.predictor import Predictor


def evenkeel(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, FULL)


def on_mlx(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, FULL, "mlx")


def on_onnx(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, FULL, "onnx")


def float16(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, "float16")


def bfloat16(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, "bfloat16")


def int8(bundle: Path, _: int | None) -> tuple[str, Forward]:
    return _rounded(bundle, "int8")


def _rounded(bundle: Path, precision: Precision, engine: EngineChoice = "auto") -> tuple[str, Forward]:
    """The bundle in a precision, measured or not."""
    opened = open_bundle(bundle)
    chosen = choose_engine(engine, opened.bundle.config)
    chosen.check(precision)
    loaded = load_engine(chosen, opened.bundle.config, opened.weights, precision)
    predictor = Predictor(opened.bundle, loaded, opened.tokenizer, LogitCache(0))
    predictor.warm_up()
    return f"models.predictor.Predictor without cache, {predictor.backend.describe()}", _positive(predictor)


def wheel(bundle: Path, _: int | None) -> tuple[str, Forward]:
    """The same code without the tuned BLAS and the kept memory of models/engines/backend.py."""
    untuned = Backend(engine="mlx", version="", device="cpu", blas="wheel", threads=usable_cores())
    mlx.prepare = lambda threads=None: untuned
    return "the same code on the BLAS in MLX's wheel", _rounded(bundle, FULL, "mlx")[1]


def _positive(predictor: Predictor) -> Forward:
    return lambda texts: positive_logits(predictor.logits(texts))
