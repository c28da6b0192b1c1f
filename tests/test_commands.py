"""The commands of README.md and docs/: their flags exist, and they do what the page says or are known not to be run.

Each page's run in a folder of its own, in the order of the page, README.md's first.
"""

import csv
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.bundle.signature import make_keys
from models.predictor import Predictor
from models.rows import Row
from tests.conftest import ROOT
from tests.documented_commands import Line, lines, parse, started
from tests.service.store.commands import fill, label
from tests.training.bases import write_base
from training.data.table import read_table

LINES = lines()
NOT_RUN = {
    "./run serve": "it serves until it is stopped: tests/service/test_real.py",
    "./run test": "these tests",
    "./run check": "its steps are the checks of the repository",
    "./run mutate": "minutes: tests/mutation.py",
    "./run bench": "minutes: tests/benchmarks",
    "./run notebooks": "tests/test_notebooks.py",
    "./run docs": "it needs an environment of its own",
    "./run setup": "it installs packages: tests/test_run.py",
    "./run cluster": "Ray: tests/deploy",
    "./run score --engine ray": "Ray: tests/service/scoring/test_ray.py",
    "./run train fit --engine ray": "Ray: tests/training/fit/test_ray_fit.py",
    ".venv/bin/mlx.launch": "several processes: tests/training/fit/test_data_parallel.py",
    "./run train push": "a bucket or a hub: tests/models/bundle, tests/training/bundle/test_hub.py",
    "./run train pull": "a bucket or a hub: tests/models/bundle, tests/training/bundle/test_hub.py",
    "./run train compare-losses": "minutes: tests/training/loss_study",
    "./run load capacity": "it needs a ramp before it: tests/loadtest",
    "./run load plan --requests-per-second 1e4 --p99": "it needs a ramp before it: tests/loadtest",
    "./run load": "load for ten seconds and more: tests/loadtest",
    "./run train fit --data new.csv": "the same fit as README.md's, of other rows",
    "./run train fit --data out.csv": "the fit of an export: tests/service/store/test_export.py",
    "./run train precision --bundle artifacts/titanic --out": "the same as without --out",
}  # fmt: skip
"""What a line begins with → why it is not run here."""
RUN = ("./run load plan --requests-per-second 1e4 --replica-rate",)
"""What `NOT_RUN` would leave out, and is run all the same."""
SHORT = ("--epochs", "1", "--folds", "2", "--seeds", "1", "--quiet")
"""Added to a fit, beside a small base."""
REFUSING = ("./run train promote",)
"""Their exit code is a verdict, which few rows do not give."""
ROWS = 120


def reason(line: Line) -> str | None:
    """Why a line is not run."""
    if line.text.startswith(RUN):
        return None
    return next((why for start, why in NOT_RUN.items() if f"{line.text} ".startswith(f"{start} ")), None)


def test_there_are_commands_and_no_reason_is_left_over() -> None:
    assert len(LINES) > 60
    used = {reason(line) for line in LINES}
    assert set(NOT_RUN.values()) <= used


@pytest.mark.parametrize("line", LINES, ids=str)
def test_its_flags_and_arguments_are_known(line: Line) -> None:
    words = started(line.words)
    if isinstance(words, int):
        assert words == 0
    else:
        parse(words)


@pytest.mark.parametrize(
    "text",
    [
        "./run sevre", "./run serve --prot 80", "./run train fit --out", "./run train evaluate --bundle a --rows b",
        "./run bench nothing", "./run load --rate", "./run score in.csv", "./run test tests/none/such.py",
        "./run serve --port many", "./run load --spawn-rate 3", "./run python -m service keys new",
    ],
)  # fmt: skip
def test_a_wrong_line_would_be_seen(text: str) -> None:
    words = started(text.split())
    if isinstance(words, int):
        assert words != 0
        return
    with pytest.raises((SystemExit, AssertionError, ValueError)):
        parse(words)


class Workspace:
    """A folder for each page, with the bundles and tables that it speaks of."""

    def __init__(self, folder: Path):
        self._folder, self._base = folder, write_base(folder / "base")
        self._titanic, self._churn = folder / "bundles" / "titanic", folder / "bundles" / "churn"
        self.seconds: dict[str, float] = {}

    def page(self, name: str) -> Path:
        folder = self._folder / name.removesuffix(".md")
        (folder / "data").mkdir(parents=True)
        (folder / "new").mkdir()
        head, *passengers = (ROOT / "data" / "titanic.csv").read_text().splitlines(keepends=True)
        (folder / "data" / "titanic.csv").write_text("".join([head, *passengers[:ROWS]]))
        (folder / "new" / "titanic.csv").write_text("".join([head, *passengers[ROWS : 2 * ROWS]]))
        write_customers(folder / "customers.csv", seed=0)
        write_customers(folder / "new" / "customers.csv", seed=1)
        return folder

    def give(self, folder: Path) -> None:
        """The bundles, and rows that each page has under names of its own."""
        self._keep_first(folder)
        titanic, churn = folder / "artifacts" / "titanic", folder / "artifacts" / "churn"
        for source, to in ((self._titanic, titanic), (self._churn, churn)):
            shutil.copytree(source, to, dirs_exist_ok=True)
        for name in ("late.csv", "unseen.csv", "other.csv", "IN.csv"):
            write_outcomes(folder / "new" / "titanic.csv", titanic, folder / name)
        write_outcomes(folder / "new" / "customers.csv", churn, folder / "outcomes.csv")
        GIVEN.get(folder.name, lambda _: None)(folder)

    def _keep_first(self, folder: Path) -> None:
        if not self._titanic.exists():
            shutil.copytree(folder / "artifacts" / "other", self._titanic)
            shutil.copytree(folder / "artifacts" / "churn", self._churn)

    def run(self, line: Line, folder: Path) -> None:
        words = started(line.words, folder / "artifacts" / "titanic")
        if isinstance(words, int):
            assert words == 0
            return
        if line.text.startswith("./run train fit"):
            words += ["--base", str(self._base), *SHORT]
        began = time.perf_counter()
        variables = {name: each for name, each in os.environ.items() if not name.startswith("EVENKEEL_")}
        done = subprocess.run(
            [sys.executable, *words], cwd=folder, env={**variables, "PYTHONPATH": str(ROOT)}, capture_output=True,
            text=True, timeout=120,
        )  # fmt: skip
        self.seconds[str(line)] = time.perf_counter() - began
        allowed = (0, 1) if line.text.startswith(REFUSING) else (0,)
        assert done.returncode in allowed, f"{line}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
        assert "Traceback" not in done.stderr
        if line.output is not None:
            (folder / line.output).write_text(done.stdout)


def write_customers(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["contract", "tenure", "bill", "churned"])
        for _ in range(ROWS):
            contract, bill = rng.choice(["monthly", "yearly"]), round(float(rng.uniform(5, 120)), 2)
            churned = rng.random() < (0.8 if contract == "monthly" else 0.2)
            out.writerow([contract, rng.integers(0, 60), bill, "yes" if churned else "no"])


def write_outcomes(source: Path, bundle: Path, to: Path) -> list[tuple[Row, str]]:
    """Rows with outcomes that the bundle's model ranks, though not without mistakes; the rows and class names."""
    predictor = Predictor.load(bundle)
    schema = predictor.bundle.schema
    table = read_table(source, schema, fitting=False)
    z = np.diff(predictor.logits(predictor.render(table.rows)))[:, 0]
    noise = np.random.default_rng(1).normal(0, z.std(), len(z))
    classes = [schema.label.classes[int(up)] for up in z + noise > np.median(z)]
    cells = list(csv.DictReader(source.read_text().splitlines()))
    with to.open("w", newline="") as file:
        out = csv.DictWriter(file, cells[0])
        out.writeheader()
        out.writerows({**row, schema.label.column: each.value} for row, each in zip(cells, classes, strict=True))
    return list(zip(table.rows, (each.name for each in classes), strict=True))


def log(folder: Path, bundle: Path, rows: list[tuple[Row, str]]) -> list[str]:
    """Fill the store that is the default with predictions of the rows; their ids."""
    store = folder / "artifacts" / "state" / "predictions.sqlite"
    store.parent.mkdir(parents=True)
    inputs = [msgspec.json.encode(row).decode() for row, _ in rows]
    return fill(str(store), inputs, schema=Predictor.load(bundle).bundle.schema)


def for_outcomes(folder: Path) -> None:
    bundle = folder / "artifacts" / "titanic"
    rows = write_outcomes(folder / "new" / "titanic.csv", bundle, folder / "rows.csv")
    ids = log(folder, bundle, rows)
    named = [f"{id},{name}\n" for id, (_, name) in zip(ids, rows, strict=True)]
    (folder / "late.csv").write_text("id,outcome\n" + "".join(named))


def for_tables(folder: Path) -> None:
    bundle = folder / "artifacts" / "churn"
    rows = write_outcomes(folder / "new" / "customers.csv", bundle, folder / "unseen.csv")
    ids = log(folder, bundle, rows)
    label(
        str(folder / "artifacts" / "state" / "predictions.sqlite"), *zip(ids, (name for _, name in rows), strict=True)
    )


def for_lifecycle(folder: Path) -> None:
    make_keys(folder / "key.pem", folder / "key.pub.pem")
    shutil.copytree(folder / "artifacts" / "titanic", folder / "artifacts" / "next")


GIVEN: dict[str, Callable[[Path], Any]] = {
    "outcomes": for_outcomes, "tables": for_tables, "lifecycle": for_lifecycle,
}  # fmt: skip


@pytest.mark.slow
def test_they_run(tmp_path: Path) -> None:
    """A command that another page has run already in the same words is not run again."""
    workspace, done = Workspace(tmp_path), set[str]()
    for page in dict.fromkeys(line.page for line in LINES):
        mine = [line for line in LINES if line.page == page and reason(line) is None and line.text not in done]
        if not mine:
            continue
        folder, given = workspace.page(page.name), False
        for line in mine:
            if not makes_bundle(line) and not given:
                workspace.give(folder)
                given = True
            workspace.run(line, folder)
            done.add(line.text)
    print(*(f"{seconds:6.1f} s  {line}" for line, seconds in workspace.seconds.items()), sep="\n")


def makes_bundle(line: Line) -> bool:
    """Whether it is one of those that need nothing, and that others need."""
    return line.text.startswith(("./run train describe", "./run train fit"))
