"""The middleware around the application: each request gets its context, HEAD is answered, overload is rejected.

Traces are those of W3C Trace Context, level 1 (https://www.w3.org/TR/trace-context-1/).
"""

import random
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Self

from litestar.datastructures import MutableScopeHeaders
from litestar.types import ASGIApp
from msgspec import Struct

from service.http.errors import refusal_messages
from service.http.load_shedding import LoadShedder
from service.http.response import RequestHeaders, Responder, ResponseHeaders
from service.uuid7 import uuid7

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""Of a client's X-Request-ID; another is replaced by one of ours, so that none can forge a log line."""

TRACEPARENT = re.compile(r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
CONTEXT = "evenkeel.context"
"""In a scope: the context of a request that was checked for early rejection already."""


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
    started: float
    route: str = "unmatched"
    status: int = 0
    seconds: float | None = None
    key: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, scope: Any, headers: RequestHeaders) -> Self:
        """The context of a request that begins now."""
        request_id = headers.get("x-request-id", "")
        return cls(
            request_id=request_id if REQUEST_ID.fullmatch(request_id) else uuid7(),
            trace=TraceContext.of(headers.get("traceparent", "")),
            method=scope["method"] if scope["method"] in METHODS else "other", started=time.perf_counter(),
        )  # fmt: skip

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the response says of it."""
        return [(b"x-request-id", self.request_id.encode()), (b"traceparent", self.trace.header.encode())]


Observe = Callable[[RequestContext], None]
"""What is called of each request that has ended."""


class RequestMiddleware:
    """An ASGI application around ``app``. ``count`` and ``log`` are called for each request when it has ended."""

    def __init__(
        self, app: ASGIApp, shedder: LoadShedder, response_headers: ResponseHeaders, count: Observe, log: Observe,
    ):  # fmt: skip
        self._app, self._shedder, self._response_headers = app, shedder, response_headers
        self._count, self._log = count, log

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if CONTEXT not in scope and (messages := self.reject_early(scope, started=True)):
            for message in messages:
                await send(message)
            return
        headers = MutableScopeHeaders(scope)
        context = scope.get(CONTEXT) or RequestContext.of(scope, headers)
        # HEAD is GET without the body: routed as such, and the responder leaves the body out.
        inner: Any = {**scope, "method": "GET"} if scope["method"] == "HEAD" else {**scope}
        inner["state"] = {**scope.get("state", {}), "context": context}
        responder = Responder(headers, context.method, context.headers(), send, self._response_headers)
        try:
            await self._app(inner, receive, responder)
        finally:
            self._end(context, str(inner.get("path_template") or "unmatched"), responder.status)

    def reject_early(self, scope: Any, started: bool = False) -> Sequence[Any] | None:
        """The two messages that answer a request which is shed before its body is read; None for all others.

        A server that asks before the request's task has ``started`` saves most of what a rejection costs."""
        if not self._shedder.applies(scope, started):
            return None
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        context = scope[CONTEXT] = RequestContext.of(scope, headers)
        refusal = self._shedder.refusal({**scope, "state": {"context": context}}, headers, started)
        if refusal is None:
            return None
        start, body = refusal_messages(refusal)
        start["headers"] += context.headers()
        self._response_headers.complete(start, headers, context.method)
        self._end(context, scope["path"], start["status"])
        return start, body

    def _end(self, context: RequestContext, route: str, status: int) -> None:
        context.route, context.status, context.seconds = route, status, time.perf_counter() - context.started
        self._count(context)
        self._log(context)
