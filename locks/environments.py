"""The environments of ./run: each made from its lock, and made again when the lock or the Python has changed.

Standard library only: this runs before anything is installed.
"""

import errno
import fcntl
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXTRAS = ("test", "load", "bench", "cluster", "docs", "postgres", "bucket", "otel", "mutation")
"""Environments with an extra of pyproject.toml, beside what core has."""

STANDALONE = ("infinity", "moto")
"""Environments of their own requirements, locks/NAME.in: a server measured beside ours, a server for tests."""

COMPILED = ("cluster",)
"""Environments whose Python is compiled when they are made. Ray gives a node 30 s to start, and without it each of its
many processes compiles what it imports: on a busy machine the first start would fail."""

NAMES = ("core", "serve", *EXTRAS, *STANDALONE)
"""core has all that training and serving need on any device; serve what serving needs on a plain CPU, with the clients
of buckets, databases and collectors of traces."""

TORCH = "torch==2.13.0"
CUDA = "mlx[cuda12]==0.32.4"
"""In place of the MLX for CPUs of the same version. Beside the locks, like torch: it brings gigabytes of NVIDIA's."""

MIN_GLIBC, MIN_MACOS = (2, 35), (14, 0)
"""That MLX has wheels for, which all that trains needs."""
MIN_SERVING_GLIBC = (2, 28)
"""That ONNX Runtime has wheels for."""

Command = Sequence[str | Path]


class SetupError(Exception):
    """What went wrong, and what to do, in one sentence."""


def environment(name: str, torch: bool = False, cuda: bool = False) -> Path:
    """The interpreter of an environment that matches its lock. One that has more than was asked for (torch, CUDA)
    keeps it. Raises SetupError."""
    compile_kernels()
    wanted = {package for package, asked in ((TORCH, torch), (CUDA, cuda)) if asked}
    made = Environment(name)
    if made.current() and wanted <= made.added():
        return made.python
    if fault := missing_wheels(name):
        raise SetupError(fault)
    try:
        with _locked(ROOT / ".setup.lock"):
            # Another ./run may have made it meanwhile.
            if not made.current():
                made.create()
            for package in sorted(wanted - made.added()):
                made.add(package)
    except OSError as error:
        raise SetupError(_explain(error)) from error
    return made.python


@functools.cache
def compile_kernels() -> None:
    """What computes on a CPU with AVX2, where there is a C compiler; without it ONNX Runtime does, which it says."""
    program = ROOT / "models" / "engines" / "native" / "build.py"
    if program.exists():  # Images have packages before they have code.
        subprocess.run([sys.executable, str(program)], capture_output=True, check=False)


def missing_wheels(name: str) -> str | None:
    """Why this system cannot have an environment, in one sentence; None where it can, or it is not known."""
    if name in STANDALONE:
        return None
    if sys.platform == "darwin":
        system, found, least = "macOS", platform.mac_ver()[0], MIN_MACOS
        if platform.machine() != "arm64":
            return "there are no wheels of MLX and ONNX Runtime for Intel's Macs: use Apple Silicon or Linux"
    else:
        library, found = platform.libc_ver()
        system, least = "glibc", MIN_SERVING_GLIBC if name == "serve" else MIN_GLIBC
        if library != "glibc":
            return "there are no wheels of MLX and ONNX Runtime for this C library; they need glibc (Alpine has musl)"
    if tuple(map(int, found.split(".")[:2])) >= least:
        return None
    needed = f"has wheels for {system} {least[0]}.{least[1]} and newer, and this is {system} {found}"
    if name == "serve" or sys.platform == "darwin":
        return f"ONNX Runtime, which serves, {needed}: use a newer system"
    return f"MLX, which trains, {needed}: train elsewhere, and ./run serve --bundle DIR serves the bundle here"


class Environment:
    """A folder .venv-NAME, and a stamp in it of what it was made from."""

    def __init__(self, name: str):
        self.folder = ROOT / (".venv" if name == "core" else f".venv-{name}")
        self.python = self.folder / "bin" / "python"
        self._lock = ROOT / "locks" / f"{name}.txt"
        self._stamp = self.folder / "evenkeel.stamp"

    def current(self) -> bool:
        """Whether it was made from this lock, by this Python."""
        return self._stamped()[:2] == _identity(self._lock).split() and self.python.exists()

    def added(self) -> set[str]:
        """Packages installed beside the lock."""
        return set(self._stamped()[2:])

    def create(self) -> None:
        """Make it, whatever is there: that may be half-made, moved, or of a Python that is gone."""
        print(f"run: setting up {self.folder.name}", file=sys.stderr)
        self._stamp.unlink(missing_ok=True)
        install(self.folder, self._lock, compiled=self._lock.stem in COMPILED)
        self._stamp.write_text(_identity(self._lock))

    def add(self, package: str) -> None:
        """Install a package beside the lock."""
        pip: Command = [tools().with_name("python"), "-m", "pip", "--python", self.python]
        if package == CUDA:
            # Both bring the same files.
            quiet([*pip, "uninstall", "--quiet", "--yes", "mlx-cpu"])
        quiet([*pip, "install", "--quiet", package])
        self._stamp.write_text(" ".join([*self._stamped(), package]))

    def _stamped(self) -> list[str]:
        return _read(self._stamp).split()


def install(folder: Path, lock: Path, compiled: bool = False) -> None:
    """A new environment of exactly the packages of a lock, each with its hash."""
    uv = tools()
    if folder.exists():
        shutil.rmtree(folder)
    quiet([uv, "venv", "--quiet", "--python", sys.executable, folder])
    compiling = ["--compile-bytecode"] if compiled else []
    quiet([uv, "pip", "sync", "--quiet", "--python", folder / "bin" / "python", "--require-hashes", *compiling, lock])


def tools() -> Path:
    """The pinned uv, in an environment of its own."""
    folder, lock = ROOT / ".tools", ROOT / "locks" / "uv.txt"
    uv, stamp = folder / "bin" / "uv", folder / "evenkeel.stamp"
    if _read(stamp) == _identity(lock) and uv.exists():
        return uv
    if folder.exists():
        shutil.rmtree(folder)
    made = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
    if made.returncode:
        raise SetupError(
            "Python cannot make an environment; install its venv module (on Debian: apt-get install python3-venv) or "
            f"free some disk: {_last_line(made.stdout + made.stderr)}"
        )
    pip: Command = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    quiet([*pip, "--require-hashes", "-r", lock])
    stamp.write_text(_identity(lock))
    return uv


def quiet(command: Command) -> None:
    """Run what installs, silently; raises SetupError."""
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=child_variables())
    if done.returncode:
        output = done.stdout + done.stderr
        if "No space left" in output:
            raise SetupError(_DISK_FULL)
        raise SetupError(
            "the packages could not be installed; is the network, or your package index, within reach? "
            f"({_last_line(output)})"
        )


def child_variables() -> dict[str, str]:
    """Environment variables for what ./run starts: the user's, less what names another environment."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("VIRTUAL_ENV", "PYTHONHOME")}
    return {**inherited, "PYTHONPATH": str(ROOT), "UV_NO_PROGRESS": "1"}


_DISK_FULL = "the disk is full; free about 2 GB and call ./run again"


def _identity(lock: Path) -> str:
    """Of an environment: its lock's hash and the Python's version."""
    return f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {sys.version.split()[0]}"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Held by one ./run at a time, so that two do not make the same environment."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _explain(error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return _DISK_FULL
    if error.errno in (errno.EACCES, errno.EROFS, errno.EPERM):
        return f"{error.filename or ROOT} cannot be written; copy the project to a folder of yours"
    return f"{error.strerror or error} ({error.filename or ROOT})"


def _last_line(output: str) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no message"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
