"""./run: what a user sees when it works, and one plain sentence when it cannot."""

import ast
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from locks import environments, lockfiles
from tests.conftest import ROOT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what ./run itself needs, with nothing set up."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("run", "pyproject.toml"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(ROOT / "locks", folder / "locks", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(folder / "run"), *arguments], capture_output=True, text=True, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_help_names_every_command_and_no_command_is_wrong_use(project: Path) -> None:
    helped = run(project, "--help")
    assert helped.returncode == 0
    commands = "serve outcomes export train test check load bench cluster setup lock"
    for command in commands.split():
        assert f"./run {command}" in helped.stdout
    assert run(project).returncode == 2
    unnamed = run(project, "cluster", "deploy")
    assert unnamed.returncode == 2
    assert "./run cluster ray …" in unnamed.stderr
    unknown = run(project, "sevre")
    assert unknown.returncode == 2
    assert "there is no command 'sevre'; there are serve" in unknown.stderr


@pytest.mark.parametrize("name", ["run", "locks/environments.py", "locks/lockfiles.py"])
def test_it_uses_the_standard_library_only_and_old_pythons_can_read_it(name: str) -> None:
    tree = ast.parse((ROOT / name).read_text(), feature_version=(3, 6) if name == "run" else None)
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= {*sys.stdlib_module_names, "locks"}


def test_a_python_too_old_is_told(project: Path) -> None:
    source = (project / "run").read_text().replace("(3, 11)", "(3, 99)")
    (project / "run").write_text(source)
    # Nor is anything of ours imported, which an old Python may fail to read.
    (project / "locks" / "environments.py").write_text("raise SyntaxError")
    done = run(project, "serve")
    assert done.returncode == 1
    assert "call it with Python 3.11 or later" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_no_network_is_one_sentence(project: Path) -> None:
    nowhere = "http://127.0.0.1:9/simple"
    done = run(
        project, "setup", PIP_INDEX_URL=nowhere, PIP_EXTRA_INDEX_URL="", PIP_FIND_LINKS="", PIP_CONFIG_FILE=os.devnull,
        PIP_RETRIES="0",
    )  # fmt: skip
    assert done.returncode == 1
    assert "is the network, or your package index, within reach?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_cannot_be_written_is_one_sentence(project: Path) -> None:
    # A file where a folder must be: it fails for root too, whom permissions do not stop.
    (project / ".setup.lock").mkdir()
    done = run(project, "setup")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_set_up_once_found_again_and_made_anew_when_broken(project: Path) -> None:
    first = run(project, "python", "-c", "import mlx.core, litestar; print('works')")
    assert first.stdout == "works\n", first.stderr
    assert "setting up .venv" in first.stderr
    second = run(project, "python", "-c", "print('again')")
    assert (second.stdout, second.stderr) == ("again\n", "")
    assert run(project, "python", "-c", "raise SystemExit(7)").returncode == 7
    interpreter = project / ".venv" / "bin" / "python"
    interpreter.unlink()
    interpreter.symlink_to("/nonexistent/python")
    third = run(project, "python", "-c", "import mlx.core; print('mended')")
    assert third.stdout == "mended\n", third.stderr
    (project / ".venv" / "evenkeel.stamp").unlink()
    assert "setting up .venv" in run(project, "setup").stderr


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        ([], {}, "core"),
        (["--store", "postgresql://h/d"], {}, "postgres"),
        (["--store=postgres://h/d?a=b", "--port", "1"], {}, "postgres"),
        ([], {"EVENKEEL_STORE": "postgresql://h/d"}, "postgres"),
        (["--store", "s.sqlite"], {"EVENKEEL_STORE": "postgresql://h/d"}, "core"),
        (["--bundle", "s3://b/p"], {}, "bucket"),
        (["--shadow=s3://b/p", "--store", "postgresql://h/d"], {}, "bucket"),
        (["pull", "s3://b/p"], {}, "bucket"),
        ([], {"EVENKEEL_BUNDLE": "s3://b/p"}, "bucket"),
    ],
)
def test_a_database_and_a_bucket_bring_their_clients(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], environment: dict[str, str], expected: str
) -> None:
    for name in ("EVENKEEL_STORE", "EVENKEEL_BUNDLE", "EVENKEEL_SHADOW"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    script = runpy.run_path(str(ROOT / "run"), run_name="script")
    assert script["environment_for"](flags) == expected


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SERVICE_NAME": "x"}, False),
    ],
)
def test_traces_that_are_asked_for_bring_what_sends_them(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: bool
) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    script = runpy.run_path(str(ROOT / "run"), run_name="script")
    assert script["asks_traces"]() is expected
    # MLX serves from an environment of its own, a CPU from one that has what sends traces anyway.
    served = script["serving_environment"](["--engine", "mlx"])
    assert (served == "otel") is expected


def test_a_file_of_settings_says_what_is_served_and_what_that_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("EVENKEEL_STORE", "EVENKEEL_BUNDLE", "EVENKEEL_SHADOW", "EVENKEEL_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    config = tmp_path / "settings.toml"
    config.write_text('bundle = "artifacts/mine"\nstore = "postgresql://h/d"\n')
    script = runpy.run_path(str(ROOT / "run"), run_name="script")
    started: list[tuple[Any, ...]] = []
    script["serve"].__globals__["environment"] = lambda name: tmp_path / name
    script["serve"].__globals__["replace_process"] = lambda *words: started.append(words) or 0
    assert script["serve"](["--config", str(config)]) == 0
    # Neither is the usual bundle trained, nor served in place of the file's.
    (name,) = {words[0].name for words in started}
    assert name in ("serve", "postgres")
    assert started == [(tmp_path / name, "-m", "service", "--config", str(config))]
    monkeypatch.setenv("EVENKEEL_CONFIG", str(config))
    assert script["environment_for"]([]) == "postgres"
    config.write_text("not TOML")
    assert script["environment_for"]([]) == "core"


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["in.csv", "out.csv"], "core"),
        (["in", "out", "--engine", "ray"], "cluster"),
        (["--engine=ray", "in", "out"], "cluster"),
        (["fit", "--engine", "local", "--out", "ray"], "core"),
    ],
)
def test_the_ray_engine_brings_ray(flags: list[str], expected: str) -> None:
    script = runpy.run_path(str(ROOT / "run"), run_name="script")
    assert script["environment_for"](flags) == expected


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """./run as a module, on a machine with no environment, no GPU and no settings."""
    for name in ("EVENKEEL_STORE", "EVENKEEL_BUNDLE", "EVENKEEL_SHADOW", "EVENKEEL_CONFIG", "EVENKEEL_ENGINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    shutil.copytree(ROOT / "locks", tmp_path / "locks")
    loaded = runpy.run_path(str(ROOT / "run"), run_name="script")
    names = loaded["serve"].__globals__
    names["GPU_DEVICES"] = (str(tmp_path / "nvidiactl"),)
    names["BUNDLE"] = tmp_path / "titanic"
    names["replace_process"] = names["call"] = lambda *words, **_: names["started"].append(words) or 0
    names["environment"] = lambda name: names["started"].append((name,)) or Path(name)
    names["started"] = []
    return loaded


def made(name: str, root: Path) -> None:
    """As if ./run setup had made that environment."""
    environment = environments.Environment(name)
    environment.python.parent.mkdir(parents=True)
    environment.python.touch()
    (environment.folder / "evenkeel.stamp").write_text(environments._identity(root / "locks" / f"{name}.txt"))


@pytest.mark.skipif(sys.platform != "linux", reason="on macOS MLX serves")
def test_what_only_serves_gets_the_small_environment(
    script: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = script["serving_environment"]
    for flags in ([], ["--bundle", "b"], ["--bundle", "s3://b/p"], ["--store", "postgresql://h/d"], ["--engine=onnx"]):
        assert chosen(flags) == "serve"
    assert chosen(["--engine", "mlx"]) == "core"
    assert chosen(["--engine", "ray", "in", "out"]) == "cluster"
    monkeypatch.setenv("EVENKEEL_ENGINE", "mlx")
    assert chosen([]) == "core"
    monkeypatch.delenv("EVENKEEL_ENGINE")
    (tmp_path / "nvidiactl").touch()
    assert chosen([]) == "core"
    assert chosen(["--engine", "onnx"]) == "serve"
    # A GPU is of no use where MLX cannot be installed.
    monkeypatch.setattr("platform.libc_ver", lambda: ("glibc", "2.34"))
    assert chosen([]) == "serve"
    made("core", tmp_path)
    assert chosen(["--bundle", "b"]) == "core"
    assert chosen(["--bundle", "s3://b/p"]) == "serve"


def test_a_bundle_that_is_there_is_served_without_what_trains(script: dict[str, Any], tmp_path: Path) -> None:
    script["serve"].__globals__["serving_environment"] = lambda _: "serve"
    started = script["serve"].__globals__["started"]
    assert script["serve"](["--bundle", "b"]) == 0
    assert started == [("serve",), (Path("serve"), "-m", "service", "--bundle", "b")]
    started.clear()
    assert script["serve"]([]) == 0
    assert [words[0] for words in started] == ["core", Path("core"), "serve", Path("serve")]
    assert "fit" in started[1]
    started.clear()
    (tmp_path / "titanic").mkdir()
    (tmp_path / "titanic" / "manifest.json").touch()
    assert script["serve"]([]) == 0
    assert [words[0] for words in started] == ["serve", Path("serve")]


@pytest.mark.parametrize(
    ("system", "machine", "version", "name", "sentence"),
    [
        ("linux", "x86_64", ("glibc", "2.35"), "core", None),
        ("linux", "x86_64", ("glibc", "2.34"), "test", "MLX, which trains, has wheels for glibc 2.35 and newer, and "),
        ("linux", "aarch64", ("glibc", "2.34"), "core", "./run serve --bundle DIR serves the bundle here"),
        ("linux", "aarch64", ("glibc", "2.28"), "serve", None),
        ("linux", "aarch64", ("glibc", "2.27"), "serve", "ONNX Runtime, which serves, has wheels for glibc 2.28"),
        ("linux", "aarch64", ("glibc", "2.27"), "moto", None),
        ("linux", "x86_64", ("", ""), "serve", "for this C library"),
        ("darwin", "arm64", "14.1", "core", None),
        ("darwin", "arm64", "13.6.1", "core", "macOS 14.0 and newer, and this is macOS 13.6.1"),
        ("darwin", "x86_64", "14.1", "serve", "Intel's Macs"),
    ],
)
def test_a_system_without_wheels_is_told_so_in_a_sentence(
    monkeypatch: pytest.MonkeyPatch, system: str, machine: str, version: Any, name: str, sentence: str | None
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("platform.libc_ver", lambda: version)
    monkeypatch.setattr("platform.mac_ver", lambda: (version, ("", "", ""), machine))
    found = environments.missing_wheels(name)
    assert found is None if sentence is None else sentence in str(found)


def test_what_is_beside_the_locks_is_added_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    shutil.copytree(ROOT / "locks", tmp_path / "locks")
    folder = tmp_path / ".venv" / "bin"

    def install(*_: object, compiled: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "python").touch()
        done.append("made")

    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "tools", lambda: tmp_path / ".tools" / "bin" / "uv")
    monkeypatch.setattr(environments, "install", install)
    monkeypatch.setattr(environments, "quiet", lambda command: done.append(" ".join(map(str, command[5:]))))
    environment, torch, cuda = environments.environment, environments.TORCH, environments.CUDA
    environment("core")
    assert done == ["made"]
    environment("core", cuda=True)
    assert done[1:] == ["uninstall --quiet --yes mlx-cpu", f"install --quiet {cuda}"]
    environment("core", torch=True, cuda=True)
    assert done[3:] == [f"install --quiet {torch}"]
    # Whoever asks for less gets what there is.
    for asked in ({}, {"torch": True}, {"cuda": True}, {"torch": True, "cuda": True}):
        environment("core", **asked)
    assert len(done) == 4
    (tmp_path / "locks" / "core.txt").write_text("# another lock\n")
    environment("core")
    assert done[4:] == ["made"]


def test_a_gpu_gets_the_same_mlx_as_a_cpu() -> None:
    version = environments.CUDA.split("==")[1]
    assert f"mlx[cpu]=={version}; sys_platform" in (ROOT / "pyproject.toml").read_text()


def test_a_step_of_the_check_that_is_not_there_is_wrong_use(project: Path) -> None:
    done = run(project, "check", "fromat")
    assert done.returncode == 2
    assert "there is no step 'fromat'; there are format" in done.stderr


def test_a_lock_without_a_wheel_for_another_system_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(ROOT / "locks", tmp_path / "locks")
    monkeypatch.setattr(lockfiles, "ROOT", tmp_path)
    monkeypatch.setattr(lockfiles, "NAMES", ("moto",))
    assert lockfiles.unavailable_locks() == []
    path = tmp_path / "locks" / "moto.txt"
    before, pinned, after = path.read_text().partition("pyyaml==")
    path.write_text(before + pinned + after.replace("sha256:", "sha256:00", after.split("# via")[0].count("sha256:")))
    faults = lockfiles.unavailable_locks()
    assert len(faults) == 2
    assert all("pyyaml" in fault and "has no wheel for" in fault for fault in faults)


def test_locks_are_hashed_and_name_no_address() -> None:
    for path in (ROOT / "locks").glob("*.txt"):
        if path.stem == "excludes":
            continue
        text = path.read_text()
        assert "://" not in text
        pinned = [line for line in text.splitlines() if line[:1].isalnum()]
        assert pinned
        assert all("==" in line and line.endswith("\\") for line in pinned), path
        assert not any(line.startswith(("torch==", "nvidia")) for line in pinned)
