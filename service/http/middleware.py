"""The middleware around the application: each request gets its context, HEAD is answered, overload is rejected."""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Self

from litestar.types import ASGIApp
from msgspec import Struct

from models.prediction import Stage
from service.http.errors import refusal_messages
from service.http.load_shedding import LoadShedder
from service.http.response import RequestHeaders, Responder, ResponseHeaders
from service.http.tracing import RequestSpan, TraceContext, Tracing
from service.inference.errors import QueueFull
from service.uuid7 import uuid7

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""Of a client's X-Request-ID; another is replaced by one of ours, so that none can forge a log line."""

METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})
CONTEXT = "evenkeel.context"
"""In a scope: the context of a request that was checked for early rejection already."""


class RequestContext(Struct, kw_only=True):
    """One request and its response; ``seconds`` is None until the response ends. ``route`` is a template,
    ``key`` the name of the API key used, ``reason`` why the request was refused where its status does not say.
    ``span`` is there where the trace is sampled, ``exemplar`` the trace's id where it leads to log lines or spans."""

    request_id: str
    trace: TraceContext
    span: RequestSpan | None = None
    exemplar: str | None = None
    method: str
    started: float
    route: str = "unmatched"
    status: int = 0
    seconds: float | None = None
    key: str | None = None
    reason: str | None = None

    @classmethod
    def of(cls, scope: Any, headers: RequestHeaders, tracing: Tracing | None = None) -> Self:
        """The context of a request that begins now."""
        method = scope["method"] if scope["method"] in METHODS else "other"
        if tracing is None:
            trace, span = TraceContext.of(headers.get("traceparent", "")), None
        else:
            trace, span = tracing.begin(headers, method)
        request_id = headers.get("x-request-id", "")
        return cls(
            request_id=request_id if REQUEST_ID.fullmatch(request_id) else uuid7(),
            trace=trace, span=span, exemplar=trace.trace_id if tracing is None or span is not None else None,
            method=method, started=time.perf_counter(),
        )  # fmt: skip

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """What is done meanwhile is a stage of the request."""
        began = time.perf_counter()
        try:
            yield
        finally:
            if self.span is not None:
                self.span.record([Stage(name, began, time.perf_counter())])

    def end(self) -> None:
        """Its span has ended too."""
        if self.span is None:
            return
        attributes: dict[str, str | int] = {
            "http.request.method": self.method, "http.response.status_code": self.status,
            "evenkeel.request_id": self.request_id,
        }  # fmt: skip
        if self.route != "unmatched":
            attributes["http.route"] = self.route
        if self.status >= 500:
            attributes["error.type"] = str(self.status)
        self.span.end(f"{self.method} {self.route}", attributes, self.status >= 500)

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What the response says of it."""
        return [(b"x-request-id", self.request_id.encode()), (b"traceparent", self.trace.header.encode())]


Observe = Callable[[RequestContext], None]
"""What is called of each request that has ended."""


class RequestMiddleware:
    """An ASGI application around ``app``. ``count`` and ``log`` are called for each request when it has ended;
    ``tracing`` where spans are asked for."""

    def __init__(
        self, app: ASGIApp, shedder: LoadShedder, response_headers: ResponseHeaders, count: Observe, log: Observe,
        tracing: Tracing | None = None,
    ):  # fmt: skip
        self._app, self._shedder, self._response_headers = app, shedder, response_headers
        self._count, self._log, self._tracing = count, log, tracing
        self._refusal = lru_cache(64)(self._make_refusal)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if CONTEXT not in scope and (messages := self.reject_early(scope, started=True)):
            for message in messages:
                await send(message)
            return
        headers = request_headers(scope)
        context = scope.get(CONTEXT) or RequestContext.of(scope, headers, self._tracing)
        # HEAD is GET without the body: routed as such, and the responder leaves the body out.
        inner: Any = {**scope, "method": "GET"} if scope["method"] == "HEAD" else {**scope}
        inner["state"] = {**scope.get("state", {}), "context": context, "headers": headers}
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
        headers = request_headers(scope)
        context = scope[CONTEXT] = RequestContext.of(scope, headers, self._tracing)
        scope.setdefault("state", {})["context"] = context
        refusal = self._shedder.refusal(scope, headers, started)
        if refusal is None:
            return None
        if context.span is None:
            # There may be thousands a second, of which one has a line of the log.
            context.exemplar = None
        start, body = self._refusal(refusal.retry_after_seconds)
        start = {**start, "headers": [*start["headers"], *context.headers()]}
        self._response_headers.share(start, headers, context.method)
        self._end(context, scope["path"], start["status"])
        return start, body

    def _make_refusal(self, retry_after_seconds: int) -> tuple[Any, Any]:
        start, body = refusal_messages(QueueFull(retry_after_seconds))
        self._response_headers.secure(start)
        return start, body

    def _end(self, context: RequestContext, route: str, status: int) -> None:
        context.route, context.status, context.seconds = route, status, time.perf_counter() - context.started
        context.end()
        self._count(context)
        self._log(context)


def request_headers(scope: Any) -> dict[str, str]:
    """A request's headers by their names in lower case; of several of a name the first."""
    return {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
