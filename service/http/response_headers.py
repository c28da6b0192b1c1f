"""What browsers are told with every response: what they must not do with it, and which other sites may read it."""

from collections.abc import Mapping
from typing import Any

from litestar.datastructures import MutableScopeHeaders

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
    "X-Request-Timeout-Ms"
)
CORS_RESPONSE_HEADERS = "ETag, Retry-After, Server-Timing, traceparent, X-Request-ID"
PREFLIGHT_SECONDS = "600"


class ResponseHeaders:
    """Completes a response's start. Scripts of ``cors_origins`` may read the answers; no cookies are sent along."""

    def __init__(self, cors_origins: frozenset[str] = frozenset(), tls: bool = False):
        self._origins = cors_origins
        given = {**SECURITY, **(STRICT_TRANSPORT if tls else {})}
        self._security = [(name.encode(), value.encode()) for name, value in given.items()]

    def complete(self, start: Any, asked: Mapping[str, str] | MutableScopeHeaders, method: str) -> None:
        """Add to an ASGI start message what its route did not set."""
        there = {bytes(name).lower() for name, _ in start["headers"]}
        start["headers"].extend(one for one in self._security if one[0] not in there)
        if self._origins:
            self._share(MutableScopeHeaders.from_message(start), asked, method)

    def _share(self, headers: MutableScopeHeaders, asked: Mapping[str, str] | MutableScopeHeaders, method: str) -> None:
        # Also where no origin is named: a cache must not give that answer to one that is.
        headers["Vary"] = ", ".join(filter(None, (headers.get("vary"), "Origin")))
        origin = asked.get("origin")
        if origin not in self._origins:
            return
        headers["Access-Control-Allow-Origin"] = str(origin)
        headers["Access-Control-Expose-Headers"] = CORS_RESPONSE_HEADERS
        if method == "OPTIONS" and "access-control-request-method" in asked:
            headers["Access-Control-Allow-Methods"] = headers.get("allow", "")
            headers["Access-Control-Allow-Headers"] = CORS_REQUEST_HEADERS
            headers["Access-Control-Max-Age"] = PREFLIGHT_SECONDS


def origins(text: str) -> frozenset[str]:
    """The setting's origins."""
    return frozenset(one.strip() for one in text.split(",") if one.strip())
