"""The house rules: service → models ← training, floors, no circle, small rooms and files, the field's words."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MLX = ("models/bert/", "models/engines/", "training/losses/", "training/fit/")
FILES = sorted(path for package in ("models", "training", "service") for path in (ROOT / package).rglob("*.py"))

PRODUCT = ("models", "training", "service", "loadtest", "deploy")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in PRODUCT
    for path in sorted((ROOT / package).rglob("*.py"))
}
FLOORS = {
    "models": ("service", "training", "loadtest", "deploy"),
    "models.bert": ("models.bundle", "models.engines", "models.predictor"),
    "training": ("service", "loadtest", "deploy"),
    "service": ("training", "loadtest", "deploy"),
    "service.http": ("service.routes", "service.app", "service.inference", "service.drift", "service.store"),
    "service.inference": ("service.http", "service.routes", "service.app"),
    "service.drift": ("service.store", "service.routes", "service.app"),
    "service.store": ("service.routes", "service.app"),
    "service.scoring": ("service.http", "service.routes", "service.app"),
}
"""Package → what it must not know, of all floors above it."""
ERRORS = {f"service.{room}.errors" for room in ("inference", "drift", "store")}
"""What HTTP knows of the rooms below it, to give each error its status."""
MAX_LINES, MAX_FILES = 350, 14
HOME_MADE = re.compile(r"\b(told|fates|Unhurried|turned_away|let_the_last_in|begin_anew|Seat|Dealer|Deck|vouch)\b")


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
    assert run(f"import sys, service.serve; print(sorted({heavy} & set(sys.modules)))") == "[]"


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


def edges() -> dict[str, set[str]]:
    """Module → the product's modules that it imports, anywhere in it."""
    found: dict[str, set[str]] = {name: set() for name in MODULES}
    for name, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found[name] |= {alias.name for alias in node.names} & MODULES.keys()
            elif isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    targets = (f"{node.module}.{alias.name}", str(node.module))
                    found[name] |= set([target for target in targets if target in MODULES][:1])
    return found


EDGES = edges()


def reached(start: str) -> set[str]:
    """All modules that importing ``start`` leads to."""
    seen, waiting = set[str](), [start]
    while waiting:
        new = EDGES[waiting.pop()] - seen
        seen |= new
        waiting += new
    return seen


def below(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


def test_no_module_is_in_an_import_circle() -> None:
    assert not {name for name in EDGES if name in reached(name)}


@pytest.mark.parametrize("package", FLOORS)
def test_no_package_knows_a_floor_above_it(package: str) -> None:
    against = {
        (name, target)
        for name, targets in EDGES.items()
        for target in targets - (ERRORS if package == "service.http" else set())
        if below(name, package) and any(below(target, upper) for upper in FLOORS[package])
    }
    assert not against


def test_no_folder_is_crowded() -> None:
    folders = {path.parent for path in MODULES.values()}
    sizes = {folder: len([path for path in folder.glob("*.py") if path.stem != "__init__"]) for folder in folders}
    assert {str(folder.relative_to(ROOT)): size for folder, size in sizes.items() if size > MAX_FILES} == {}


def test_no_file_is_long() -> None:
    files = [*MODULES.values(), ROOT / "run"]
    long = {str(path.relative_to(ROOT)) for path in files if len(path.read_text().splitlines()) > MAX_LINES}
    assert not long


def test_the_code_has_the_words_of_the_field() -> None:
    assert [str(path.relative_to(ROOT)) for path in MODULES.values() if HOME_MADE.search(path.read_text())] == []
