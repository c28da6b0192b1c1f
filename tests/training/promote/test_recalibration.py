"""python -m training recalibrate: the same weights, and a map that makes their probabilities true of the new rows."""

import csv
from pathlib import Path

import numpy as np
import pytest

from models.bundle.manifest import FEATURE, WEIGHTS
from models.bundle.read import Bundle, read_bundle
from models.calibration.logit import sigmoid
from models.prediction import positive_logits
from models.predictor import Predictor
from tests.conftest import TITANIC
from tests.training.commands import run_here
from training.data.table import Table
from training.promote.recalibration import loss_inverse

SLOPE, SHIFT = 0.8, -1.5
"""Of the truth in the new rows, by the model's logits."""


@pytest.fixture(scope="module")
def logits(tiny_bundle: Bundle, table: Table) -> np.ndarray:
    predictor = Predictor.load(tiny_bundle.folder)
    return positive_logits(predictor.logits(predictor.render(table.rows)))


@pytest.fixture(scope="module")
def outcomes(logits: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rows that the tiny bundle was not made from, with outcomes that are drawn from what its logits say."""
    spread = (logits - logits.mean()) / logits.std()
    labels = (np.random.default_rng(0).random(len(logits)) < sigmoid(2 * SLOPE * spread + SHIFT)).astype(int)
    path = tmp_path_factory.mktemp("outcomes") / "outcomes.csv"
    with TITANIC.open(newline="") as file, path.open("w", newline="") as out:
        rows = list(csv.DictReader(file))
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        for row, label in list(zip(rows, labels.tolist(), strict=True))[60:]:
            writer.writerow(row | {"Survived": label})
    return path


@pytest.fixture(scope="module")
def recalibrated(tiny_bundle: Bundle, outcomes: Path, few_resamples: None) -> Bundle:
    out = outcomes.parent / "new"
    done = run_here("recalibrate", tiny_bundle.folder, "--data", outcomes, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "831 rows, log loss" in done.stdout
    assert (outcomes.parent / "new.training" / "report.html").exists()
    return read_bundle(out)


def test_the_weights_stay_and_the_probabilities_are_true_of_the_new_rows(
    tiny_bundle: Bundle, recalibrated: Bundle, logits: np.ndarray
) -> None:
    for name in (WEIGHTS, "tokenizer.json", "config.json", FEATURE):
        assert (recalibrated.folder / name).read_bytes() == (tiny_bundle.folder / name).read_bytes(), name
    assert "precisions.json" not in recalibrated.manifest.files
    spread = (logits - logits.mean()) / logits.std()
    truth = sigmoid(2 * SLOPE * spread + SHIFT)[60:]
    found = recalibrated.record.map.probabilities(logits[60:])
    before = tiny_bundle.record.map.probabilities(logits[60:])
    assert abs(found.mean() - truth.mean()) < 0.02
    assert np.abs(found - truth).mean() < 0.4 * np.abs(before - truth).mean()
    assert np.corrcoef(found, truth)[0, 1] > 0.9
    sets = recalibrated.record.conformal.thresholds
    assert sets != tiny_bundle.record.conformal.thresholds


def test_the_bundle_says_what_it_was_calibrated_on(tiny_bundle: Bundle, recalibrated: Bundle, outcomes: Path) -> None:
    origin = recalibrated.manifest.origin
    assert origin.data == tiny_bundle.manifest.origin.data
    assert origin.recalibration is not None
    assert origin.recalibration.of == tiny_bundle.version
    assert origin.calibrated_on.rows == recalibrated.reference.rows == recalibrated.record.rows == 831
    assert recalibrated.evaluation["rows"] == 831
    how = recalibrated.evaluation["how"]
    assert how.startswith(f"the weights of version {tiny_bundle.version}, calibrated anew by 5-fold cross-fitting")
    card = (recalibrated.folder / "README.md").read_text()
    assert f"on whose logits version `{tiny_bundle.version}` was calibrated anew" in " ".join(card.split())
    assert "Nothing else was trained and compared on these rows" in card
    shift = recalibrated.shifted(0.5).record.map.prior_shift
    assert shift is not None
    assert shift.training == pytest.approx(origin.recalibration.data.classes["survived"] / 831)


def test_rows_that_made_the_bundle_are_refused_unless_they_are_asked_for(
    tiny_bundle: Bundle, recalibrated: Bundle, outcomes: Path, tmp_path: Path, few_resamples: None
) -> None:
    options = ("--data", TITANIC, "--out", tmp_path / "b", "--quiet")
    done = run_here("recalibrate", tiny_bundle.folder, *options)
    assert done.returncode == 1
    assert "60 of 891 rows equal training rows of the bundle" in done.stderr
    done = run_here("recalibrate", recalibrated.folder, "--data", outcomes, "--out", tmp_path / "b")
    assert "the rows are those that the bundle was made from" in done.stderr
    done = run_here("recalibrate", recalibrated.folder, *options[2:], "--data", outcomes, "--on-training-rows")
    assert done.returncode == 0, done.stderr
    assert read_bundle(tmp_path / "b").evaluation["how"].endswith("831 of 831 rows equal training rows of the weights")


def test_rows_that_the_model_ranks_backwards_are_refused(tiny_bundle: Bundle, outcomes: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned.csv"
    with outcomes.open(newline="") as file, turned.open("w", newline="") as out:
        rows = list(csv.DictReader(file))
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(row | {"Survived": 1 - int(row["Survived"])} for row in rows)
    done = run_here("recalibrate", tiny_bundle.folder, "--data", turned, "--out", tmp_path / "b")
    assert done.returncode == 1
    assert "rank the classes backwards" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["turned.csv"]


def test_the_loss_is_undone_as_it_was_in_training(tiny_bundle: Bundle) -> None:
    inverse = loss_inverse(tiny_bundle)
    assert inverse is not None
    z = np.linspace(-2, 2, 9)
    assert inverse(z) == pytest.approx(z)
