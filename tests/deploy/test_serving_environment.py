"""The environment that only serves: a real service in it, without MLX and without what training needs."""

import json
import subprocess
from pathlib import Path

import httpx
import pytest

from deploy import licences
from models.engines.engine import NAMES
from models.predictor import Predictor
from tests.conftest import ROOT
from tests.deploy.programs import free_port, need_environment, running, wait
from tests.models.engines.networks import ON_A_CPU

ROWS = [{"pclass": 1, "sex": "female", "age": 38}, {"pclass": 3, "sex": "male"}]

ABSENT = ("mlx", "sklearn", "pandas", "scipy", "scipy_openblas32", "threadpoolctl", "huggingface_hub", "torch", "rich")
MAX_MEGABYTES = 350


@pytest.fixture(scope="module")
def python() -> Path:
    return need_environment("serve")


def ask(python: Path, code: str) -> object:
    done = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_has_what_its_lock_names_and_nothing_of_training(python: Path) -> None:
    listed = ask(
        python,
        "import json; from importlib import metadata; "
        "print(json.dumps([[one.name, one.version] for one in metadata.distributions()]))",
    )
    assert isinstance(listed, list)
    there = {(name.lower().replace("_", "-"), version) for name, version in listed}
    assert there <= {(one.name, one.version) for one in licences.locked("serve")}
    found = ask(
        python, f"import json, importlib.util as u; print(json.dumps([n for n in {ABSENT!r} if u.find_spec(n)]))"
    )
    assert found == []


def test_it_is_small(python: Path) -> None:
    (packages,) = (python.parents[1] / "lib").glob("python*/site-packages")
    size = sum(path.stat().st_size for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert size < MAX_MEGABYTES * 1e6


@pytest.mark.slow
def test_it_serves_and_scores_a_bundle(python: Path, bundle_folder: Path, tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{(port := free_port())}"
    flags = ["--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--store", tmp_path / "log.sqlite"]
    with running([python, "-W", "error", "-m", "service", *flags], tmp_path / "service.log"):
        wait(lambda: httpx.get(f"{url}/health/ready").status_code == 200, 60)
        answers = [httpx.post(f"{url}/v1/predict", json=row).json() for row in ROWS]
        assert httpx.get(f"{url}/v1/model").json()["backend"]["engine"] == ON_A_CPU
        assert httpx.post(f"{url}/v1/explain", json=ROWS[0]).status_code == 200
        for path in ("/", "/schema", "/schema/openapi.json", "/metrics", "/v1/drift", "/v2"):
            assert httpx.get(f"{url}{path}").status_code == 200, path
    assert NAMES[ON_A_CPU] in (tmp_path / "service.log").read_text()
    (tmp_path / "rows.csv").write_text("Pclass,Sex\n1,female\n3,male\n")
    done = subprocess.run(
        [python, "-m", "service", "score", tmp_path / "rows.csv", tmp_path / "scored.csv", "--bundle", bundle_folder],
        cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "scored.csv").read_text().splitlines()) == 3
    expected = [one.probability for one in Predictor.load(bundle_folder).predict(ROWS)]
    assert [answer["probability"] for answer in answers] == pytest.approx(expected, abs=1e-6)
