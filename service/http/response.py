"""What every response gets: headers for browsers, an id and a trace, conditional answers, compression."""

import asyncio
import gzip
from collections.abc import Mapping
from typing import Any

import zstandard
from litestar.datastructures import MutableScopeHeaders
from litestar.types import Message, Send

from service.http import negotiation

COMPRESSED_BYTES = 1400
"""Least body that is compressed: less fits one packet anyway."""

THREAD_BYTES = 1 << 16
"""From here on a thread compresses, for the others' sake."""

COMPRESSIBLE = ("application/json", "application/msgpack", "application/problem+json", "text/", "image/svg+xml",
                "application/x-msgpack", "application/vnd.msgpack", "application/yaml",
                "application/openmetrics-text")  # fmt: skip
SECURITY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-resource-policy": "same-origin",
    # Nothing in an answer is meant to be run or shown; a page says itself what it needs.
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    # An answer is one person's; what may be kept says so itself.
    "cache-control": "no-store",
}
STRICT_TRANSPORT = {"strict-transport-security": "max-age=31536000"}
CORS_REQUEST_HEADERS = (
    "Accept, Authorization, Content-Encoding, Content-Type, If-None-Match, traceparent, X-API-Key, X-Request-ID, "
    "X-Request-Timeout-Ms, X-Trial"
)
CORS_RESPONSE_HEADERS = "ETag, Retry-After, Server-Timing, traceparent, X-Request-ID"
PREFLIGHT_SECONDS = "600"


RequestHeaders = Mapping[str, str]


class ResponseHeaders:
    """Completes a response's start. Scripts of ``cors_origins`` may read the answers; no cookies are sent along."""

    def __init__(self, cors_origins: frozenset[str] = frozenset(), tls: bool = False):
        self._origins = cors_origins
        given = {**SECURITY, **(STRICT_TRANSPORT if tls else {})}
        self._security = [(name.encode(), value.encode()) for name, value in given.items()]

    def complete(self, start: Any, request: RequestHeaders, method: str) -> None:
        """Add to an ASGI start message what its route did not set."""
        self.secure(start)
        self.share(start, request, method)

    def secure(self, start: Any) -> None:
        """Add what is the same for every request."""
        present = {bytes(name).lower() for name, _ in start["headers"]}
        start["headers"].extend(header for header in self._security if header[0] not in present)

    def share(self, start: Any, request: RequestHeaders, method: str) -> None:
        """Add what lets scripts of other origins read the response."""
        if self._origins:
            self._share(MutableScopeHeaders.from_message(start), request, method)

    def _share(self, headers: MutableScopeHeaders, request: RequestHeaders, method: str) -> None:
        # Also where no origin is named: a cache must not give that answer to one that is.
        headers["Vary"] = ", ".join(filter(None, (headers.get("vary"), "Origin")))
        origin = request.get("origin")
        if origin not in self._origins:
            return
        headers["Access-Control-Allow-Origin"] = str(origin)
        headers["Access-Control-Expose-Headers"] = CORS_RESPONSE_HEADERS
        if method == "OPTIONS" and "access-control-request-method" in request:
            headers["Access-Control-Allow-Methods"] = headers.get("allow", "")
            headers["Access-Control-Allow-Headers"] = CORS_REQUEST_HEADERS
            headers["Access-Control-Max-Age"] = PREFLIGHT_SECONDS


def origins(text: str) -> frozenset[str]:
    """The setting's origins."""
    return frozenset(origin.strip() for origin in text.split(",") if origin.strip())


class Responder:
    """Sends one response on with its ``own`` headers, changed where the request's ``headers`` ask for it.

    ``status`` is 0 before it begins."""

    def __init__(
        self, headers: RequestHeaders, method: str, own: list[tuple[bytes, bytes]], send: Send,
        response_headers: ResponseHeaders,
    ):  # fmt: skip
        self._headers, self._method, self._own, self._send = headers, method, own, send
        self._response_headers = response_headers
        self.status = 0
        self._start: Message | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            if any(name.lower() == b"content-length" for name, _ in message["headers"]):
                # Held back until the body is there: it decides about compression. A stream's start goes at once.
                return
            message = {"type": "http.response.body", "body": b"", "more_body": True}
        if message["type"] == "http.response.body" and self._start is not None:
            start, self._start = self._start, None
            message = await self._begin(start, message)
        await self._send(message)

    async def _begin(self, start: Any, body: Any) -> Any:
        """Send the response's start; the first part of its body is returned, changed where need be."""
        start["headers"] = [*start["headers"], *self._own]
        headers = MutableScopeHeaders.from_message(start)
        if start["status"] != 200 and "allow" in headers:
            headers["Allow"] = _allowed(headers["allow"])
        self._response_headers.complete(start, self._headers, self._method)
        wanted = self._headers.get("if-none-match")
        if wanted and start["status"] == 200 and _unchanged(wanted, headers.get("etag", "")):
            start["status"] = 304
            del headers["content-length"], headers["content-type"]
            body = {**body, "body": b""}
        elif not body.get("more_body", False):
            body = {**body, "body": await self._compressed(headers, body.get("body", b""))}
        self.status = start["status"]
        await self._send(start)
        return {**body, "body": b""} if self._method == "HEAD" else body

    async def _compressed(self, headers: MutableScopeHeaders, body: bytes) -> bytes:
        if len(body) < COMPRESSED_BYTES or not headers.get("content-type", "").startswith(COMPRESSIBLE):
            return body
        if "content-encoding" in headers:
            return body
        headers["Vary"] = ", ".join(filter(None, (headers.get("vary"), "Accept-Encoding")))
        coding = negotiation.coding(self._headers.get("accept-encoding", ""))
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
    named = {method.strip() for method in methods.split(",")} | {"OPTIONS"}
    return ", ".join(sorted(named | {"HEAD"} if "GET" in named else named))


def _unchanged(if_none_match: str, etag: str) -> bool:
    """Whether If-None-Match holds the answer's tag, compared weakly (RFC 9110, section 13.1.2)."""
    if not etag:
        return False
    return if_none_match.strip() == "*" or etag.removeprefix("W/") in (
        tag.strip().removeprefix("W/") for tag in if_none_match.split(",")
    )


def _gzip(body: bytes) -> bytes:
    return gzip.compress(body, compresslevel=1, mtime=0)


def _zstd(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3).compress(body)
