"""What serving is made of: locked with hashes, consistent, licensed, listed; and what of it a service loads."""

import json
import re
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

from deploy import licences, sbom
from tests.conftest import ROOT

LOCKS = sorted(path for path in (ROOT / "locks").glob("*.txt") if path.stem != "excludes")
SERVICE_LOADS = {
    "anyio", "click", "httptools", "litestar", "msgspec", "multidict", "multipart", "numpy", "onnxruntime",
    "prometheus-client", "pyyaml", "safetensors", "sniffio", "tokenizers", "typing-extensions", "uvicorn", "uvloop",
    "zstandard",
}  # fmt: skip
"""All that a running service has loaded on a plain CPU; on a GPU it is mlx in place of onnxruntime.

One more needs a reason, and its own line in what can go wrong."""


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_entry_of_a_lock_has_hashes_and_no_address(path: Path) -> None:
    text = path.read_text()
    assert "://" not in text
    assert not re.search(r"^\s*(--(extra-)?index-url|--find-links|-e |-i )", text, re.MULTILINE)
    entries = re.split(r"^(?=[A-Za-z0-9])", text, flags=re.MULTILINE)[1:]
    assert entries
    for entry in entries:
        lines = [line for line in entry.splitlines() if line.strip() and not line.strip().startswith("#")]
        assert re.match(r"^[A-Za-z0-9][A-Za-z0-9._-]*==\S+( ; .+)? \\$", lines[0]), lines[0]
        assert len(lines) > 1
        assert all(re.fullmatch(r"\s+--hash=sha256:[0-9a-f]{64}( \\)?", line) for line in lines[1:]), entry


@pytest.mark.parametrize(("lock", "excludes", "least"), [("core", "excludes.txt", 40), ("serve", "serve.excludes", 25)])
def test_what_is_locked_fits_together(lock: str, excludes: str, least: int) -> None:
    """Each package's own requirements are met by the versions of the lock, as ``pip check`` would ask."""
    versions = {one.name: one.version for one in licences.locked(lock)}
    excluded = set((ROOT / "locks" / excludes).read_text().split())
    checked = 0
    for name in versions:
        try:
            required = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for text in required:
            one = Requirement(text)
            needed = re.sub(r"[-_.]+", "-", one.name).lower()
            if (one.marker and not one.marker.evaluate({"extra": ""})) or needed in excluded:
                continue
            assert needed in versions, f"{name} needs {text}"
            assert metadata.version(needed) in one.specifier, f"{name} needs {text}, not {metadata.version(needed)}"
            checked += 1
    assert checked > least


def test_every_licence_is_known_and_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert licences.page() == licences.PAGE.read_text(encoding="utf-8"), "./run licences"
    monkeypatch.setattr(licences, "ALLOWED", licences.ALLOWED - {"MPL-2.0"})
    with pytest.raises(licences.LicenceError, match=r"certifi is under MPL-2\.0, which is not among"):
        licences.page()
    with pytest.raises(licences.LicenceError, match="no-such-package is not installed here"):
        licences.licence("no-such-package")


@pytest.mark.slow
def test_the_list_of_parts_is_whole_and_always_the_same(tmp_path: Path) -> None:
    assert sbom.main([str(tmp_path / "deep" / "sbom.json")]) == 0
    text = (tmp_path / "deep" / "sbom.json").read_text()
    assert text == sbom.sbom()
    assert str(ROOT) not in text
    document: dict[str, Any] = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert "serialNumber" not in document
    parts = {(one["name"], one["version"]): one for one in document["components"]}
    assert set(parts) == {(one.name, one.version) for one in licences.locked("core")}
    lock = sbom.LOCK.read_text()
    for one in parts.values():
        assert one["licenses"]
        hashes = [told["content"] for place in one["externalReferences"] for told in place["hashes"]]
        assert hashes
        assert all(f"sha256:{content}" in lock for content in hashes)
    needs = {one["ref"]: one["dependsOn"] for one in document["dependencies"]}
    assert any(one.startswith("litestar==") for one in needs["evenkeel"])
    assert not any(one.startswith("anyio==") for one in needs["evenkeel"])
    assert any(one.startswith("anyio==") for one in needs[next(one for one in needs if one.startswith("litestar=="))])


@pytest.mark.slow
def test_a_service_loads_no_more_than_it_needs(bundle_folder: Path) -> None:
    """After its start and a prediction, in a process of its own: by package, whatever module of it."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    code = f"""
import json, os, signal, sys, threading, time, urllib.request
from importlib import metadata
from service.__main__ import main

def visit():
    for _ in range(600):
        try:
            urllib.request.urlopen("http://127.0.0.1:{port}/health/ready").close()
            break
        except OSError:
            time.sleep(0.1)
    told = b'{{"pclass": 1, "sex": "female"}}', {{"Content-Type": "application/json"}}
    print(urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:{port}/v1/predict", *told)).status)
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=visit, daemon=True).start()
assert main(["--bundle", {str(bundle_folder)!r}, "--port", "{port}", "--grace-seconds", "0"]) == 0
owners, loaded = metadata.packages_distributions(), {{name.split(".")[0] for name in sys.modules}}
print(json.dumps(sorted({{owner.lower().replace("_", "-") for one in loaded for owner in owners.get(one, ())}})))
sys.stdout.flush()
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    status, loaded = map(json.loads, done.stdout.splitlines())
    assert status == 200
    print(loaded)
    # Litestar takes more of what the tests' own tools bring; where a service runs there is a lock alone.
    there = set(loaded) & {one.name for one in licences.locked("core")}
    if "mlx" in there:
        there = there - {"mlx", "mlx-metal"} | {"onnxruntime"}
    assert there <= SERVICE_LOADS
    assert {one.name for one in licences.locked("serve")} >= SERVICE_LOADS


def instructions() -> list[tuple[str, str]]:
    """Dockerfile.dev's instructions and their arguments, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile.dev").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [tuple(line.split(None, 1)) for line in text.splitlines() if line.strip()]  # type: ignore[misc]


def stages() -> dict[str, list[tuple[str, str]]]:
    """Image → the instructions that it is made by, without those of the stage that it begins from."""
    found: dict[str, list[tuple[str, str]]] = {}
    for kind, arguments in instructions():
        if kind == "FROM":
            found[arguments.split()[-1]] = []
        if found:
            found[list(found)[-1]].append((kind, arguments))
    return found


@pytest.mark.parametrize("image", ["serve", "train"])
def test_an_image_runs_as_nobody_in_particular_and_owns_only_its_data(image: str) -> None:
    base, own = stages()["base"], stages()[image]
    assert own[0] == ("FROM", f"base AS {image}")
    assert base[0] == ("FROM", "${BASE} AS base")
    assert own[-1][0] == "USER"
    assert int(own[-1][1]) > 0
    told = [*base, *own]
    assert not any("--chown" in arguments for kind, arguments in told if kind == "COPY")
    assert [arguments for kind, arguments in told if kind == "VOLUME"] == ['["/home/evenkeel/app/artifacts"]']
    assert "/health/ready" in next(arguments for kind, arguments in told if kind == "HEALTHCHECK")
    for kind, arguments in told:
        if kind == "COPY":
            *sources, _ = arguments.removeprefix("--from=kernels /home/evenkeel/app/").split()
            assert all((ROOT / source).exists() for source in sources), arguments


def test_the_image_that_serves_has_no_more_than_that_takes() -> None:
    told = stages()["serve"]
    assert [arguments.split()[0] for kind, arguments in told if kind == "COPY"] == [
        "models", "--from=kernels", "service",
    ]  # fmt: skip
    assert [arguments.split(" && ")[0] for kind, arguments in told if kind == "RUN"] == ["./run setup serve"]
    assert list(stages())[-1] == "train"


def test_the_kernels_are_compiled_where_the_compiler_stays_behind() -> None:
    told = stages()["kernels"]
    assert told[0] == ("FROM", "base AS kernels")
    assert ("RUN", "python3 models/engines/native/build.py") in told
    assert all("gcc" not in arguments for name in ("base", "serve", "train") for _, arguments in stages()[name])


def test_hadolint_finds_nothing() -> None:
    checker = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([checker, ROOT / "Dockerfile.dev"], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("", 0)


def test_containers_are_confined() -> None:
    services = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())["services"]
    for name, one in services.items():
        assert one["cap_drop"] == ["ALL"], name
        assert one["security_opt"] == ["no-new-privileges:true"], name
        assert not {"privileged", "cap_add", "network_mode", "pid", "devices"} & set(one), name
    ours = services["evenkeel"]
    assert ours["read_only"] is True
    assert [place.split(":")[0] for place in ours["tmpfs"]] == ["/tmp"]
    assert "noexec" in ours["tmpfs"][0].split(":")[1].split(",")
