"""The commands on a bundle of three classes: evaluate, recalibrate, promote, precision, and what refuses them."""

import json
from pathlib import Path

import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from models.bundle.write import write_bundle
from models.predictor import Predictor
from tests import penguins
from tests.training.commands import run_here
from tests.training.several_classes import write_outcomes
from training.data.table import read_table
from training.evaluate.baselines import BASELINES
from training.promote.precision import measure


@pytest.fixture(scope="module")
def bundle(penguins_bundle: Bundle) -> Bundle:
    return penguins_bundle


@pytest.fixture(scope="module")
def outcomes(bundle: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_outcomes(tmp_path_factory.mktemp("outcomes") / "outcomes.csv", bundle, 500, 7)


@pytest.fixture(scope="module")
def recalibrated(bundle: Bundle, outcomes: Path, few_resamples: None) -> Bundle:
    done = run_here("recalibrate", bundle.folder, "--data", outcomes, "--out", outcomes.parent / "new")
    assert done.returncode == 0, done.stderr
    return read_bundle(outcomes.parent / "new")


def test_evaluate_writes_figures_of_each_class_a_page_and_pictures(
    bundle: Bundle, outcomes: Path, tmp_path: Path, few_resamples: None
) -> None:
    done = run_here(
        "evaluate", "--bundle", bundle.folder, "--data", outcomes, "--json", tmp_path / "e.json",
        "--report", tmp_path / "r.html", "--plots", tmp_path / "plots",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "e.json").read_text())
    predictor = Predictor.load(bundle.folder)
    table = read_table(outcomes, bundle.schema, fitting=False)
    predictions = predictor.predict_checked(table.rows)
    p = np.array([prediction.probabilities for prediction in predictions])
    raw = np.array([list(prediction.confidence.uncalibrated_probabilities.values()) for prediction in predictions])
    for side, of in (("calibrated", p), ("raw", raw)):
        own = of[np.arange(len(table)), table.labels]
        assert found[side]["log_loss"]["value"] == pytest.approx(-np.log(own).mean())
        assert list(found[side]["calibration_error"]) == list(penguins.SPECIES)
    said = [penguins.SPECIES.index(prediction.outcome) for prediction in predictions]
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (table.labels, said), 1)
    assert [list(row.values()) for row in found["calibrated"]["confusion"].values()] == counts.tolist()
    for name in penguins.SPECIES:
        ends = np.array([prediction.confidence.intervals[name] for prediction in predictions])
        interval = found["intervals"][name]
        assert (interval["mean_low"], interval["mean_high"]) == pytest.approx(tuple(ends.mean(axis=0)))
        assert sum(tenth["rows"] for tenth in found["reliability"]["calibrated"][name]) == len(table)
    assert "Reliability, Chinstrap" in (tmp_path / "r.html").read_text()
    assert {"confusion.svg", "classes.svg", "reliability_class_1.svg"} <= {
        path.name for path in (tmp_path / "plots").iterdir()
    }
    assert "taken for Adelie" in done.stdout


def test_recalibrated_the_weights_stay_and_the_probabilities_are_truer(bundle: Bundle, recalibrated: Bundle) -> None:
    assert (recalibrated.folder / "model.safetensors").read_bytes() == (
        bundle.folder / "model.safetensors"
    ).read_bytes()
    evaluation = recalibrated.evaluation
    assert evaluation["rows"] == 500
    assert evaluation["calibrated"]["log_loss"]["value"] < evaluation["raw"]["log_loss"]["value"] - 0.05
    assert evaluation["calibrated"]["classwise_error"]["p_value"] > 0.01
    for sets in evaluation["sets_at"]:
        for held in sets["by_class"].values():
            assert abs(held["value"] - sets["nominal"]) < 4 * held["standard_error"] + 0.02
    card = (recalibrated.folder / "README.md").read_text()
    assert "Probabilities that a penguin is of each of the 3 classes" in card
    assert "| of the class | taken for Gentoo | taken for Adelie | taken for Chinstrap |" in card


def test_promote_takes_the_recalibrated_one_and_refuses_the_old_one(
    bundle: Bundle, recalibrated: Bundle, tmp_path: Path
) -> None:
    unseen = write_outcomes(tmp_path / "unseen.csv", bundle, 400, 8)

    def decided(candidate: Bundle, current: Bundle) -> tuple[int, dict[str, str], str]:
        done = run_here(
            "promote", candidate.folder, "--over", current.folder, "--data", unseen, "--slower", "50",
            "--subgroup-log-loss", "0.9", "--out", tmp_path / "decision.json",
        )  # fmt: skip
        assert not done.stderr
        criteria = json.loads((tmp_path / "decision.json").read_text())["criteria"]
        return done.returncode, {each["name"]: each["verdict"] for each in criteria}, done.stdout

    code, verdicts, text = decided(recalibrated, bundle)
    assert (code, verdicts["log loss"], verdicts["calibration error"]) == (0, "passed", "passed"), text
    code, verdicts, _ = decided(bundle, recalibrated)
    assert code == 1
    assert "passed" not in (verdicts["log loss"], verdicts["calibration error"])


def test_precision_is_measured_over_all_classes(recalibrated: Bundle, outcomes: Path) -> None:
    """The tiny bundle's logits are made of differences that eight bits do not hold."""
    table = read_table(outcomes, recalibrated.schema, fitting=False)
    (found,) = measure(recalibrated.folder, table, ["int8"])
    assert found.log_loss.value > 3 * found.log_loss.standard_error
    assert str(found.refusal).startswith("log loss is worse by")
    assert found.calibration_error.value > 3 * found.calibration_error.standard_error
    assert 0.2 < found.decisions_changed < 1
    assert 0.1 < found.largest_probability_difference < 1


def test_other_classes_or_another_order_of_them_are_not_compared(bundle: Bundle, tmp_path: Path) -> None:
    import msgspec

    label = bundle.schema.label
    turned = msgspec.structs.replace(
        bundle.schema, label=msgspec.structs.replace(label, classes=label.classes[::-1]), examples=()
    )
    contents: dict[str, bytes | Path] = {name: bundle.folder / name for name in bundle.manifest.files}
    config = json.loads((bundle.folder / "config.json").read_bytes())
    names = list(turned.classes)
    config |= {"id2label": dict(enumerate(names)), "label2id": {name: at for at, name in enumerate(names)}}
    contents |= {"schema.json": msgspec.json.encode(turned), "config.json": json.dumps(config).encode()}
    other = write_bundle(tmp_path / "turned", contents, bundle.manifest.origin)
    data = write_outcomes(tmp_path / "rows.csv", bundle, 220, 9)
    done = run_here("promote", other.folder, "--over", bundle.folder, "--data", data)
    assert done.returncode == 1
    assert "in this order: there is nothing to compare" in done.stderr


def test_the_study_of_the_notes_claims_is_of_two_classes(outcomes: Path, tmp_path: Path) -> None:
    done = run_here("compare-losses", "--data", outcomes, "--label", "species", "--work", tmp_path / "work")
    assert done.returncode == 1
    assert (
        "compare-losses tests the research note's claims, which are of two classes, and the table has 3" in done.stderr
    )


def test_a_loss_and_a_preset_of_two_classes_are_refused_before_training(outcomes: Path, tmp_path: Path) -> None:
    rows = ("fit", "--data", outcomes, "--label", "species", "--out", tmp_path / "out")
    for options, sentence in (
        (("--loss", "dice"), "dice is a loss of the positive one of two classes, and there are 3"),
        (("--preset", "note"), "the preset note has numbers for two classes, and there are 3"),
        (
            ("--alpha", "Gentoo=1"),
            "alpha is {'Gentoo': 1.0}; it must give each of Adelie, Chinstrap, Gentoo a positive",
        ),
        (("--target-prevalence", "0.3"), "--target-prevalence is of two classes; the table has 3"),
    ):
        done = run_here(*rows, *options)
        assert done.returncode == 1
        assert sentence in done.stderr
    assert not (tmp_path / "out").exists()


def test_baselines_of_three_classes_are_scored_on_the_same_folds() -> None:
    from training.evaluate.baselines import compare_baselines, held_out_probabilities
    from training.evaluate.folds import make_folds

    table = penguins.table(200, 3)
    folds = make_folds(table.labels, 4, 0)
    found = held_out_probabilities(table.rows, table.labels, folds, table.schema, [None] * 4, 0)
    assert list(found) == list(BASELINES)
    for p in found.values():
        assert p.shape == (200, 3)
        assert p.sum(axis=1) == pytest.approx(1)
        assert (p.argmax(axis=1) == table.labels).mean() > 0.85
    ours = np.full((200, 3), 1 / 3)
    compared = compare_baselines(ours, found, table.labels, {}, table.schema.classes)
    trees = compared["gradient_boosting"]
    own = found["gradient_boosting"][np.arange(200), table.labels]
    assert trees.log_loss_difference.value == pytest.approx(np.log(3) + np.log(own).mean())
    assert isinstance(trees.auc, dict)
    assert list(trees.auc) == list(penguins.SPECIES)
