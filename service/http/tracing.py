"""W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context-1/)."""

import random
import re
from typing import Self

from msgspec import Struct

TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Trace(Struct, frozen=True):
    """The trace that a request belongs to, the caller's span in it (None if it began here), and this one's."""

    trace_id: str
    parent_id: str | None
    span_id: str
    flags: str = "00"

    @classmethod
    def of(cls, traceparent: str) -> Self:
        """The caller's trace gone on with, or a new one where the header is absent or not valid (section 4.3)."""
        found = TRACEPARENT.fullmatch(traceparent.strip())
        if found is None or (found[1] == "00" and found[5]):
            return cls(f"{random.getrandbits(128):032x}", None, _span_id())
        return cls(found[2], found[3], _span_id(), f"{int(found[4], 16) & 1:02x}")

    @property
    def header(self) -> str:
        """``traceparent`` with this span as the parent."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


def _span_id() -> str:
    # Ids must differ, and need not be hard to guess.
    return f"{random.getrandbits(64):016x}"
