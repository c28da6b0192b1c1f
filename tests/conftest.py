"""Shared by the tests: the real table, and a real bundle trained once, quickly, for the whole run."""

import os

# The threads of NumPy's and SciPy's OpenBLAS wait for the next product by spinning, for 26 ms by default: several
# processes at once take the cores from each other, a fit of two parameters up to sixteen times as long.
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "14")

import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import hypothesis
import msgspec
import pytest

from models.bundle.manifest import DataRecord
from models.bundle.read import Bundle
from models.bundle.write import write_bundle
from tests import churn, penguins
from tests.postgres import PostgresServer, binaries
from tests.tiny import ORIGIN, Contents, make_contents
from tests.titanic import SCHEMA
from tests.workers import machine, make_once
from training.data.table import Table, read_table

ROOT = Path(__file__).parents[1]
TITANIC = ROOT / "data" / "titanic.csv"

# How long an example takes is the machine's, and no failure.
hypothesis.settings.register_profile("tests", deadline=None)
# Chosen by ./run mutate: it asks whether there is a counterexample, not for the smallest.
hypothesis.settings.register_profile(
    "mutation", deadline=None, phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate], database=None,
    max_examples=60,
)  # fmt: skip
# In CI the same examples each time: what a random one finds is looked for elsewhere, and not by whoever waits for it.
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") == "true" else "tests")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell that starts the tests in the background has them ignore Ctrl-C, and so would the processes they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with slow tests first, so that no worker has a long one left when the others are done; then those with
    tests that run alone last, when few others have to wait."""
    slow, alone = (
        {item.path for item in items if item.get_closest_marker(name) is not None} for name in ("slow", "alone")
    )
    items.sort(key=lambda item: (item.path in alone, item.path not in slow))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that is marked ``alone`` runs while those of other workers wait."""
    with machine(alone=item.get_closest_marker("alone") is not None):
        return (yield)


@pytest.fixture(scope="session", autouse=True)
def _no_store() -> Iterator[None]:
    """Services that tests start write to no store but one that they name: never to the user's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EVENKEEL_STORE", "none")
        # How much the tests do is told by variables that the service, which starts from here, does not know.
        for name in [one for one in os.environ if one.startswith("EVENKEEL_TEST_")]:
            patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A real PostgreSQL server; where it is not installed its tests are skipped, in CI they fail."""
    if binaries() is None:
        reason = "PostgreSQL is not installed (on Debian: apt-get install postgresql)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def table() -> Table:
    return read_table(TITANIC, SCHEMA)


@pytest.fixture(scope="session")
def small_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first 240 passengers: enough to train something that is not nonsense in seconds."""
    path = tmp_path_factory.mktemp("data") / "small.csv"
    path.write_text("".join(TITANIC.read_text().splitlines(keepends=True)[:241]))
    return path


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory, small_csv: Path) -> Path:
    """A real bundle from the real command (in its own process: MLX is bound to threads)."""

    def fit(folder: Path) -> None:
        command = [sys.executable, "-m", "training", "fit", "--data", small_csv, "--folds", "3", "--epochs", "2"]
        subprocess.run([*command, "--seeds", "1", "--quiet", "--out", folder], check=True, cwd=ROOT, timeout=300)

    return make_once(tmp_path_factory, "titanic", fit)


@pytest.fixture(scope="session")
def transformers_classifier() -> type:
    """transformers' ``BertForSequenceClassification``; where torch is absent its tests are skipped, in CI they fail."""
    try:
        import torch  # noqa: F401
        from transformers import BertForSequenceClassification
    except ImportError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("torch is not installed: ./run setup test --torch installs it")
    return BertForSequenceClassification


@pytest.fixture(scope="session")
def tiny_contents(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return make_contents(table, tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def churn_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny bundle of another table."""
    table = churn.table()
    contents = make_contents(table, tmp_path_factory.mktemp("churn-weights"))
    counts = {name: int((table.labels == number).sum()) for number, name in enumerate(churn.SCHEMA.classes)}
    data = DataRecord(table.sha256, len(table), counts)
    return write_bundle(
        tmp_path_factory.mktemp("churn") / "churn", contents, msgspec.structs.replace(ORIGIN, data=data)
    )


@pytest.fixture(scope="session")
def penguins_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A tiny bundle of three classes."""
    return penguins.write(tmp_path_factory.mktemp("penguins"))


@pytest.fixture(scope="session")
def tiny_bundle(tiny_contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_bundle(tmp_path_factory.mktemp("whole") / "tiny", tiny_contents, ORIGIN)
