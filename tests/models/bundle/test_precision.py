"""Fewer bits: near to float32, and served only where they gain something and a measurement accepts them."""

from pathlib import Path

import mlx.core as mx
import msgspec
import numpy as np
import pytest

from models import predictor
from models.bert import operators
from models.bert.classifier import BertClassifier, load_classifier
from models.bundle.manifest import BundleError
from models.bundle.precisions import PRECISIONS, Precision, Precisions
from models.bundle.read import Bundle, open_bundle
from models.bundle.write import write_bundle
from models.engines.backend import prepare
from models.engines.choice import EngineChoice, choose_engine
from models.engines.engine import Chosen, EngineError
from models.predictor import Predictor
from models.text import Renderer
from tests.tiny import GOOD, MEASURED, ORIGIN, Contents
from training.data.table import Table

MAX_CHANGE = {"float16": 6e-3, "bfloat16": 6e-2, "int8": 15e-2}
"""Of the test bundle's logits, whose standard deviation is about 1."""


def model(folder: Path, precision: str) -> BertClassifier:
    bundle, _, weights = open_bundle(folder)
    return load_classifier(bundle.config, weights, precision)


def pairs(model: BertClassifier, folder: Path, table: Table, rows: int) -> np.ndarray:
    """Logits (rows, 2) of a padded batch."""
    opened = open_bundle(folder)
    renderer = Renderer(opened.bundle.schema)
    ids, mask = opened.tokenizer([renderer(row, opened.bundle.known) for row in table.rows[:rows]])
    assert not mask.all()
    found = model(mx.array(ids), mx.array(mask))
    assert found.dtype == mx.float32
    return np.array(found)


@pytest.mark.parametrize("precision", MAX_CHANGE)
def test_logits_are_near_to_those_in_float32(
    precision: str, bundle_folder: Path, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare()
    exact = pairs(model(bundle_folder, "float32"), bundle_folder, table, 8)
    # The form of the operators that a GPU gets, in which halves are multiplied as halves.
    monkeypatch.setattr(operators, "on_gpu", lambda: True)
    lower = pairs(model(bundle_folder, precision), bundle_folder, table, 8)
    assert 1e-6 < np.abs(lower - exact).max() < MAX_CHANGE[precision]


def test_a_wholly_padded_row_gives_a_number_in_half_precision(
    bundle_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operators, "on_gpu", lambda: True)
    half, mask = model(bundle_folder, "float16"), mx.array([[1, 1, 1], [0, 0, 0]])
    assert np.isfinite(np.array(half(mx.array([[101, 2353, 102], [101, 2353, 102]]), mask))).all()


def test_float32_needs_no_measurement_and_all_else_does(
    tiny_contents: Contents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {name: content for name, content in tiny_contents.items() if name != "precisions.json"}
    folder = write_bundle(tmp_path / "unmeasured", contents, ORIGIN).folder
    assert Predictor.load(folder).backend.precision == "float32"
    for device in ("cpu", "cuda"):
        chosen = Chosen(engine="mlx", device=device, precisions=PRECISIONS, reason="")
        monkeypatch.setattr(predictor, "choose_engine", lambda *_, chosen=chosen: chosen)
        for precision in PRECISIONS[1:]:
            with pytest.raises(
                BundleError, match=rf"precisions\.json: {precision} was not measured on {device}: python"
            ):
                Predictor.load(folder, precision=precision)


@pytest.mark.parametrize(("engine", "precision"), [("mlx", "int8"), ("onnx", "float16")])
def test_a_precision_without_gain_is_not_offered(
    engine: EngineChoice, precision: Precision, tiny_bundle: Bundle
) -> None:
    if choose_engine(engine).device != "cpu":
        pytest.skip("a GPU gains by it")
    with pytest.raises(EngineError, match=rf"{precision}: with .* on cpu there (is|are) float32"):
        Predictor.load(tiny_bundle.folder, precision=precision, engine=engine)


def test_what_was_measured_elsewhere_or_refused_is_not_served() -> None:
    kept = Precisions((MEASURED,))
    assert kept.refusal("int8", "cuda") is None
    assert kept.refusal("float32", "metal") is None
    assert "int8 was not measured on cpu" in str(kept.refusal("int8", "cpu"))
    assert "int8 was not measured on metal" in str(kept.refusal("int8", "metal"))
    assert "float16 was not measured on cuda" in str(kept.refusal("float16", "cuda"))
    bad = msgspec.structs.replace(MEASURED, calibration_error=msgspec.structs.replace(GOOD, high=0.0051))
    refusal = Precisions((bad,)).refusal("int8", "cuda")
    assert refusal == (
        "int8 was measured on cuda and refused: calibration error is worse by 0.0010 ± 0.0010 on 600 rows; the end of "
        "the 95 % interval, 0.0051, is past the margin of 0.005"
    )


@pytest.mark.parametrize("high", [0.006, float("nan"), float("inf")])
def test_a_log_loss_past_its_margin_or_no_number_is_refused(high: float) -> None:
    one = msgspec.structs.replace(MEASURED, log_loss=msgspec.structs.replace(GOOD, high=high))
    assert "log loss is worse by 0.0010" in str(one.refusal)
    exactly = msgspec.structs.replace(MEASURED, log_loss=msgspec.structs.replace(GOOD, high=0.005))
    assert exactly.refusal is None


def test_a_new_measurement_takes_the_place_of_the_old_one() -> None:
    again, other = msgspec.structs.replace(MEASURED, rows=700), msgspec.structs.replace(MEASURED, device="metal")
    assert Precisions((MEASURED, other)).with_measured(again).measured == (other, again)
