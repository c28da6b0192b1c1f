"""The gate: what is rounded too far is refused with figures, what is good enough is served, float32 stays as it is."""

import csv
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from models.bert import quantization as rounding
from models.bundle.manifest import BundleError
from models.bundle.precisions import PRECISIONS
from models.bundle.read import read_bundle
from models.predictor import Predictor
from tests.conftest import ROOT, TITANIC
from tests.service.test_real import free_port, start, wait_ready
from tests.training.commands import few_rows, run
from training.data.table import Table
from training.promote.precision import measure, record

LOWER = PRECISIONS[1:]


@pytest.fixture(scope="module")
def unseen(table: Table) -> Table:
    """The rows that the tests' bundle was not trained on."""
    return Table(table.passengers[240:], table.labels[240:], "1" * 64)


@pytest.fixture(scope="module")
def measured(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle with what the command found, all accepted."""
    out = tmp_path_factory.mktemp("measured") / "titanic"
    done = run("precision", "--bundle", bundle_folder, "--data", TITANIC, "--out", out)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": accepted\n") == len(LOWER)
    return out


@pytest.mark.slow
def test_the_command_accepts_every_precision_and_says_how_far_it_is_off(measured: Path, bundle_folder: Path) -> None:
    found = {one.precision: one for one in read_bundle(measured).precisions.measured}
    assert set(found) == set(LOWER)
    for one in found.values():
        assert one.refusal is None
        assert (one.rows, one.training_rows) == (891, False)
        assert abs(one.log_loss.value) < one.log_loss.margin == 0.005
        assert one.log_loss.high == pytest.approx(one.log_loss.value + 1.96 * one.log_loss.standard_error, rel=1e-3)
    changes = [found[precision].largest_logit_difference for precision in ("float16", "bfloat16", "int8")]
    assert 0 < changes[0] < changes[1] < changes[2]
    # Nothing else is changed: Hugging Face's tools read the same weights.
    before, after = read_bundle(bundle_folder).manifest, read_bundle(measured).manifest
    assert {**before.files, "precisions.json": after.files["precisions.json"]} == after.files
    assert after.origin == before.origin


@pytest.mark.slow
def test_what_was_accepted_is_served_scored_and_told(measured: Path, tmp_path: Path) -> None:
    port = free_port()
    process = start("--bundle", measured, "--port", port, "--grace-seconds", 0, "--precision", "int8")
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    probability = httpx.post(f"{url}/v1/predict", json={"pclass": 1, "sex": "female", "age": 38}).json()["probability"]
    assert httpx.get(f"{url}/v1/model").json()["backend"]["precision"] == "int8"
    assert 'precision="int8"' in httpx.get(f"{url}/metrics").text
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert "int8 weights" in stderr
    passenger = [{"pclass": 1, "sex": "female", "age": 38}]
    assert Predictor.load(measured, precision="int8").predict(passenger)[0].probability == pytest.approx(
        probability, abs=1e-9
    )
    (tmp_path / "in.csv").write_text("Pclass,Sex,Age\n1,female,38\n")
    command = [
        sys.executable,
        "-m",
        "service",
        "score",
        tmp_path / "in.csv",
        tmp_path / "out.csv",
        "--bundle",
        measured,
    ]
    subprocess.run([*command, "--precision", "int8"], check=True, cwd=ROOT, timeout=60)
    (row,) = csv.DictReader((tmp_path / "out.csv").read_text().splitlines())
    assert float(row["probability"]) == pytest.approx(probability, abs=1e-6)
    # Another probability than in float32 and hardly another one; near 1e-6 it would not have been rounded at all.
    logits = [Predictor.load(measured, precision=one).logits(["third class man"])[0] for one in ("float32", "int8")]
    assert 1e-5 < abs(logits[0] - logits[1]) < 0.1


@pytest.mark.slow
def test_the_service_does_not_start_in_a_precision_that_was_not_measured(bundle_folder: Path) -> None:
    process = start("--bundle", bundle_folder, "--port", 0, "--precision", "bfloat16")
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "precisions.json: bfloat16 was not measured on" in stderr


@pytest.mark.slow
def test_two_bits_are_refused_with_figures(
    bundle_folder: Path, unseen: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Codes -1, 0 and 1: what the model has learnt is mostly gone.
    monkeypatch.setattr(rounding, "LARGEST_CODE", 1)
    (found,) = measure(bundle_folder, unseen, ["int8"])
    assert found.log_loss.value - 3 * found.log_loss.standard_error > found.log_loss.margin
    assert str(found.refusal).startswith("log loss is worse by ")
    out = record(bundle_folder, [found], tmp_path / "titanic").folder
    with pytest.raises(
        BundleError, match=r"int8 was measured on \w+ and refused: log loss is worse by 0\.\d{4} ± 0\.\d{4} on 651"
    ):
        Predictor.load(out, precision="int8")
    assert Predictor.load(out).predict([{"pclass": 3, "sex": "male"}])


def test_wrong_use_is_told(bundle_folder: Path, tmp_path: Path) -> None:
    done = run("precision", "--bundle", bundle_folder, "--only", "int4")
    assert done.returncode == 2
    assert "must be of float16, bfloat16, int8" in done.stderr
    few = few_rows(tmp_path / "few.csv")
    few.write_text("".join(few.read_text().splitlines(keepends=True)[:81]))
    done = run("precision", "--bundle", bundle_folder, "--data", few, "--out", tmp_path / "out")
    assert (done.returncode, (tmp_path / "out").exists()) == (1, False)
    assert "80 rows are too few" in done.stderr


def test_training_rows_are_told(bundle_folder: Path, table: Table) -> None:
    trained = read_bundle(bundle_folder).manifest.origin.data.sha256
    for sha256, training in ((trained, True), ("1" * 64, False)):
        (found,) = measure(bundle_folder, Table(table.passengers[:100], table.labels[:100], sha256), ["bfloat16"])
        assert (found.training_rows, found.data_sha256, found.rows) == (training, sha256, 100)
