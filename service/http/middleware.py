"""What every exchange gets, whatever its route: an id, a trace, HEAD, conditional answers, compression, its end told.

`Surface` is the application: Litestar, with this around it.
"""

import asyncio
import gzip
import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import zstandard
from litestar import Litestar
from litestar.datastructures import MutableScopeHeaders
from litestar.types import Message, Scope, Send
from msgspec import Struct

from service.http import negotiation
from service.http.errors import refusal_messages
from service.http.load_shedding import Door
from service.http.response_headers import ResponseHeaders
from service.http.tracing import Trace
from service.routes.schemas import uuid7

REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
"""Of a client's X-Request-ID; another is replaced by one of ours, so that none can forge a log line."""

COMPRESSED_BYTES = 1400
"""Least body that is compressed: less fits one packet anyway."""

THREAD_BYTES = 1 << 16
"""From here on a thread compresses, for the others' sake."""

COMPRESSIBLE = ("application/json", "application/msgpack", "application/problem+json", "text/", "image/svg+xml",
                "application/x-msgpack", "application/vnd.msgpack", "application/yaml")  # fmt: skip
EXCHANGE = "evenkeel.exchange"
"""In a scope: the exchange of a request that has been asked about at the door."""

METHODS = frozenset({"GET", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE"})


class Exchange(Struct, kw_only=True):
    """One request and its response; ``seconds`` is None until the response ends. ``route`` is a template,
    ``key`` the name of the API key used, ``reason`` why the request was refused where its status does not tell."""

    request_id: str
    trace: Trace
    method: str
    begun: float
    route: str = "unmatched"
    status: int = 0
    seconds: float | None = None
    key: str | None = None
    reason: str | None = None


class Surface(Litestar):
    """Litestar whose every exchange is numbered, traced, counted and told to ``observe`` when it ends."""

    def __init__(
        self, *, observe: Callable[[Exchange], None], response_headers: ResponseHeaders, door: Door, **settings: Any
    ):  # fmt: skip
        self._observe, self._response_headers, self._door = observe, response_headers, door
        super().__init__(**settings)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        # Whoever asked at the door already is not asked again.
        if EXCHANGE not in scope and (messages := self.turned_away(scope, coming=False)):
            for message in messages:
                await send(message)
            return
        headers = MutableScopeHeaders(scope)
        exchange = scope.get(EXCHANGE) or _begun(scope, headers)
        # HEAD is GET without the body: routed as such, and whoever sends leaves the body out.
        inner: Any = {**scope, "method": "GET"} if scope["method"] == "HEAD" else {**scope}
        inner["state"] = {**scope.get("state", {}), "exchange": exchange}
        responder = _Responder(inner, headers, exchange, send, self._response_headers)
        try:
            await super().__call__(inner, receive, responder)
        finally:
            self._ended(exchange, str(inner.get("path_template") or "unmatched"))

    def turned_away(self, scope: Any, coming: bool = True) -> Sequence[Any] | None:
        """The messages that answer a request which is refused at the door; None for all others, which come in.

        A server that asks before it makes a task of a request (``coming``) is spared most of what a refusal costs."""
        if not self._door.guards(scope, coming):
            return None
        asked = {name.decode("latin-1"): value.decode("latin-1") for name, value in reversed(scope["headers"])}
        exchange = scope[EXCHANGE] = _begun(scope, asked)
        refused = self._door.refusal({**scope, "state": {"exchange": exchange}}, asked, coming)
        if refused is None:
            return None
        start, body = refusal_messages(refused)
        own = {"x-request-id": exchange.request_id, "traceparent": exchange.trace.header}
        start["headers"] += [(name.encode(), value.encode()) for name, value in own.items()]
        self._response_headers.complete(start, asked, exchange.method)
        exchange.status = start["status"]
        self._ended(exchange, scope["path"])
        return start, body

    def _ended(self, exchange: Exchange, route: str) -> None:
        exchange.route, exchange.seconds = route, time.perf_counter() - exchange.begun
        self._observe(exchange)


def _begun(scope: Any, asked: Mapping[str, str] | MutableScopeHeaders) -> Exchange:
    given = asked.get("x-request-id", "")
    return Exchange(
        request_id=given if REQUEST_ID.fullmatch(given) else uuid7(), trace=Trace.of(asked.get("traceparent", "")),
        method=scope["method"] if scope["method"] in METHODS else "other", begun=time.perf_counter(),
    )  # fmt: skip


class _Responder:
    """Sends one response on, changed where the request's headers ask for it."""

    def __init__(
        self, scope: Scope, asked: MutableScopeHeaders, exchange: Exchange, send: Send, completing: ResponseHeaders
    ):
        self._scope, self._asked, self._exchange, self._send = scope, asked, exchange, send
        self._completing = completing
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            if "content-length" in MutableScopeHeaders.from_message(message):
                # Held back until the body is there: it decides about compression. A stream's start goes at once.
                return
            message = {"type": "http.response.body", "body": b"", "more_body": True}
        if message["type"] == "http.response.body" and self._start is not None:
            start, self._start = self._start, None
            message = await self._begun(start, message)
        await self._send(message)

    async def _begun(self, start: Any, body: Any) -> Any:
        """Send the response's start; the first part of its body is returned, changed where need be."""
        exchange, headers = self._exchange, MutableScopeHeaders.from_message(start)
        exchange.status = start["status"]
        headers["X-Request-ID"] = exchange.request_id
        headers["traceparent"] = exchange.trace.header
        if "allow" in headers:
            headers["Allow"] = _allowed(headers["allow"])
        self._completing.complete(start, self._asked, exchange.method)
        if exchange.status == 200 and _unchanged(self._asked.get("if-none-match", ""), headers.get("etag", "")):
            exchange.status = start["status"] = 304
            del headers["content-length"], headers["content-type"]
            body = {**body, "body": b""}
        elif not body.get("more_body", False):
            body = {**body, "body": await self._compressed(headers, body.get("body", b""))}
        await self._send(start)
        return {**body, "body": b""} if exchange.method == "HEAD" else body

    async def _compressed(self, headers: MutableScopeHeaders, body: bytes) -> bytes:
        if len(body) < COMPRESSED_BYTES or not headers.get("content-type", "").startswith(COMPRESSIBLE):
            return body
        if "content-encoding" in headers:
            return body
        headers["Vary"] = ", ".join(filter(None, (headers.get("vary"), "Accept-Encoding")))
        coding = negotiation.coding(self._asked.get("accept-encoding", ""))
        if coding is None:
            return body
        compress = _zstd if coding == "zstd" else _gzip
        body = await asyncio.to_thread(compress, body) if len(body) >= THREAD_BYTES else compress(body)
        headers["Content-Encoding"], headers["Content-Length"] = coding, str(len(body))
        if headers.get("etag", "").startswith('"'):
            headers["ETag"] = "W/" + headers["etag"]
        return body


def _allowed(methods: str) -> str:
    """The methods of an Allow header in order, HEAD with GET."""
    named = {one.strip() for one in methods.split(",")} | {"OPTIONS"}
    return ", ".join(sorted(named | {"HEAD"} if "GET" in named else named))


def _unchanged(asked: str, etag: str) -> bool:
    """Whether If-None-Match holds the answer's tag, compared weakly (RFC 9110, section 13.1.2)."""
    if not asked or not etag:
        return False
    return asked.strip() == "*" or etag.removeprefix("W/") in (
        one.strip().removeprefix("W/") for one in asked.split(",")
    )


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(body)
