"""Every example, run as its README says: against a real service, or on a real bundle."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest

from models.bundle.read import read_bundle
from models.frames import read_frame
from models.predictor import Predictor
from tests.conftest import ROOT
from tests.deploy.programs import free_port
from tests.service.test_real import start, wait_ready
from tests.titanic import ROWS

EXAMPLES = ROOT / "examples"
COMMANDS = {
    "curl.sh": ["sh"], "client.py": [sys.executable, "-W", "error"], "client.mjs": ["node"],
    "data_frame.py": [sys.executable, "-W", "error"], "scikit_learn.py": [sys.executable, "-W", "error"],
    "explain.py": [sys.executable, "-W", "error"], "own_table.py": [sys.executable, "-W", "error"],
}  # fmt: skip
OVER_HTTP = ("curl.sh", "client.py", "client.mjs")


def run(name: str, *arguments: object, seconds: float = 120, **environment: object) -> subprocess.CompletedProcess[str]:
    command, program = COMMANDS[name], COMMANDS[name][0]
    if shutil.which(program) is None or (name == "curl.sh" and shutil.which("curl") is None):
        if os.environ.get("CI") == "true":
            pytest.fail(f"what {name} needs is not installed")
        pytest.skip(f"what {name} needs is not installed (on Debian: apt-get install curl nodejs)")
    held = {**os.environ, "PYTHONPATH": str(ROOT), **{key: str(value) for key, value in environment.items()}}
    return subprocess.run(
        [*command, EXAMPLES / name, *map(str, arguments)],
        cwd=ROOT, env=held, capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip


@pytest.fixture(scope="module")
def service(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port, store = free_port(), tmp_path_factory.mktemp("store") / "predictions.sqlite"
    process = start("--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--store", store, "--state", "")
    wait_ready(f"http://127.0.0.1:{port}", process)
    yield f"http://127.0.0.1:{port}"
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr


def test_the_readme_names_every_example_and_no_other() -> None:
    there = {path.name for path in EXAMPLES.iterdir() if path.suffix in (".py", ".mjs", ".sh")}
    assert there == set(COMMANDS)
    named = set(re.findall(r"examples/([\w.]+)", (EXAMPLES / "README.md").read_text()))
    assert named == there | {path.name for path in EXAMPLES.glob("*.ipynb")}


@pytest.mark.parametrize("name", OVER_HTTP)
def test_clients_of_a_service(service: str, name: str) -> None:
    done = run(name, BASE=service)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert "did you mean" in done.stdout
    assert "no drift test alarms" in done.stdout
    assert '"counted":1' in done.stdout or "outcomes: 2 counted, 0 repeated, 0 unknown" in done.stdout


def test_the_two_clients_print_the_same(service: str) -> None:
    assert run("client.py", BASE=service).stdout == run("client.mjs", BASE=f"{service}/").stdout


@pytest.mark.parametrize("name", OVER_HTTP)
def test_clients_fail_where_no_service_is(name: str) -> None:
    done = run(name, BASE=f"http://127.0.0.1:{free_port()}")
    assert done.returncode != 0
    assert done.stderr.count("\n") == 1


def test_a_client_of_a_service_without_a_store(bundle_folder: Path) -> None:
    port = free_port()
    process = start("--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--state", "")
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    for name in OVER_HTTP:
        done = run(name, BASE=url, STORE="none")
        assert done.returncode == 0, done.stderr
        assert "started without a store" in done.stdout
    process.terminate()
    process.communicate(timeout=30)


def test_a_data_frame_with_columns_added(bundle_folder: Path, small_csv: Path, tmp_path: Path) -> None:
    done = run("data_frame.py", small_csv, tmp_path / "scored.csv", EVENKEEL_BUNDLE=bundle_folder)
    assert done.returncode == 0, done.stderr
    assert "240 rows written" in done.stdout
    scored, plain = pd.read_csv(tmp_path / "scored.csv"), pd.read_csv(small_csv)
    assert scored[list(plain)].equals(plain)
    wanted = [one.probability for one in Predictor.load(bundle_folder).predict(read_frame(plain, ROWS))]
    assert scored["probability"].tolist() == pytest.approx(wanted, abs=1e-5)
    assert len(set(wanted)) > 10


@pytest.mark.slow
def test_scikit_learn(bundle_folder: Path, small_csv: Path) -> None:
    done = run("scikit_learn.py", small_csv, EVENKEEL_BUNDLE=bundle_folder)
    assert done.returncode == 0, done.stderr
    assert re.search(r"log loss 0\.\d{4}, from 0\.\d{4} to 0\.\d{4} over 5 folds of one model", done.stdout)
    assert done.stdout.count("#\n") >= 4
    assert "these rows trained the bundle" in done.stdout


@pytest.mark.slow
def test_a_table_of_ones_own(tmp_path: Path) -> None:
    done = run("own_table.py", tmp_path, seconds=600, OWN_TABLE_STEPS="30")
    assert done.returncode == 0, done.stderr
    for step in ("describe", "fit", "serve", "export", "recalibrate", "promote"):
        assert re.search(rf"^\$ ./run (train )?{step} ", done.stdout, re.MULTILINE)
    assert done.stdout.count("P(malignant) = ") == 3
    assert "outcomes: 120 counted" in done.stdout
    first, then = (read_bundle(tmp_path / name) for name in ("tumours", "next"))
    assert (first.schema.row, first.schema.classes) == ("tumour", ("benign", "malignant"))
    assert (then.record.rows, then.schema) == (120, first.schema)
    assert (tmp_path / "next" / "model.safetensors").read_bytes() == (
        tmp_path / "tumours" / "model.safetensors"
    ).read_bytes()


def test_an_explanation(bundle_folder: Path) -> None:
    done = run("explain.py", EVENKEEL_BUNDLE=bundle_folder)
    assert done.returncode == 0, done.stderr
    shapley = done.stdout.split("shapley:")[1]
    total, difference = re.search(r"sum +([+-][\d.]+) .* = ([+-][\d.]+)", shapley).groups()  # type: ignore[union-attr]
    assert total == difference


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {*OVER_HTTP, "own_table.py"}))
def test_those_on_a_bundle_fail_where_none_is(name: str, tmp_path: Path) -> None:
    done = run(name, EVENKEEL_BUNDLE=tmp_path / "none")
    assert done.returncode == 1
    assert done.stderr.endswith("none is not a readable folder: No such file or directory\n")
    assert done.stderr.startswith(f"{name}: ")
