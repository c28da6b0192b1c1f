"""Several seeds in one fit: each is what a fit of that seed alone is, and the first serves."""

from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.bundle.read import Bundle, read_bundle
from tests.training.bases import write_base
from tests.training.commands import few_rows, interrupted, run_here
from training.evaluate.folds import MANY_ROWS
from training.fit.crossfit import rows_seen
from training.fit.finetune import Recipe
from training.fit.process import FINAL, FineTuningJob
from training.fit.seeds import choose_seeds
from training.losses.registry import LossChoice

FAST = ("--folds", "2", "--epochs", "1", "--learning-rate", "5e-3", "--head-learning-rate", "5e-3")


def job(folds: int, seeds: int) -> FineTuningJob:
    return FineTuningJob(
        classes=("no", "yes"), config={}, weights="", loss=LossChoice(), recipe=Recipe(), seed=4, folds=folds, start=0,
        seeds=seeds,
    )  # fmt: skip


def test_the_first_seeds_fine_tunings_come_first_and_every_fold_of_the_others_follows() -> None:
    of_two = job(folds=2, seeds=3)
    assert of_two.phases == [
        "fold 1 of 2", "fold 2 of 2", FINAL, "seed 5, fold 1 of 2", "seed 5, fold 2 of 2", "seed 6, fold 1 of 2",
        "seed 6, fold 2 of 2",
    ]  # fmt: skip
    places = [of_two.held_out(number) for number in range(7)]
    assert places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (2, 1)]
    folds = np.array([[0, 0, 1], [0, 1, 1], [1, 0, 1]])
    assert rows_seen(of_two, folds) == [1, 2, 3, 2, 1, 2, 1]
    part = job(folds=1, seeds=2)
    assert [part.held_out(number) for number in range(len(part.phases))] == [(0, 0), (1, 0)]
    assert part.phases[0] == FINAL


def test_how_many_seeds_by_the_number_of_rows() -> None:
    assert [choose_seeds(rows, None) for rows in (40, MANY_ROWS - 1, MANY_ROWS)] == [3, 3, 1]
    assert choose_seeds(10**6, 4) == 4
    for wrong in (0, -1, 21):
        with pytest.raises(ValueError, match=f"seeds is {wrong}; it must be from 1 to 20"):
            choose_seeds(100, wrong)


def test_help_says_up_to_how_many_rows() -> None:
    assert f"(default: 3 below {MANY_ROWS:,} rows, 1 from there on)" in " ".join(
        run_here("fit", "--help").stdout.split()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    write_base(folder / "base")
    few_rows(folder / "rows.csv")
    return folder


def fitted(folder: Path, name: str, *options: object) -> tuple[str, Bundle]:
    data = ("--data", folder / "rows.csv", "--base", folder / "base")
    done = run_here("fit", *data, *FAST, *options, "--out", folder / name)
    assert done.returncode == 0, done.stderr
    return done.stdout, read_bundle(folder / name)


@pytest.mark.slow
def test_each_seed_scores_as_alone_and_the_first_serves(folder: Path) -> None:
    printed, both = fitted(folder, "both", "--seeds", 2, "--seed", 7)
    _, first = fitted(folder, "first", "--seeds", 1, "--seed", 7)
    _, second = fitted(folder, "second", "--seeds", 1, "--seed", 8)
    for name in ("model.safetensors", "reference.json"):
        assert (folder / "both" / name).read_bytes() == (folder / "first" / name).read_bytes(), name
    uncertainty = both.record.uncertainty
    assert uncertainty is not None
    assert (uncertainty.seeds, len(uncertainty.map), first.record.uncertainty) == (2, 1, None)
    assert msgspec.structs.replace(both.record, uncertainty=None) == first.record
    assert "seeds" not in first.evaluation
    seeds = both.evaluation["seeds"]
    assert seeds["serves"] == 7
    alone = [one.evaluation["calibrated"]["log_loss"]["value"] for one in (first, second)]
    assert [one["log_loss"] for one in seeds["each"]] == pytest.approx(alone, abs=1e-12)
    assert [one["seed"] for one in seeds["each"]] == [7, 8]
    others = {"seeds": None, "interval": None}
    assert both.evaluation | others == first.evaluation | others
    assert both.evaluation["interval"]["average_width"] > first.evaluation["interval"]["average_width"]
    mean, sd = f"{np.mean(alone):.4f}", f"{np.std(alone, ddof=1):.4f}"
    assert f"log loss {mean} over 2 seeds, ± {sd} between them" in printed
    assert "seed 7 serves" in printed
    card, page = (path.read_text() for path in (folder / "both/README.md", folder / "both.training/report.html"))
    for text in (card, page):
        assert f"log loss {mean} ±\u00a0{sd}" in text
        assert "The model of seed 7 serves" in text
    assert f"value: {np.mean(alone):.6f}".rstrip("0") in card
    assert "mean over 2 seeds" in card


@pytest.mark.slow
def test_of_a_part_held_out_each_seed_holds_out_its_own(folder: Path) -> None:
    _, bundle = fitted(folder, "part", "--seeds", 2, "--folds", 1)
    assert len(bundle.evaluation["seeds"]["each"]) == 2
    assert bundle.evaluation["rows"] < 40
    assert bundle.record.uncertainty is None


@pytest.mark.slow
def test_an_interrupted_run_goes_on_with_the_seed_that_it_was_at(folder: Path) -> None:
    options = ("--data", folder / "rows.csv", "--base", folder / "base", *FAST, "--seeds", 2, "--seed", 7)
    kept = folder / "again.training" / "folds" / "seed-8-fold-1.npy"
    returncode, stderr = interrupted("fit", *options, "--out", folder / "again", when=kept.exists)
    assert returncode == 1, stderr
    done = run_here("fit", *options, "--out", folder / "again", "--resume")
    assert done.returncode == 0, done.stderr
    assert (folder / "again/evaluation.json").read_bytes() == (folder / "both/evaluation.json").read_bytes()
