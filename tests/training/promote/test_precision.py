"""The gate: what is rounded too far is refused with figures, what is good enough is served, float32 stays as it is."""

import csv
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import msgspec
import numpy as np
import pytest

import training.promote.precision
from loadtest.traffic.local_service import copy_bundle
from models import predictor
from models.bert import operators
from models.bert import quantization as rounding
from models.bundle.manifest import SELFTEST, STACKED, STACKED_WEIGHTS, BundleError
from models.bundle.precisions import PRECISIONS
from models.bundle.read import read_bundle
from models.engines import mlx
from models.engines.backend import prepare
from models.engines.choice import choose_engine
from models.engines.engine import NAMES, Chosen
from models.predictor import Predictor
from service.scoring.command import main as score
from tests.models.engines.networks import ON_A_CPU
from tests.service.test_real import start
from tests.training.commands import few_rows, run_here
from training.data.table import Table
from training.promote.precision import measure, record

LOWER = PRECISIONS[1:]
MARGINS = ("--log-loss-margin", "0.02", "--calibration-margin", "0.05")
"""Wider than the defaults, as the rows are few."""


@pytest.fixture(scope="module")
def unseen(table: Table) -> Table:
    """The rows that the tests' bundle was not trained on."""
    return Table(table.schema, table.rows[240:], table.labels[240:], "1" * 64)


@pytest.fixture(scope="module")
def gpu() -> Iterator[None]:
    """MLX on a CPU under the name of a GPU, with the operators that a GPU gets."""
    backend = msgspec.structs.replace(prepare(), device="cuda")
    chosen = Chosen(engine="mlx", device="cuda", precisions=PRECISIONS, reason="for its GPU")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operators, "on_gpu", lambda: True)
        patch.setattr(mlx, "prepare", lambda threads=None: backend)
        for module in (predictor, training.promote.precision):
            patch.setattr(module, "choose_engine", lambda *_: chosen)
        yield


@pytest.fixture(scope="module")
def measured(bundle_folder: Path, gpu: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with the command's measurement on a few rows: all accepted."""
    folder = tmp_path_factory.mktemp("measured")
    arguments = ("--bundle", bundle_folder, "--data", few_rows(folder / "few.csv"), *MARGINS)
    done = run_here("precision", *arguments, "--out", folder / "titanic")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": accepted\n") == len(LOWER)
    return folder / "titanic"


@pytest.mark.slow
def test_the_command_accepts_every_precision_and_says_how_far_it_is_off(measured: Path, bundle_folder: Path) -> None:
    found = {one.precision: one for one in read_bundle(measured).precisions.measured}
    assert set(found) == set(LOWER)
    for one in found.values():
        assert one.refusal is None
        assert (one.rows, one.training_rows, one.device) == (120, False, "cuda")
        assert abs(one.log_loss.value) < 0.005 < one.log_loss.margin == 0.02
        assert one.log_loss.high == pytest.approx(one.log_loss.value + 1.96 * one.log_loss.standard_error, rel=1e-3)
    changes = [found[precision].largest_logit_difference for precision in ("float16", "bfloat16", "int8")]
    assert 0 < changes[0] < changes[1] < changes[2]
    # Nothing else is changed: Hugging Face's tools read the same weights.
    before, after = read_bundle(bundle_folder).manifest, read_bundle(measured).manifest
    assert {**before.files, "precisions.json": after.files["precisions.json"]} == after.files
    assert after.origin == before.origin


@pytest.mark.slow
def test_what_was_accepted_is_served_and_scored(measured: Path, gpu: None, tmp_path: Path) -> None:
    rounded = Predictor.load(measured, precision="int8")
    assert rounded.backend.precision == "int8"
    probability = rounded.predict([{"pclass": 1, "sex": "female", "age": 38}])[0].probability
    source, scored = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text("Pclass,Sex,Age\n1,female,38\n")
    assert score([str(source), str(scored), "--bundle", str(measured), "--precision", "int8"]) == 0
    (row,) = csv.DictReader(scored.read_text().splitlines())
    assert float(row["probability"]) == pytest.approx(probability, abs=1e-6)
    # Another probability than in float32 and hardly another one; near 1e-6 it would not have been rounded at all.
    logits = [Predictor.load(measured, precision=one).logits(["third class man"])[0] for one in ("float32", "int8")]
    assert 1e-5 < np.abs(logits[0] - logits[1]).max() < 0.1


@pytest.mark.slow
@pytest.mark.skipif(mx.default_device().type == mx.DeviceType.gpu, reason="a GPU offers other precisions")
def test_on_a_cpu_int8_is_measured_and_served_and_no_other(
    bundle_folder: Path, unseen: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (predictor, training.promote.precision):
        monkeypatch.setattr(module, "choose_engine", choose_engine)
    (found,) = measure(bundle_folder, unseen)
    assert (found.precision, found.device, found.refusal) == ("int8", "cpu", None)
    assert 1e-5 < found.largest_logit_difference < 0.15
    out = record(bundle_folder, [found], tmp_path / "titanic").folder
    exact, rounded = (Predictor.load(out, precision=one) for one in ("float32", "int8"))
    texts = exact.render(unseen.rows[:40])
    together = rounded.logits(texts)
    assert 1e-5 < np.abs(exact.logits(texts) - together).max() < 0.15
    assert max(np.abs(rounded.logits([text])[0] - one).max() for text, one in zip(texts, together, strict=True)) < 1e-5
    process = start("--bundle", out, "--port", 0, "--precision", "bfloat16")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"bfloat16: with {NAMES[ON_A_CPU]} on cpu there are float32, int8" in stderr


@pytest.mark.slow
def test_two_bits_are_refused_with_figures(
    bundle_folder: Path, gpu: None, unseen: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Codes -1, 0 and 1: what the model has learnt is mostly gone. Second models would make up for most of it.
    stacked = read_bundle(bundle_folder).record
    alone = msgspec.json.encode(msgspec.structs.replace(stacked, stack=None))
    without = [STACKED, STACKED_WEIGHTS, SELFTEST]
    bundle_folder = copy_bundle(bundle_folder, tmp_path / "alone", {"calibration.json": alone}, without)
    monkeypatch.setattr(rounding, "MAX_CODE", 1)
    (found,) = measure(bundle_folder, unseen, ["int8"])
    assert found.log_loss.value - 3 * found.log_loss.standard_error > found.log_loss.margin
    assert str(found.refusal).startswith("log loss is worse by ")
    out = record(bundle_folder, [found], tmp_path / "titanic").folder
    with pytest.raises(
        BundleError, match=r"int8 was measured on \w+ and refused: log loss is worse by 0\.\d{4} ± 0\.\d{4} on 651"
    ):
        Predictor.load(out, precision="int8")
    assert Predictor.load(out).predict([{"pclass": 3, "sex": "male"}])


def test_wrong_use_is_explained(bundle_folder: Path, tmp_path: Path) -> None:
    done = run_here("precision", "--bundle", bundle_folder, "--only", "int4")
    assert done.returncode == 2
    assert "must be of float16, bfloat16, int8" in done.stderr
    few = few_rows(tmp_path / "few.csv")
    few.write_text("".join(few.read_text().splitlines(keepends=True)[:81]))
    done = run_here("precision", "--bundle", bundle_folder, "--data", few, "--out", tmp_path / "out")
    assert (done.returncode, (tmp_path / "out").exists()) == (1, False)
    assert "80 rows are too few" in done.stderr


def test_training_rows_are_marked(bundle_folder: Path, gpu: None, table: Table) -> None:
    trained = read_bundle(bundle_folder).manifest.origin.data.sha256
    for sha256, is_trained in ((trained, True), ("1" * 64, False)):
        (found,) = measure(bundle_folder, Table(table.schema, table.rows[:100], table.labels[:100], sha256), ["int8"])
        assert (found.training_rows, found.data_sha256, found.rows) == (is_trained, sha256, 100)
