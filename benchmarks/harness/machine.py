"""What a figure depends on: the machine, the environments of `./run`, the variables a process is started with."""

import ctypes
import functools
import json
import os
import platform
import signal
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.settings import Settings

ROOT = Path(__file__).parents[2]
BUNDLE = ROOT / Settings().bundle
KEPT = ROOT / "artifacts" / "benchmarks"
"""Raw results, exported models and logs; ignored by git."""

SLOWING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
"""Taken from every process's environment: they make OpenBLAS choose another processor's kernels."""
STRIPPED = (*SLOWING, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VIRTUAL_ENV", "PYTHONHOME")

PACKAGES = {
    "core": ("mlx", "scipy-openblas32", "litestar", "uvicorn", "uvloop", "httptools", "numpy", "tokenizers"),
    "bench": ("torch", "transformers", "onnxruntime", "litserve", "fastapi", "uvicorn", "uvloop", "httptools"),
    "infinity": ("infinity-emb", "torch", "transformers"),
}
"""Environment of `./run` → the packages whose versions matter."""
VERSIONS = """
import importlib.metadata, json, sys
found = {}
for name in sys.argv[1:]:
    try: found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: found[name] = None
print(json.dumps(found))
"""
PR_SET_PDEATHSIG = 1


def interpreter(environment: str) -> Path:
    """The Python of an environment that `./run` makes; it may not be there."""
    return ROOT / (".venv" if environment == "core" else f".venv-{environment}") / "bin" / "python"


def child_variables(**more: str) -> dict[str, str]:
    """Environment variables for a measured process: ours less what slows or configures it."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in STRIPPED and not name.startswith(("EVENKEEL_", "INFINITY_", "LIT_"))
    }
    return {**kept, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", **more}


def die_with_parent() -> None:
    """In a child before it starts: be killed when the parent is gone, a stopped process too (Linux)."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system, versions, and when."""
    info = _cpu_info()
    flags = info.get("flags", "").split()
    return {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": info.get("model name") or platform.processor() or platform.machine(),
        "family": " ".join(f"{name} {info[name]}" for name in ("cpu family", "model", "stepping") if name in info),
        "avx512": [flag for flag in flags if flag.startswith("avx512")],
        "cores": cores(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(),
        "python": platform.python_version(),
        "versions": {name: versions(name) for name in PACKAGES},
        "load_average": round(os.getloadavg()[0], 2),
    }


@functools.cache
def versions(environment: str) -> dict[str, str | None] | None:
    """Version of each package of an environment, None where there is no such package or environment."""
    python = interpreter(environment)
    if not python.exists():
        return None
    done = subprocess.run(
        [python, "-c", VERSIONS, *PACKAGES[environment]], capture_output=True, text=True, check=False
    )  # fmt: skip
    found: dict[str, str | None] = json.loads(done.stdout) if done.returncode == 0 else {}
    return found


def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().split("\n\n")[0].splitlines() if path.exists() else []
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return platform.version()
