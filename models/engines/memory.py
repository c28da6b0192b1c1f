"""The C library's memory, as a process that loads and computes models wants it. Nothing happens without glibc."""

import ctypes

MALLOC_OPTIONS = {-3: 1 << 30, -1: 1 << 30, -2: 64 << 20}
"""glibc's mallopt: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD, in bytes."""
M_ARENA_MAX, ARENAS = -8, 4


def keep_freed_memory() -> None:
    """Have the C library keep what is freed: MLX frees every intermediate, and fetching zeroed pages again from the
    system costs a sixth of the time of a batch."""
    for option, value in MALLOC_OPTIONS.items():
        _call_libc("mallopt", option, value)


def bound_arenas() -> None:
    """Have the C library share few arenas among all threads; call it before there are any, in a process that loads one
    model after the other. With one for each thread every model would leave its memory in others."""
    _call_libc("mallopt", M_ARENA_MAX, ARENAS)


def return_memory() -> None:
    """Give the system back what is free, of all threads: a model that is gone leaves its memory with the threads that
    loaded it, and the next one is loaded by others."""
    _call_libc("malloc_trim", 0)


def _call_libc(name: str, *arguments: int) -> None:
    """Call glibc's function; nothing happens with a C library that has none of this name."""
    function = getattr(ctypes.CDLL(None), name, None)
    if function is not None:
        function(*arguments)
