"""The kernels of bert.c as shared libraries beside it, one for each kind of processor, compiled by ./run where there is
a C compiler.

python3 models/engines/native/build.py

Standard library only: this runs before anything is installed.
"""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("bert.c")
VARIANTS = {
    "avx512": ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx2", "fma"),
    "avx2": ("avx2", "fma"),
}
"""Kind of processor → what it has, as Linux calls it; the fastest first. avx512 are Intel's servers since 2019 and
AMD's since 2022, avx2 nearly all others since 2015."""
OPTIONS = ("-O3", "-std=gnu11", "-Wno-psabi", "-fPIC", "-shared", "-pthread")


def library(variant: str) -> Path:
    """Where a library of this source is, or would be: its name says what it was made from."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(_options(variant)).encode()).hexdigest()
    return SOURCE.with_name(f"bert-{variant}-{digest[:8]}.so")


@functools.cache
def variant() -> str | None:
    """The fastest kind that this processor is of."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return None
    flags = _processor_flags()
    return next((name for name, needed in VARIANTS.items() if flags.issuperset(needed)), None)


def unavailable() -> str | None:
    """Why there are no kernels here, in a few words; None where there are."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "this is no Linux on x86-64"
    kind = variant()
    if kind is None:
        return "the processor has no AVX2"
    if not library(kind).exists():
        return "they are not compiled, which ./run setup does where there is a C compiler"
    return None


def build() -> list[Path]:
    """Compile the libraries that are not there. None are where that cannot be: no compiler, another processor's
    architecture, a folder that must not be written."""
    targets = [library(kind) for kind in VARIANTS]
    if all(target.exists() for target in targets):
        return targets
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if sys.platform != "linux" or platform.machine() != "x86_64" or compiler is None:
        return []
    try:
        with tempfile.TemporaryDirectory(dir=SOURCE.parent) as folder:
            for kind, target in zip(VARIANTS, targets, strict=True):
                made = Path(folder) / target.name
                command = [compiler, *_options(kind), str(SOURCE), "-o", str(made), "-lm"]
                if subprocess.run(command, capture_output=True).returncode:
                    return []
                made.replace(target)
    except OSError:
        return []
    for other in set(SOURCE.parent.glob("bert-*.so")) - set(targets):
        other.unlink(missing_ok=True)
    return targets


def _options(kind: str) -> tuple[str, ...]:
    return *OPTIONS, *(f"-m{flag.replace('_', '')}" for flag in VARIANTS[kind])


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


if __name__ == "__main__":
    print(*build() or ("not compiled",), sep="\n")
