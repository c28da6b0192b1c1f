"""Fused kernels on a CPU: MLX compiles an expression with the system's C++ compiler, where there is one.

MLX calls ``g++`` for the oldest processor of its kind, and keeps the libraries under a name in the shared temporary
directory that anybody could have written before. Here the compiler is asked to use this processor, and the
libraries lie in a folder that is this user's alone.
"""

import fcntl
import functools
import hashlib
import inspect
import os
import platform
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx

COMPILERS = ("g++", "c++", "clang++")
FLAGS = {"x86_64": "-march=native -mprefer-vector-width=512", "aarch64": "-mcpu=native"}
CPU_INFO = Path("/proc/cpuinfo")

Expression = Callable[..., mx.array]


@functools.cache
def fused(expression: Expression) -> Expression:
    """``expression``, element by element on arrays of one shape, as one pass over memory.

    Where it cannot be compiled, or comes out otherwise than its operators one by one, it is returned as it is.
    """
    values = mx.linspace(-6.0, 6.0, 67)
    arguments = [values + place for place, _ in enumerate(inspect.signature(expression).parameters)]
    compiled = mx.compile(expression)
    try:
        with native_compiler():
            right = mx.allclose(compiled(*arguments), expression(*arguments), rtol=1e-4, atol=1e-5, equal_nan=True)
            return compiled if right.item() else expression
    except (RuntimeError, OSError):
        return expression


def compiler() -> str:
    """The compiler behind fused kernels, or "none" where they are not to be had."""
    return Path(command[0]).name if (command := _compiler()) and fused(_probe) is not _probe else "none"


def _probe(x: mx.array) -> mx.array:
    return x * x + 1.0


@contextmanager
def native_compiler() -> Iterator[None]:
    """Have MLX compile for this processor, and keep what it compiles, while inside. One process at a time.

    Raises OSError where there is no compiler, or no place to write.
    """
    command = _compiler()
    if command is None:
        raise FileNotFoundError(f"none of {', '.join(COMPILERS)} is on the PATH")
    with _folder(command) as folder, (folder / "lock").open("w") as lock:
        if os.environ.get("TMPDIR") == str(folder):  # Inside already.
            yield
            return
        fcntl.flock(lock, fcntl.LOCK_EX)
        _write_shim(folder / "bin" / "g++", command[0])
        before = {name: os.environ.get(name) for name in ("PATH", "TMPDIR")}
        os.environ["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        os.environ["TMPDIR"] = str(folder)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@functools.cache
def _compiler() -> tuple[str, str] | None:
    """Path and version of the first compiler that answers."""
    for name in COMPILERS:
        path = shutil.which(name)
        if path is None:
            continue
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
        if answer.returncode == 0:
            return path, answer.stdout
    return None


def _write_shim(path: Path, compiler: str) -> None:
    """A ``g++``, the name by which MLX calls it, that compiles for this processor."""
    if path.exists():
        return
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(f'#!/bin/sh\nexec {shlex.quote(compiler)} {FLAGS.get(platform.machine(), "")} "$@"\n')
    partial.chmod(0o700)
    partial.rename(path)


@contextmanager
def _folder(command: tuple[str, str]) -> Iterator[Path]:
    """Where the kernels of this compiler and processor are kept: in this user's cache, or else for a moment only."""
    processor = CPU_INFO.read_text() if CPU_INFO.exists() else platform.processor()
    lines = [
        line for line in processor.splitlines() if line.startswith(("model name", "flags", "Features", "CPU part"))
    ]
    key = hashlib.sha256("\n".join([*command, platform.machine(), *sorted(set(lines))]).encode()).hexdigest()[:16]
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(home) / "evenkeel" / f"kernels-{key}"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        private = _is_private(folder) and os.access(folder, os.W_OK)
    except (OSError, RuntimeError):  # RuntimeError: the user has no home.
        private = False
    if private:
        yield folder
        return
    # A library stays loaded after its file is gone.
    with TemporaryDirectory(prefix="evenkeel-kernels-") as passing:
        yield Path(passing)


def _is_private(folder: Path) -> bool:
    """Whether only this user can write there."""
    status = folder.stat()
    return status.st_uid == os.geteuid() and not status.st_mode & 0o022
