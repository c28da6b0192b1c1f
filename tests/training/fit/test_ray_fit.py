"""python -m training fit --engine ray: the same bundle as on this machine alone, whichever process is killed."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from models.bundle.read import read_bundle
from tests import cluster
from tests.conftest import ROOT
from tests.training.bases import write_base
from tests.training.commands import few_rows, run, run_here
from training.fit.epoch_diagnostics import LOG, read_log

RECIPE = (
    "--seeds",
    "2",
    "--folds",
    "2",
    "--epochs",
    "4",
    "--learning-rate",
    "5e-3",
    "--head-learning-rate",
    "5e-3",
    "--batch-rows",
    "4",
)


@pytest.mark.slow
def test_a_killed_worker_and_a_killed_fine_tuning_leave_the_bundle_of_one_machine(tmp_path: Path) -> None:
    rows, base = few_rows(tmp_path / "rows.csv"), write_base(tmp_path / "base")
    options = ("fit", "--data", rows, "--base", base, *RECIPE)
    here = run(*options, "--out", tmp_path / "here")
    assert here.returncode == 0, here.stderr

    command = [cluster.python(), "-m", "training", *options, "--engine", "ray", "--out", tmp_path / "there"]
    process = subprocess.Popen(
        [str(one) for one in command], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        env=cluster.variables(),
    )  # fmt: skip
    # Of the fine-tuning of the first fold the worker that runs it, of the second its own process.
    wanted = {"0": 1, "1": 0}
    try:
        while wanted and process.poll() is None:
            for one in cluster.descendants(process.pid):
                if "training.fit.process" in one[2] and (place := wanted.pop(one[2].split()[-1], None)) is not None:
                    os.kill(one[place], signal.SIGKILL)
            time.sleep(0.02)
        _, stderr = process.communicate(timeout=240)
    finally:
        process.kill()
    assert not wanted, stderr
    assert process.returncode == 0, stderr
    for name in ("model.safetensors", "calibration.json", "evaluation.json", "reference.json", "tokenizer.json"):
        assert (tmp_path / "there" / name).read_bytes() == (tmp_path / "here" / name).read_bytes(), name
    assert read_bundle(tmp_path / "there").evaluation["rows"] == 120
    logs = [read_log(tmp_path / f"{name}.training" / LOG) for name in ("here", "there")]
    losses = [{(one.phase, one.epoch): one.loss for one in log} for log in logs]
    assert losses[0] == losses[1]


def test_without_ray_it_says_how_to_get_it(tmp_path: Path) -> None:
    done = run_here("fit", "--engine", "ray", "--out", tmp_path / "b", "--quiet")
    assert done.returncode == 1
    assert "Ray is not installed" in done.stderr
    assert "./run setup cluster" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    done = run_here("fit", "--address", "auto", "--out", tmp_path / "b", "--quiet")
    assert done.returncode == 1
    assert "--address is for --engine ray" in done.stderr
    assert not list(tmp_path.iterdir())
