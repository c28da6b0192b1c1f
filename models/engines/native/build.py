"""The kernels of bert.c as a shared library beside it, compiled by ./run where there is a C compiler.

python3 models/engines/native/build.py

Standard library only: this runs before anything is installed.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("bert.c")
PROCESSOR_FLAGS = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni")
"""As Linux calls what the kernels need: Intel's servers since 2019, AMD's since 2022."""
OPTIONS = (
    "-O3", *(f"-m{flag.replace('_', '')}" for flag in PROCESSOR_FLAGS), "-mfma", "-std=gnu11", "-fPIC", "-shared",
    "-pthread",
)  # fmt: skip


def library() -> Path:
    """Where the library of this source is, or would be: its name says what it was made from."""
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(OPTIONS).encode()).hexdigest()
    return SOURCE.with_name(f"bert-{digest[:12]}.so")


def unavailable() -> str | None:
    """Why the kernels cannot be used here, in a few words; None where they can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "this is no Linux on x86-64"
    if missing := [flag for flag in PROCESSOR_FLAGS if flag not in _processor_flags()]:
        return f"the processor has no {missing[0].replace('_', '-').upper()}"
    if not library().exists():
        return "they were not compiled: ./run setup does where there is a C compiler"
    return None


def build() -> Path | None:
    """Compile the library if it is not there. None where that cannot be: no compiler, another processor's
    architecture, a folder that must not be written."""
    target = library()
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if target.exists():
        return target
    if sys.platform != "linux" or platform.machine() != "x86_64" or compiler is None:
        return None
    try:
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            made = Path(folder) / target.name
            done = subprocess.run([compiler, *OPTIONS, SOURCE, "-o", made, "-lm"], capture_output=True, text=True)
            if done.returncode:
                return None
            made.replace(target)
    except OSError:
        return None
    for other in set(target.parent.glob("bert-*.so")) - {target}:
        other.unlink(missing_ok=True)
    return target


def _processor_flags() -> set[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


if __name__ == "__main__":
    print(build() or "not compiled")
