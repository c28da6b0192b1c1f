"""python -m training, as a user calls it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.bundle.read import read_bundle
from models.selftest import ROWS
from models.selftest import main as selftest
from models.text import Renderer
from tests.conftest import ROOT
from tests.training.bases import write_base
from tests.training.commands import few_rows, interrupted, run, run_here
from training.data.table import Table
from training.evaluate.baselines import BASELINES
from training.fit.epoch_diagnostics import EpochDiagnostics

FAST = ("--seeds", "1", "--folds", "2", "--epochs", "1")
RATES = ("--learning-rate", "5e-3", "--head-learning-rate", "5e-3")
"""At which the small base learns."""


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_rows(tmp_path_factory.mktemp("rows") / "rows.csv")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("small") / "base")


@pytest.fixture(scope="module")
def trained(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "b"
    done = run("fit", "--data", rows, *FAST, "--seed", "7", "--out", out)
    assert done.returncode == 0, done.stderr
    assert "log loss" in done.stdout
    assert f"report: {out.with_name('b.training') / 'report.html'}" in done.stdout
    assert "left" in done.stderr
    return out


def test_transformers_loads_the_folder_and_gives_the_same_logits(
    bundle_folder: Path, transformers_classifier: type, table: Table
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model, report = AutoModelForSequenceClassification.from_pretrained(bundle_folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert model.config.id2label == {0: "died", 1: "survived"}
    texts = sorted(set(map(Renderer(table.schema), table.rows)))
    inputs = AutoTokenizer.from_pretrained(bundle_folder)(texts, padding=True, return_tensors="pt")
    model.eval()
    with torch.no_grad():
        pair = model(**inputs).logits.numpy()
    code = f"""
import json, sys
from models.predictor import Predictor
print(json.dumps(Predictor.load({str(bundle_folder)!r}).logits(json.load(sys.stdin)).tolist()))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(texts), cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert np.abs(np.array(json.loads(done.stdout)) - pair).max() < 1e-4


def test_a_bundle_carries_its_answers_to_rows_that_nobody_was_asked_for(bundle_folder: Path, table: Table) -> None:
    answers = read_bundle(bundle_folder).known_answers.answers
    assert len(answers) == ROWS
    known = [msgspec.to_builtins(row) for row in table.rows]
    assert not [one for one in answers if one.row in known]
    assert len({one.text for one in answers}) > ROWS / 2
    assert selftest([str(bundle_folder)]) == 0


def test_every_epoch_is_logged_with_the_notes_diagnostics(trained: Path) -> None:
    log = (trained.with_name("b.training") / "training_log.jsonl").read_text().splitlines()
    epochs = [msgspec.json.decode(line, type=EpochDiagnostics) for line in log]
    assert sorted(one.phase for one in epochs) == ["final model", "fold 1 of 2", "fold 2 of 2"]
    for one in epochs:
        assert 0 <= one.p_t_min <= one.p_t_mean <= one.p_t_max <= 1
        assert 0.5 <= one.confidence <= 1
        assert 0 <= one.entropy_bits <= 1
        assert set(one.accuracy_by_class) == set(one.log_loss_by_class) == {"died", "survived"}


def test_the_evaluation_is_on_rows_unseen_and_carries_its_spread(trained: Path) -> None:
    evaluation = read_bundle(trained).evaluation
    assert evaluation["rows"] == 120
    assert set(evaluation["baselines"]) == set(BASELINES)
    assert sum(one["rows"] for one in evaluation["subgroups"] if one["attribute"] == "sex") == 120
    for part in (evaluation["calibrated"], evaluation["raw"]):
        assert part["rows"] == 120
        assert part["log_loss"]["low"] < part["log_loss"]["value"] < part["log_loss"]["high"]
    card = (trained / "README.md").read_text()
    assert f"{evaluation['calibrated']['log_loss']['value']:.4f}" in card
    report = (trained.with_name("b.training") / "report.html").read_text()
    assert f"{evaluation['calibrated']['brier']['value']:.4f}" in report
    assert "Training: loss" in report


@pytest.mark.slow
def test_one_seed_gives_the_same_bundle_and_resuming_too(trained: Path, rows: Path, tmp_path: Path) -> None:
    out = tmp_path / "b"
    options = ("fit", "--data", rows, *FAST, "--seed", "7", "--out", out)
    first_fold = tmp_path / "b.training" / "folds" / "fold-1.npy"
    returncode, stderr = interrupted(*options, when=first_fold.exists)
    assert returncode == 1
    assert "--resume" in stderr.splitlines()[-1]
    assert not out.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.training"]
    assert run_here(*options[:-1], tmp_path / "c", "--resume").returncode == 1
    kept = np.load(first_fold, allow_pickle=False)
    assert run(*options, "--resume").returncode == 0
    assert len(kept) == 60
    for name in ("model.safetensors", "calibration.json", "reference.json", "evaluation.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (trained / name).read_bytes(), name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--learning-rate", "10", "--head-learning-rate", "10", "--epochs", "4"), "it says the same of every row"),
        (("--learning-rate", "1e30", "--head-learning-rate", "1e30", "--epochs", "3"), "not a finite number"),
        (("--gamma", "4"), "gamma is 4.0; it must be a number from 0 to 3"),
        (("--loss", "cross_entropy", "--smoothing", "0.1"), "cross_entropy has no parameter 'smoothing'"),
        (("--target-prevalence", "1.5"), "--target-prevalence: the target prevalence is 1.5; it must be above 0"),
        (("--target-prevalence", "nan"), "--target-prevalence: the target prevalence is nan"),
        (("--folds", "0"), "folds is 0; it must be at least 1"),
        (("--alpha", "drowned=0.4"), "--alpha: there is no class 'drowned'; there are died, survived"),
        (("--alpha", "survived=1.4"), "it must give died and survived a positive number"),
        (("--group", "Ticket"), "--group goes with --label"),
        (("--epochs", "0"), "epochs"),
        (("--base", "no/such/folder"), "is no folder here"),
        (("--data", "no.csv"), "there is no file no.csv"),
        (("--resume",), "holds no interrupted run"),
    ],
)
def test_what_fails_is_one_sentence_and_no_bundle(
    rows: Path, base: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    out = tmp_path / "b"
    done = run_here("fit", "--data", rows, "--base", base, *FAST, "--quiet", "--out", out, *options)
    assert done.returncode == 1
    assert re.search(message, done.stderr), done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.slow
def test_a_target_prevalence_and_the_rule_are_kept_in_the_bundle(
    rows: Path, base: Path, trained: Path, tmp_path: Path
) -> None:
    options = ("--base", base, *FAST, *RATES, "--target-prevalence", "0.2", "--map-rule", "one_standard_error")
    done = run_here("fit", "--data", rows, *options, "--quiet", "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    bundle, plain = read_bundle(tmp_path / "b"), read_bundle(trained)
    data, shift = bundle.manifest.origin.data, bundle.record.map.prior_shift
    assert shift is not None
    assert (shift.training, shift.target) == (data.classes["survived"] / data.rows, 0.2)
    assert (bundle.record.map_rule, plain.record.map_rule) == ("one_standard_error", "least")
    near = [one for one in bundle.record.candidates if one.worse_by <= one.standard_error]
    assert next(one for one in near if one.chosen).parameters == min(one.parameters for one in near)
    assert "before the shift from a prevalence of" in bundle.evaluation["how"]
    assert "target_prevalence 0.2" in (tmp_path / "b" / "README.md").read_text()
    assert plain.record.map.prior_shift is None


def test_wrong_use_is_exit_2() -> None:
    assert run_here("fit", "--out", "x", "--map-rule", "most").returncode == 2
    assert run_here("fit").returncode == 2
    assert run_here("fit", "--out", "x", "--loss", "focul").returncode == 2
    assert run_here("fit", "--out", "x", "--alpha", "survived").returncode == 2
    assert run_here("fit", "--out", "x", "--label", "a", "--table", "b").returncode == 2
    assert run().returncode == 2


def test_evaluate_scores_a_bundle(trained: Path, rows: Path, tmp_path: Path) -> None:
    wanted = ("--json", tmp_path / "e.json", "--plots", tmp_path / "plots", "--report", tmp_path / "report.html")
    done = run_here("evaluate", "--bundle", trained, "--data", rows, *wanted)
    assert done.returncode == 0, done.stderr
    assert "WHICH ARE ITS TRAINING ROWS" in " ".join(done.stdout.split())
    evaluation = json.loads((tmp_path / "e.json").read_bytes())
    assert evaluation["calibrated"]["rows"] == 120
    for words in ("Spiegelhalter's Z", "Hosmer–Lemeshow", "sweep ECE", "smooth ECE", "debiased L2", "pclass"):
        assert words in done.stdout, words
    assert f"{evaluation['calibrated']['log_loss']['value']:.4f}" in (tmp_path / "report.html").read_text()
    assert {"reliability_calibrated.svg", "training_loss.svg"} <= {one.name for one in (tmp_path / "plots").iterdir()}
    done = run_here("evaluate", "--bundle", trained, "--data", rows, "--report", tmp_path / "no" / "report.html")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["dice", "tversky", "adaptive", "focal_smooth_note", "weighted_ce"])
def test_every_kind_of_loss_trains_a_bundle(rows: Path, base: Path, tmp_path: Path, loss: str) -> None:
    options = ("--base", base, *FAST, *RATES, "--loss", loss, "--quiet")
    done = run_here("fit", "--data", rows, *options, "--out", tmp_path / "b")
    assert done.returncode == 0, done.stderr
    assert read_bundle(tmp_path / "b").manifest.origin.loss.name == loss
