"""python -m training fit on tables that are nothing like the passengers: described on the way, turned round, held out
once."""

import csv
import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from models.predictor import Predictor
from tests import reviews
from tests.training.bases import write_base
from tests.training.commands import run_here

FAST = (
    "--seeds", "1", "--folds", "2", "--epochs", "4", "--learning-rate", "5e-3", "--head-learning-rate", "5e-3",
    "--quiet",
)  # fmt: skip
"""At which the small base learns."""
ROWS = 240


def customers() -> list[dict[str, Any]]:
    """Those with many calls leave, most of them; a share of the cells is empty."""
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(ROWS):
        calls, plan = int(rng.integers(0, 20)), str(rng.choice(["basic", "family", "business"]))
        leaves = rng.random() < (0.9 if calls > 12 else 0.08)
        months = "" if rng.random() < 0.1 else f"{rng.gamma(2, 12):.1f}"
        rows.append({"calls": calls, "plan": plan, "months": months, "status": "leaves" if leaves else "stays"})
    return rows


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_base(folder / "base")
    write(folder / "customers.csv", customers())
    return folder


def fitted(folder: Path, name: str, *options: object) -> tuple[subprocess.CompletedProcess[str], Bundle]:
    done = run_here("fit", "--base", folder / "base", "--out", folder / name, *FAST, *options)
    assert done.returncode == 0, done.stderr
    return done, read_bundle(folder / name)


def leaving(bundle: Bundle, rows: list[dict[str, Any]]) -> np.ndarray:
    """The probability that each row leaves, by the class's name."""
    predictor = Predictor.load(bundle.folder)
    checked = [predictor.rows.parse({name: str(row[name]) for name in ("calls", "plan", "months")}) for row in rows]
    at = bundle.schema.classes.index("leaves")
    return np.array([prediction.probabilities[at] for prediction in predictor.predict(checked)])


@pytest.mark.slow
def test_a_table_is_described_on_the_way_and_its_classes_turned_round_change_no_answer(folder: Path) -> None:
    _, bundle = fitted(folder, "first", "--data", folder / "customers.csv", "--label", "status", "--name", "churn")
    assert bundle.name == "churn"
    assert bundle.schema.classes == ("stays", "leaves")
    counts = {name: sum(row["status"] == name for row in customers()) for name in bundle.schema.classes}
    assert bundle.manifest.origin.data.classes == counts
    alpha = bundle.manifest.origin.loss.parameters["alpha"]
    assert alpha["leaves"] == pytest.approx(counts["stays"] / ROWS)
    text = (folder / "first.training" / "table.toml").read_text()
    assert "[label]" in text

    lines = text.splitlines()
    first, second = (number for number, line in enumerate(lines) if line.startswith("    { value ="))
    lines[first], lines[second] = lines[second], lines[first]
    toml = folder / "turned.toml"
    toml.write_text("\n".join(lines))
    _, turned = fitted(folder, "second", "--data", folder / "customers.csv", "--table", toml)
    assert turned.schema.classes == ("leaves", "stays")
    assert turned.manifest.origin.data.classes == counts
    assert turned.manifest.origin.loss.parameters["alpha"] == pytest.approx(alpha)
    rows = customers()
    first_p, second_p = leaving(bundle, rows), leaving(turned, rows)
    left = np.array([row["status"] == "leaves" for row in rows])
    for p in (first_p, second_p):
        assert p[left].mean() > p[~left].mean() + 0.3
        assert p.mean() == pytest.approx(left.mean(), abs=0.08)
    assert np.corrcoef(first_p, second_p)[0, 1] > 0.9


@pytest.mark.slow
def test_a_part_that_is_held_out_once_is_of_the_model_that_is_served(folder: Path) -> None:
    data = folder / "customers.csv"
    options = ("--data", data, "--label", "status", "--folds", "1", "--max-steps", "25", "--epochs", "40")
    _, bundle = fitted(folder, "third", *options)
    origin = bundle.manifest.origin
    assert (origin.recipe["folds"], origin.recipe["max_steps"], origin.data.rows) == (1, 25, ROWS)
    held = bundle.evaluation["rows"]
    assert abs(held - ROWS / 5) <= 1
    assert bundle.record.rows == bundle.reference.rows == held
    assert bundle.evaluation["how"].startswith(f"{held} of {ROWS} rows held out, each of 5 parts calibrated on the oth")
    assert all(each["log_loss"]["value"] > 0 for each in bundle.evaluation["baselines"].values())
    log = (folder / "third.training" / "training_log.jsonl").read_text().splitlines()
    assert {json.loads(line)["phase"] for line in log} == {"final model"}


@pytest.mark.slow
def test_every_row_twice_is_said_on_the_card_and_few_positives_train(folder: Path) -> None:
    rows = customers()
    twice = write(folder / "twice.csv", rows + rows)
    _, bundle = fitted(folder, "twice", "--data", twice, "--label", "status", "--epochs", "2")
    note = "every row is there twice or more, and equal rows are held out together"
    assert note in bundle.evaluation["how"]
    assert note in " ".join((folder / "twice" / "README.md").read_text().split())
    rare, kept = [], 0
    for row in rows * 2:
        kept += row["status"] == "leaves"
        if row["status"] == "stays" or kept <= 8:
            rare.append(row | {"calls": row["calls"] + len(rare) / 1000})
    _, bundle = fitted(folder, "rare", "--data", write(folder / "rare.csv", rare), "--label", "status", "--epochs", "2")
    assert bundle.manifest.origin.data.classes["leaves"] == 8


@pytest.mark.slow
def test_a_table_of_three_classes_is_described_trained_evaluated_and_answered(folder: Path) -> None:
    """Calls say the class, but for a tenth of the rows."""
    rows = customers()
    rng = np.random.default_rng(1)
    for row in rows:
        certain = "leaves" if row["calls"] > 13 else "asks" if row["calls"] > 6 else "stays"
        row["status"] = str(rng.choice(["leaves", "asks", "stays"])) if rng.random() < 0.1 else certain
    done, bundle = fitted(folder, "three", "--data", write(folder / "three.csv", rows), "--label", "status")
    assert bundle.schema.classes == ("asks", "leaves", "stays")
    assert bundle.manifest.origin.data.classes == {
        name: sum(row["status"] == name for row in rows) for name in bundle.schema.classes
    }
    weights = bundle.manifest.origin.loss.parameters["alpha"]
    assert sum(weights.values()) == pytest.approx(1)
    scores = bundle.evaluation["calibrated"]
    assert scores["log_loss"]["value"] < min(0.9, bundle.evaluation["raw"]["log_loss"]["value"])
    assert scores["classwise_error"]["value"]["value"] < bundle.evaluation["raw"]["classwise_error"]["value"]["value"]
    assert set(bundle.evaluation["baselines"]["gradient_boosting"]["auc"]) == set(bundle.schema.classes)
    assert (folder / "three.training" / "report.html").read_text().count("<h2>Reliability, ") == 5
    predictor = Predictor.load(bundle.folder)
    checked = [predictor.rows.parse({name: str(row[name]) for name in ("calls", "plan", "months")}) for row in rows]
    answers = predictor.predict(checked)
    assert np.mean([answer.outcome == row["status"] for answer, row in zip(answers, rows, strict=True)]) > 0.6
    assert all(sum(answer.probabilities) == pytest.approx(1) for answer in answers)
    assert "the last is the positive one" not in done.stderr


@pytest.mark.parametrize("classes", [2, 3])
def test_a_table_whose_only_field_is_a_text(classes: int, folder: Path) -> None:
    kinds = [("good", reviews.GOOD), ("bad", reviews.BAD), ("foreign", reviews.RARE)][:classes]
    rng, rows = np.random.default_rng(0), list[dict[str, Any]]()
    for number in range(60 * classes):
        kind, words = kinds[number % classes]
        rows.append({"review": ", ".join(rng.choice(words, int(rng.integers(1, 9)))) + f" {number}", "kind": kind})
    rows[0]["review"] = "never again " * 70
    data = write(folder / f"reviews-{classes}.csv", rows)
    _, bundle = fitted(folder, f"reviews-{classes}", "--data", data, "--label", "kind")
    (field,) = bundle.schema.fields
    assert (field.type, field.bins[0], field.rare_bins[-1]) == ("text", 0, 1)
    assert sum(bundle.reference.inputs[0].counts.values()) == len(rows)
    assert sum(count > 0 for count in bundle.reference.inputs[0].counts.values()) > 3
    assert f"1 of {len(rows)} texts have more than 64 tokens, up to " in bundle.evaluation["how"]
    predictor = Predictor.load(bundle.folder)
    long, usual = predictor.predict([{"review": "never again " * 70}, {"review": "cold soup"}])
    assert [one.field for one in long.confidence.warnings] == ["review"]
    assert usual.confidence.warnings == ()
    assert len(usual.probabilities) == classes
