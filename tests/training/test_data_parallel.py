"""python -m training fit under mlx.launch: two processes follow the loss curve of one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.bundle import read_bundle
from tests.conftest import ROOT
from tests.deploy.programs import free_port
from tests.training.bases import write_base
from tests.training.commands import few_rows, run
from training.diagnostics import LOG, read_log
from training.finetune import Recipe, TrainingError, finetune
from training.losses import make_loss

# With 59 rows a batch the last one of a fold has a single row, and so none for one of the two.
RECIPE = (
    "--folds",
    "2",
    "--epochs",
    "3",
    "--learning-rate",
    "5e-3",
    "--head-learning-rate",
    "5e-3",
    "--batch-rows",
    "59",
)


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes of ``python -m training``, as a user starts them on one machine."""
    launcher = Path(sys.executable).with_name("mlx.launch")
    command = [launcher, "-n", 2, "--backend", "ring", "--starting-port", free_port(), "--", sys.executable]
    # What it broadcasts to the processes must stay open.
    reading, writing = os.pipe()
    try:
        return subprocess.run(
            [str(one) for one in (*command, "-m", "training", *arguments)], cwd=ROOT, capture_output=True, text=True,
            timeout=200, stdin=reading,
        )  # fmt: skip
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.slow
def test_two_processes_follow_the_loss_curve_of_one(tmp_path: Path) -> None:
    rows, base = few_rows(tmp_path / "rows.csv"), write_base(tmp_path / "base")
    options = ("fit", "--data", rows, "--base", base, *RECIPE)
    alone = run(*options, "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    together = launch(*options, "--out", tmp_path / "together")
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("log loss") == 1

    def curve(name: str) -> dict[Any, Any]:
        return {(one.phase, one.epoch): one for one in read_log(tmp_path / f"{name}.training" / LOG)}

    one, two = curve("alone"), curve("together")
    assert len(one) == 9
    assert one.keys() == two.keys()
    for key, epoch in one.items():
        assert two[key].loss == pytest.approx(epoch.loss, abs=1e-4)
        assert two[key].p_t_mean == pytest.approx(epoch.p_t_mean, abs=1e-4)
        assert two[key].rows == epoch.rows
    scores = [read_bundle(tmp_path / name).evaluation["raw"]["log_loss"]["value"] for name in ("alone", "together")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    # The other process wrote nothing.
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "alone", "alone.training", "base", "rows.csv", "together", "together.training",
    ]  # fmt: skip


@pytest.mark.slow
def test_what_fails_in_one_process_ends_both(tmp_path: Path) -> None:
    rows, base = few_rows(tmp_path / "rows.csv"), write_base(tmp_path / "base")
    done = launch("fit", "--data", rows, "--base", base, *RECIPE, "--loss", "dice", "--out", tmp_path / "b")
    assert "dice is a loss of a whole batch, which cannot be divided among processes" in done.stderr
    assert not (tmp_path / "b").exists()
    done = launch("fit", "--engine", "ray", "--out", tmp_path / "b")
    assert "--engine ray does not go with mlx.launch" in done.stderr
    done = launch("compare-losses", "--work", tmp_path / "w")
    assert "compare-losses is not for mlx.launch" in done.stderr
    assert not (tmp_path / "w").exists()


def test_a_loss_of_a_whole_batch_is_not_divided() -> None:
    unused: Any = None
    with pytest.raises(TrainingError, match="tversky is a loss of a whole batch"):
        finetune(
            unused, unused, unused, unused, recipe=Recipe(), loss=make_loss("tversky"), seed=0, phase="",
            progress=unused, divide=lambda model, gradient: gradient,
        )  # fmt: skip
