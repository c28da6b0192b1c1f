"""python -m training fit under mlx.launch: two processes follow the loss curve of one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.bundle.read import read_bundle
from tests.conftest import ROOT
from tests.deploy.programs import free_ports
from tests.training.bases import write_base
from tests.training.commands import few_rows, run_here
from training.fit.epoch_diagnostics import LOG, read_log
from training.fit.finetune import Recipe, TrainingError, finetune
from training.losses.registry import make_loss

# Of 120 rows, 17 a batch, the last batch has a single row, and so has none for one of the two processes.
RECIPE = (
    "--seeds", "2", "--folds", "2", "--epochs", "2", "--batch-rows", "17", "--learning-rate", "5e-3",
    "--head-learning-rate", "5e-3",
)  # fmt: skip


def options(folder: Path) -> tuple[object, ...]:
    """Of ``python -m training``."""
    rows, base = few_rows(folder / "rows.csv"), write_base(folder / "base")
    return ("fit", "--data", rows, "--base", base, *RECIPE)


def launch(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Two processes of ``python -m training``, as a user starts them on one machine."""
    launcher = Path(sys.executable).with_name("mlx.launch")
    command = [launcher, "-n", 2, "--backend", "ring", "--starting-port", free_ports(2), "--", sys.executable]
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
    command = options(tmp_path)
    alone = run_here(*command, "--out", tmp_path / "alone")
    assert alone.returncode == 0, alone.stderr
    together = launch(*command, "--out", tmp_path / "together")
    assert together.returncode == 0, together.stderr
    assert together.stdout.count("log loss") == 1

    def curve(name: str) -> dict[Any, Any]:
        return {(one.phase, one.epoch): one for one in read_log(tmp_path / f"{name}.training" / LOG)}

    one, two = curve("alone"), curve("together")
    assert len(one) == 10
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
    done = launch(*options(tmp_path), "--loss", "dice", "--out", tmp_path / "b")
    assert "dice is a loss of a whole batch, which cannot be divided among processes" in done.stderr
    assert not (tmp_path / "b").exists()
    done = launch("compare-losses", "--work", tmp_path / "w")
    assert "compare-losses is not for mlx.launch" in done.stderr
    assert not (tmp_path / "w").exists()


def test_a_loss_of_a_whole_batch_is_not_divided() -> None:
    unused: Any = None
    with pytest.raises(TrainingError, match="tversky is a loss of a whole batch"):
        finetune(
            unused, unused, unused, unused, recipe=Recipe(), loss=make_loss("tversky", ("no", "yes")), seed=0, phase="",
            progress=unused, divide=lambda model, gradient: gradient,
        )  # fmt: skip
