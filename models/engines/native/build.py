"""The kernels of bert.c as shared libraries beside it, one for each kind of processor, compiled by ./run where there is
a C compiler.

python3 models/engines/native/build.py

Standard library only: this runs before anything is installed.
"""

import functools
import hashlib
import os
import platform
import shlex
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("bert.c")
VARIANTS = {
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx2", "fma"),
    "avx2": ("avx2", "fma"),
}
"""Kind of processor → what it has, as Linux calls it; the fastest first. avx512 are Intel's servers since 2019 and
AMD's since 2022, avx2 nearly all others since 2015."""
OPTIONS = ("-march=x86-64", "-O3", "-std=gnu11", "-ffp-contract=fast", "-Wno-psabi", "-fPIC", "-shared", "-pthread")
"""For GCC and Clang; a product and a sum are one instruction with both, so that their answers are the same."""
SECTIONS = struct.Struct("<4s36xQ10xHH")
"""Of a library's head (ELF, 64 bits): its magic number, where the table of its sections begins, their size and number.
The table is at the end."""
TRIAL = "import ctypes, sys; ctypes.CDLL(sys.argv[1]).make_team"


class BuildError(Exception):
    """The compiler's last words, or why there is none."""


@functools.cache
def library(variant: str) -> Path:
    """Where a library of this source, for this C library, is, or would be: its name says what it was made from.

    Remembered: a service that runs goes on with what it began with.
    """
    made_from = [SOURCE.read_text(), *_options(variant), *platform.libc_ver()]
    return SOURCE.with_name(f"bert-{variant}-{hashlib.sha256(' '.join(made_from).encode()).hexdigest()[:8]}.so")


@functools.cache
def variant() -> str | None:
    """The fastest kind that this processor is of."""
    if not _supported():
        return None
    flags = _processor_flags()
    return next((name for name, needed in VARIANTS.items() if flags.issuperset(needed)), None)


def unavailable() -> str | None:
    """Why there are no kernels here, in a few words; None where there are."""
    if not _supported():
        return "this is no Linux on x86-64"
    kind = variant()
    if kind is None:
        return "the processor has no AVX2"
    if not SOURCE.exists() or not _whole(library(kind)):
        return "they are not compiled: python3 models/engines/native/build.py says why"
    return None


def build() -> list[Path]:
    """Compile the libraries that are not there; none on another architecture. Raises BuildError, OSError."""
    if not _supported():
        return []
    targets = {kind: library(kind) for kind in VARIANTS}
    for kind, target in targets.items():
        if not _whole(target):
            compile_library(kind, target)
    for other in set(SOURCE.parent.glob("bert-*.so")) - set(targets.values()):
        other.unlink(missing_ok=True)
    return list(targets.values())


def compile_library(kind: str, target: Path) -> Path:
    """The kernels for a kind of processor, by `cc` or what CC names; there whole, or not at all. Raises BuildError."""
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        made = Path(folder) / target.name
        try:
            compiler = shlex.split(os.environ.get("CC", "")) or ["cc"]
            _run([*compiler, *_options(kind), str(SOURCE), "-o", str(made), "-lm"])
        except ValueError as error:
            raise BuildError(f"CC cannot be read: {error}") from error
        except FileNotFoundError as error:
            raise BuildError(f"there is no C compiler {compiler[0]}; CC may name one") from error
        # What CC adds may have made something else of it.
        _run([sys.executable, "-c", TRIAL, str(made)])
        return made.replace(target)


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["it ended without a word"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise BuildError(f"{Path(command[0]).name} failed: {reason[:300]}")


def _whole(path: Path) -> bool:
    """Whether a library is there to its end: a process that loads part of one is killed."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    if len(content) < SECTIONS.size:
        return False
    magic, start, size, count = SECTIONS.unpack_from(content)
    return bool(magic == b"\x7fELF" and start + size * count <= len(content))


def _supported() -> bool:
    return sys.platform == "linux" and platform.machine() == "x86_64"


def _options(kind: str) -> tuple[str, ...]:
    return *OPTIONS, *(f"-m{flag.replace('_', '')}" for flag in VARIANTS[kind])


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def main() -> int:
    """Compile, and say what came of it; 1 where nothing did though the architecture is right."""
    try:
        print(*build() or ("no kernels for this system",), sep="\n")
    except (BuildError, OSError) as error:
        print(f"the kernels are not compiled, so ONNX Runtime serves: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
