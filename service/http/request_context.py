"""What is known of a request: its id, its trace, and how it ended.

Traces are those of W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context-1/).
"""

import random
import re
import time
from collections.abc import Mapping
from typing import Any, Self

from litestar.datastructures import MutableScopeHeaders
from msgspec import Struct

from service.uuid7 import uuid7

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""Of a client's X-Request-ID; another is replaced by one of ours, so that none can forge a log line."""

TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class TraceContext(Struct, frozen=True):
    """The trace that a request belongs to, the caller's span in it (None if it began here), and this one's."""

    trace_id: str
    parent_id: str | None
    span_id: str
    flags: str = "00"

    @classmethod
    def of(cls, traceparent: str) -> Self:
        """The caller's trace continued, or a new one where the header is absent or not valid (section 4.3)."""
        match = TRACEPARENT.fullmatch(traceparent.strip())
        # Ids must differ, and need not be hard to guess.
        span_id = f"{random.getrandbits(64):016x}"
        if match is None or (match[1] == "00" and match[5]):
            return cls(f"{random.getrandbits(128):032x}", None, span_id)
        return cls(match[2], match[3], span_id, f"{int(match[4], 16) & 1:02x}")

    @property
    def header(self) -> str:
        """``traceparent`` with this span as the parent."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags}"


class RequestContext(Struct, kw_only=True):
    """One request and its response; ``seconds`` is None until the response ends. ``route`` is a template,
    ``key`` the name of the API key used, ``reason`` why the request was refused where its status does not say."""

    request_id: str
    trace: TraceContext
    method: str
    begun: float
    route: str = "unmatched"
    status: int = 0
    seconds: float | None = None
    key: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, scope: Any, headers: Mapping[str, str] | MutableScopeHeaders) -> Self:
        """The context of a request that begins now."""
        request_id = headers.get("x-request-id", "")
        return cls(
            request_id=request_id if REQUEST_ID.fullmatch(request_id) else uuid7(),
            trace=TraceContext.of(headers.get("traceparent", "")),
            method=scope["method"] if scope["method"] in METHODS else "other", begun=time.perf_counter(),
        )  # fmt: skip
