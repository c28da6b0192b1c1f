"""The lock files: made from the requirements, and checked to be current, hashed, free of addresses and installable."""

import hashlib
import re
import subprocess
import tempfile
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from locks.environments import EXTRAS, NAMES, ROOT, STANDALONE, SetupError, child_variables, tools

PLATFORMS = {"macOS 14 on Apple Silicon": "aarch64-apple-darwin", "Linux on arm64": "aarch64-manylinux_2_35"}
"""Systems that no test runs on → uv's name for each."""

SERVING_PLATFORMS = {
    **PLATFORMS,
    "Linux on x86-64 with glibc 2.28": "x86_64-manylinux_2_28",
    "Linux on arm64 with glibc 2.28": "aarch64-manylinux_2_28",
}
"""And those that only serve: MLX has no wheels for them."""

MIN_MACOS = "14.0"
"""MLX has wheels from this version on."""

FROM_SOURCE = {"gevent"}
"""Packages that a compiler may be needed for: gevent has wheels for Python 3.12 and later on macOS, none for 3.11."""


def compile_locks(upgrade: bool) -> None:
    """Make every lock again; with ``upgrade`` from the newest packages. Raises SetupError."""
    for name in NAMES:
        path = _path(name)
        command = [str(tools()), "pip", "compile", "--universal", "--generate-hashes", "--no-emit-index-url"]
        command += ["--no-header", "--quiet", "--output-file", str(path), *_requirements(name)]
        command += ["--upgrade"] if upgrade else []
        if subprocess.call(command, env=child_variables(), cwd=ROOT):
            raise SetupError(f"the lock {path.name} could not be made; see above")
        text = path.read_text()
        if text.startswith(("# pyproject ", "# requirements ")):
            text = text.split("\n", 1)[1]
        path.write_text(f"# {requirements_stamp(name)}\n{text}")


def _requirements(name: str) -> list[str]:
    """What uv makes a lock from."""
    if name in STANDALONE:
        return [f"locks/{name}.in", "--excludes", f"locks/{name}.excludes"]
    same = [] if name == "core" else ["--constraints", "locks/core.txt"]
    if name == "serve":
        return ["pyproject.toml", "--excludes", "locks/serve.excludes", "--extra", "otel", *same]
    extras = ["--extra", "train", *(["--extra", name] if name in EXTRAS else [])]
    return ["pyproject.toml", "--excludes", "locks/excludes.txt", *extras, *same]


def requirements_stamp(name: str) -> str:
    """Identifies the requirements that a lock was made from, so that one made from others is seen."""
    if name in STANDALONE:
        return "requirements " + hashlib.sha256(_path(name).with_suffix(".in").read_bytes()).hexdigest()[:16]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = repr((project["dependencies"], project["optional-dependencies"], project["requires-python"]))
    return "pyproject " + hashlib.sha256(wanted.encode()).hexdigest()[:16]


def stale_locks() -> list[str]:
    """A sentence for each lock that is not of today's requirements, or names what a lock must not."""
    faults = []
    for name in NAMES:
        text = _path(name).read_text()
        if not text.startswith(f"# {requirements_stamp(name)}"):
            faults.append(f"locks/{name}.txt was made from other requirements: ./run lock")
        if "://" in text or any(line.startswith(("torch==", "nvidia-")) for line in text.splitlines()):
            faults.append(f"locks/{name}.txt names an address, torch or nvidia")
    return faults


def unavailable_locks() -> list[str]:
    """A sentence for each package of a lock that has no wheel, of a hash in the lock, on one of its platforms.

    Nothing is downloaded but the package index's lists of files and their metadata.
    """
    cases = [(name, system) for name in NAMES for system in (SERVING_PLATFORMS if name == "serve" else PLATFORMS)]
    with ThreadPoolExecutor(4) as pool:
        return [fault for faults in pool.map(lambda case: _without_wheels(*case), cases) for fault in faults]


def _without_wheels(name: str, system: str) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        listed = Path(folder) / "pylock.toml"
        command = [str(tools()), "pip", "compile", "--quiet", "--no-deps", "--format", "pylock.toml"]
        command += ["--python-version", "3.11", "--python-platform", SERVING_PLATFORMS[system]]
        command += ["--output-file", str(listed)]
        variables = {**child_variables(), "MACOSX_DEPLOYMENT_TARGET": MIN_MACOS}
        done = subprocess.run([*command, str(_path(name))], capture_output=True, text=True, env=variables)
        if done.returncode:
            return [f"locks/{name}.txt does not resolve on {system}: {done.stderr.strip()}"]
        packages = tomllib.loads(listed.read_text())["packages"]
    hashes = set(re.findall(r"--hash=sha256:(\w+)", _path(name).read_text()))
    return [
        f"locks/{name}.txt: {package['name']} {package['version']} has no wheel for {system}"
        for package in packages
        if package["name"] not in FROM_SOURCE
        and not any(wheel["hashes"]["sha256"] in hashes for wheel in package.get("wheels", ()))
    ]


def _path(name: str) -> Path:
    return ROOT / "locks" / f"{name}.txt"
