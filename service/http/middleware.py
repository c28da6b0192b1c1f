"""The middleware around the application: each request gets its context, HEAD is answered, overload is rejected."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from litestar.datastructures import MutableScopeHeaders
from litestar.types import ASGIApp

from service.http.errors import refusal_messages
from service.http.load_shedding import LoadShedder
from service.http.request_context import RequestContext
from service.http.response import Responder, ResponseHeaders

CONTEXT = "evenkeel.context"
"""In a scope: the context of a request that was checked for early rejection already."""


Count = Callable[[str, str, int, float | None, str | None], None]
"""Route, method, status, seconds and reason of a request that has ended."""


class RequestMiddleware:
    """An ASGI application around ``app``. ``count`` and ``log`` are called for each request when it has ended."""

    def __init__(
        self, app: ASGIApp, shedder: LoadShedder, response_headers: ResponseHeaders,
        count: Count, log: Callable[[RequestContext], None],
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
        try:
            await self._app(inner, receive, Responder(headers, context, send, self._response_headers))
        finally:
            self._end(context, str(inner.get("path_template") or "unmatched"))

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
        own = {"x-request-id": context.request_id, "traceparent": context.trace.header}
        start["headers"] += [(name.encode(), value.encode()) for name, value in own.items()]
        self._response_headers.complete(start, headers, context.method)
        context.status = start["status"]
        self._end(context, scope["path"])
        return start, body

    def _end(self, context: RequestContext, route: str) -> None:
        context.route, context.seconds = route, time.perf_counter() - context.begun
        self._count(context.route, context.method, context.status, context.seconds, context.reason)
        self._log(context)
