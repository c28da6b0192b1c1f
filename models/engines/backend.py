"""How MLX is made fast on this machine: a tuned BLAS under its Linux CPU back end, and the threads it may use.

MLX's Linux CPU wheel multiplies matrices with reference BLAS, over thirty times slower than the processor
can. OpenBLAS comes as a plain package (scipy-openblas32) whose symbols carry a prefix, so libmlx's own slots
for ``cblas_sgemm`` and ``cblas_dgemm`` are pointed at it. Metal and CUDA are left as they are.
"""

import ctypes
import functools
import os
import platform
import struct
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from models.engines.engine import Backend, usable_cores
from models.engines.memory import keep_freed_memory

JUMP_SLOTS = {"x86_64": (6, 7), "aarch64": (1025, 1026)}
"""Relocation types (GLOB_DAT, JUMP_SLOT) of the ELF ABI of each processor."""

PT_DYNAMIC = 2
DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_JMPREL = 2, 5, 6, 7, 8, 23
SLOW_GFLOPS = 20.0
"""A CPU back end below this is on reference BLAS: every tuned one measured is above 60."""


def device() -> str:
    """What MLX computes on: metal, cuda or cpu."""
    if mx.default_device() == mx.Device(mx.cpu, 0):
        return "cpu"
    return "metal" if sys.platform == "darwin" else "cuda"


def prepare(threads: int | None = None) -> Backend:
    """Put the tuned BLAS under MLX's CPU back end, check one product against NumPy, and measure the speed.

    ``threads`` are those of one matrix product, by default as many as there are cores to use.

    Never raises: where the tuned BLAS cannot be used the plain wheel serves, and ``warning`` says why.
    """
    if device() != "cpu":
        return _backend(device(), threads=0)
    threads = threads or usable_cores()
    if sys.platform != "linux":
        return _backend("cpu", threads, blas="wheel", gflops=_gflops())
    keep_freed_memory()
    try:
        blas, warning = _use_openblas(threads), None
    except (OSError, ImportError, AttributeError, LookupError, ValueError) as error:
        blas, warning = "wheel", f"the tuned BLAS is not in use ({error}); predictions are many times slower"
    gflops = _gflops()
    if warning is None and gflops < SLOW_GFLOPS:
        warning = f"matrix products run at {gflops:.0f} GFLOP/s only: the machine is busy or its BLAS is not tuned"
    return _backend("cpu", threads, blas=blas, gflops=gflops, warning=warning)


def _backend(device: str, threads: int, **measured: Any) -> Backend:
    return Backend(engine="mlx", version=version("mlx"), device=device, threads=threads, **measured)


def _use_openblas(threads: int) -> str:
    """Point libmlx's matrix products at OpenBLAS and return its name; undone when a product comes out wrong."""
    openblas = _openblas()
    openblas.scipy_openblas_set_num_threads(threads)
    before: dict[int, int] = {}
    for symbol in ("cblas_sgemm", "cblas_dgemm"):
        target = ctypes.cast(getattr(openblas, f"scipy_{symbol}"), ctypes.c_void_p).value
        slots = list(_slots("libmlx.so", symbol))
        if not slots or target is None:
            raise LookupError(f"libmlx has no slot for {symbol}")
        for slot in slots:
            before[slot] = _word(slot)
            ctypes.c_uint64.from_address(slot).value = target
    if not _products_are_right():
        for slot, value in before.items():
            ctypes.c_uint64.from_address(slot).value = value
        raise ValueError("its products differ from NumPy's")
    openblas.scipy_openblas_get_corename.restype = ctypes.c_char_p
    return f"openblas-{openblas.scipy_openblas_get_corename().decode().lower()}"


@functools.cache
def _openblas() -> ctypes.CDLL:
    # Its threads wait for the next product by spinning, for 26 ms by default: that keeps a core from whoever computes
    # after a product. 2^14 cycles are 6 µs. It is read when the library is loaded, by the import at the latest.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "14")
    import scipy_openblas32

    return ctypes.CDLL(str(Path(scipy_openblas32.get_lib_dir()) / "libscipy_openblas.so"))


def _slots(library: str, symbol: str) -> Iterator[int]:
    """Addresses of the pointers through which a loaded library calls ``symbol`` (ELF gABI, chapter 5).

    Yields only writable addresses: a fully protected table is reported as having no slot.
    """
    spans = [line.split() for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("/" + library)]
    if not spans or platform.machine() not in JUMP_SLOTS:
        raise LookupError(f"{library} is not loaded, or {platform.machine()} is not known")
    ranges = [tuple(int(end, 16) for end in span[0].split("-")) for span in spans]
    writable = [bounds for bounds, span in zip(ranges, spans, strict=True) if span[1].startswith("rw")]
    base = min(start for start, _ in ranges)
    dynamic = _dynamic(base)
    names, symbols = dynamic[DT_STRTAB], dynamic[DT_SYMTAB]
    tables = ((DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ))
    for table, size in ((dynamic[t], dynamic[s]) for t, s in tables if t in dynamic):
        for offset, info, _ in struct.iter_unpack("<QQq", ctypes.string_at(table, size)):
            if info & 0xFFFFFFFF not in JUMP_SLOTS[platform.machine()]:
                continue
            name = names + ctypes.c_uint32.from_address(symbols + 24 * (info >> 32)).value
            slot = base + offset
            if ctypes.string_at(name) == symbol.encode() and any(a <= slot < b for a, b in writable):
                yield slot


def _dynamic(base: int) -> dict[int, int]:
    """The dynamic section of the library loaded at ``base``: tag → size, or absolute address."""
    header_offset = _word(base + 32)
    header_size, headers = struct.unpack("<HH", ctypes.string_at(base + 54, 4))
    entries: dict[int, int] = {}
    for index in range(headers):
        header = base + header_offset + index * header_size
        if ctypes.c_uint32.from_address(header).value == PT_DYNAMIC:
            address = base + _word(header + 16)
            while tag := _word(address):
                value = _word(address + 8)
                pointer = tag in (DT_STRTAB, DT_SYMTAB, DT_RELA, DT_JMPREL)
                # The C library rewrites these pointers to absolute ones on most processors, not on all.
                entries[tag] = value + base if pointer and value < base else value
                address += 16
    return entries


def _word(address: int) -> int:
    return ctypes.c_uint64.from_address(address).value


def _products_are_right() -> bool:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((37, 64), np.float32), rng.standard_normal((51, 64), np.float32)
    return bool(np.allclose(np.array(mx.array(a) @ mx.array(b).T), a @ b.T, atol=1e-4))


def _gflops(rows: int = 256, inner: int = 384, columns: int = 1536) -> float:
    """Speed of the encoder's largest product, the best of three, in GFLOP/s."""
    a, b = mx.ones((rows, inner)), mx.ones((inner, columns))
    mx.eval(a @ b)
    seconds = min(_timed(a, b) for _ in range(3))
    return 2e-9 * rows * inner * columns / seconds


def _timed(a: mx.array, b: mx.array) -> float:
    start = time.perf_counter()
    mx.eval(a @ b)
    return time.perf_counter() - start
