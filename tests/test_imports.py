"""The house rule: service → models ← training, MLX in few places, and nothing happens on import."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MLX = ("models/bert/", "models/engines/", "training/losses/", "training/fit/")
FILES = sorted(path for package in ("models", "training", "service") for path in (ROOT / package).rglob("*.py"))


def imported(path: Path) -> set[str]:
    """First names of what a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            names.add(str(node.module).split(".")[0])
    return names


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_one_way(path: Path) -> None:
    names = imported(path)
    forbidden = {"models": {"training", "service"}, "training": {"service"}, "service": {"training"}}[
        path.relative_to(ROOT).parts[0]
    ]
    assert not names & (forbidden | {"tests", "benchmarks", "loadtest", "pickle", "joblib"})
    if not str(path.relative_to(ROOT)).startswith(MLX):
        assert "mlx" not in names


@pytest.mark.parametrize(
    "path", sorted((ROOT / "loadtest").rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT))
)
def test_the_load_test_knows_the_service_by_http_and_the_model_by_its_package(path: Path) -> None:
    names = imported(path)
    assert not names & {"service", "tests", "benchmarks", "mlx"}
    if "training" in names:
        assert set(re.findall(r"(?:from|import) (training[\w.]*)", path.read_text())) == {"training.report.svg"}
    assert path.name in ("locustfile.py", "users.py", "run.py") or not names & {"locust", "gevent"}


def test_pictures_need_the_standard_library_only() -> None:
    assert imported(ROOT / "training" / "report" / "svg.py") <= sys.stdlib_module_names


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_service_loads_nothing_that_only_training_needs() -> None:
    heavy = "{'pandas', 'matplotlib', 'sklearn', 'scipy', 'torch', 'transformers', 'rich'}"
    assert run(f"import sys, service.__main__; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_nothing_happens_on_import() -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in FILES if path.stem != "__init__"]
    code = f"""
import importlib, threading, prometheus_client
before = set(prometheus_client.REGISTRY._names_to_collectors)
for name in {modules!r}:
    importlib.import_module(name)
print(set(prometheus_client.REGISTRY._names_to_collectors) == before, threading.active_count())
"""
    assert run(code) == "True 1"


def test_no_init_file_has_content() -> None:
    for package in ("models", "training", "service"):
        assert all(path.read_text() == "" for path in (ROOT / package).rglob("__init__.py"))
