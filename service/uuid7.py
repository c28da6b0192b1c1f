"""Ids that rise with time."""

import os
import time

RANDOM_BYTES, AT_ONCE = 10, 256
"""Of an id, and ids whose random bytes are drawn together: to ask the system for each costs more than all else."""

_drawn: list[bytes] = []


def uuid7() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then random bits. For any thread."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(_random_bytes(), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    digits = f"{value & ~(0x3 << 62) | 0x2 << 62:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _random_bytes() -> bytes:
    try:
        return _drawn.pop()
    except IndexError:
        block = os.urandom(RANDOM_BYTES * AT_ONCE)
        _drawn.extend(block[at : at + RANDOM_BYTES] for at in range(RANDOM_BYTES, len(block), RANDOM_BYTES))
        return block[:RANDOM_BYTES]


# A child process must not give the ids that its parent gives.
os.register_at_fork(after_in_child=_drawn.clear)
