"""JSON that Python has no value for: numbers beyond float64, and halves of surrogate pairs.

JSON's grammar (RFC 8259) has both, so a body that holds them is JSON, though msgspec says that it is none. Read here
only to say where they are.
"""

import json
import math
from typing import Any

MAX_DIGITS = 4000
"""Of an integer; Python reads none that is longer than 4300."""


class TooLarge(float):
    """A number beyond what Python holds, and how it was ``written``."""

    written: str

    def __new__(cls, written: str) -> "TooLarge":
        number = super().__new__(cls, "inf")
        number.written = written
        return number


def read_loosely(body: bytes) -> Any:
    """A body → its value, in which numbers may be `TooLarge` and texts hold halves.

    Raises ValueError, RecursionError.
    """
    return json.loads(body.decode(), parse_float=_float, parse_int=_integer, parse_constant=_no_constant)


def is_text(value: str) -> bool:
    """Whether it holds no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _float(written: str) -> float:
    number = float(written)
    return number if math.isfinite(number) else TooLarge(written)


def _integer(written: str) -> float:
    return int(written) if len(written) < MAX_DIGITS else TooLarge(written)


def _no_constant(name: str) -> float:
    raise ValueError(f"JSON has no {name}")
