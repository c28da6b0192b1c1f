"""Bundles on the model hub, by the real client in processes of their own: its address is read when it is imported."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from models.bundle.manifest import MANIFEST
from models.bundle.read import Bundle, read_bundle
from tests.conftest import ROOT
from tests.hub import Repositories, hub
from training.bundle.hub import HubError, HubURI


@pytest.fixture
def server() -> Iterator[tuple[str, Repositories]]:
    with hub() as running:
        yield running


def train(address: str, home: Path, *words: object, token: str = "hf_test") -> subprocess.CompletedProcess[str]:
    variables = {
        "HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, "-m", "training", *map(str, words)], cwd=ROOT, env={**os.environ, **variables},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_bundle_is_pushed_and_pulled_and_what_an_older_one_left_goes(
    server: tuple[str, Repositories], tiny_bundle: Bundle, tmp_path: Path
) -> None:
    address, repositories = server
    repositories["me/churn"] = [{"left.json": b"{}", ".gitattributes": b"*.safetensors filter=lfs"}]
    done = train(address, tmp_path / "home", "push", tiny_bundle.folder, "hf://me/churn")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"hf://me/churn@{1:040x} holds the bundle\n"
    held = {path.name: path.read_bytes() for path in tiny_bundle.folder.iterdir()}
    assert {name: content for name, content in repositories["me/churn"][-1].items() if name[0] != "."} == held
    repositories["me/churn"][-1][".gitattributes"] = b""

    for reference in ("hf://me/churn", f"hf://me/churn@{1:040x}"):
        done = train(address, tmp_path / "home", "pull", reference, "--into", tmp_path / "pulled")
        assert (done.returncode, done.stderr) == (0, "")
        folder = Path(done.stdout.strip())
        assert folder == tmp_path / "pulled" / read_bundle(tiny_bundle.folder).version
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == held
    assert [path.name for path in (tmp_path / "pulled").iterdir()] == [folder.name]


def test_what_was_changed_on_the_way_is_refused_by_name_and_leaves_nothing(
    server: tuple[str, Repositories], tiny_bundle: Bundle, tmp_path: Path
) -> None:
    address, repositories = server
    files = {path.name: path.read_bytes() for path in tiny_bundle.folder.iterdir()}
    into = tmp_path / "pulled"
    for changed, told in (
        (files | {"calibration.json": files["calibration.json"] + b" "}, "calibration.json"),
        (files | {"extra.py": b"pass"}, "has extra.py of 4 bytes, which no bundle has"),
        ({name: content for name, content in files.items() if name != MANIFEST}, MANIFEST),
    ):
        repositories["me/churn"] = [changed]
        done = train(address, tmp_path / "home", "pull", "hf://me/churn", "--into", into)
        assert done.returncode == 1
        assert told in done.stderr
        assert "Traceback" not in done.stderr
        assert list(into.iterdir()) == []


def test_what_is_not_there_or_not_allowed_is_said(
    server: tuple[str, Repositories], tiny_bundle: Bundle, tmp_path: Path
) -> None:
    address, repositories = server
    repositories["me/churn"] = [{}]
    home = tmp_path / "home"
    for words, token, told in (
        (("pull", "hf://me/nothing"), "hf_test", "there is no such repository"),
        (("pull", "hf://me/churn@v2"), "hf_test", "there is no such revision"),
        (("push", tiny_bundle.folder, "hf://me/churn"), "bad", "access is denied to this token"),
        (("push", tiny_bundle.folder, "hf://me/churn@v2"), "hf_test", "a bundle is pushed to hf://me/churn"),
        (("push", tmp_path, "hf://me/churn"), "hf_test", "is missing"),
    ):
        done = train(address, home, *words, token=token)
        assert done.returncode == 1
        assert told in done.stderr
        assert "Traceback" not in done.stderr
    shutil.rmtree(home, ignore_errors=True)
    done = train("http://127.0.0.1:9", home, "pull", "hf://me/churn", "--into", tmp_path / "pulled")
    assert (done.returncode, "the hub cannot be reached" in done.stderr) == (1, True)


@pytest.mark.parametrize("reference", ["hf://me", "hf://me/", "hf://me/a/b", "hf://me/churn@", "https://me/churn"])
def test_references_that_are_none(reference: str) -> None:
    with pytest.raises(HubError, match="is not hf://OWNER/NAME"):
        HubURI.parse(reference)
