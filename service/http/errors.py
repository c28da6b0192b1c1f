"""Exceptions of the HTTP side, and which status each exception of the service has: problem details (RFC 9457).

ServiceError
├── MalformedBody   400   not JSON or MessagePack
├── BadHeader, InvalidQuery  400
├── NotAuthenticated  401
├── NotPermitted    403
├── UnknownModel    404
├── NotAcceptable   406
├── BodyTooSlow     408   and the connection ends
├── LengthRequired  411
├── BodyTooLarge    413
├── WrongMediaType, UnknownCoding  415
├── Misdirected     421   a host name that is not ours
├── InvalidBody     422   carries every fault
├── RateLimited     429   carries when to come back
└── OutOfMemory     503
"""

import difflib
import http
import logging
import math
from typing import Any, get_args

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException
from msgspec import Struct

from service.drift.errors import NotRecalibrating, TooManySubscribers
from service.inference.errors import (
    BundleRefused,
    ClientDisconnected,
    DeadlinePassed,
    InferenceError,
    NotReady,
    PredictionFailed,
    QueueFull,
    ReloadRunning,
)
from service.store.errors import OutcomesNotKept, OutcomesRefused, StoreUnavailable

LOGGER = logging.getLogger("evenkeel")
PROBLEM = "application/problem+json"
SHOWN_CHARACTERS = 60
"""Of what a client sent, in an error's text."""
CLIENT_CLOSED_REQUEST = 499
"""nginx's status for it; seen by the counters and the log alone."""


class Fault(Struct, frozen=True):
    """One fault of a body: where (RFC 6901), what stands there (shortened JSON), what is accepted."""

    pointer: str
    value: str
    message: str


class ServiceError(Exception):
    """Base of what the service refuses or cannot do."""


class MalformedBody(ServiceError): ...


class BadHeader(ServiceError): ...


class NotAuthenticated(ServiceError):
    def __init__(self) -> None:
        # Which of the three it is would help whoever tries keys.
        super().__init__(
            "this needs a key, in Authorization: Bearer KEY or X-API-Key: KEY; none was sent, or one that is unknown "
            "or has expired"
        )


class NotPermitted(ServiceError): ...


class NotAcceptable(ServiceError): ...


class LengthRequired(ServiceError):
    def __init__(self) -> None:
        super().__init__("the request has no body: neither Content-Length nor Transfer-Encoding is there")


class BodyTooLarge(ServiceError):
    def __init__(self, limit: int, decompressed: bool = False):
        super().__init__(f"the body is larger than {limit} bytes{' when decompressed' if decompressed else ''}")


class BodyTooSlow(ServiceError):
    def __init__(self, size: int):
        super().__init__(f"the body did not come in time: after {size} bytes too little followed")


class WrongMediaType(ServiceError): ...


class UnknownCoding(ServiceError): ...


class InvalidBody(ServiceError):
    def __init__(self, faults: list[Fault]):
        super().__init__(f"the body has {len(faults)} fault{'s' if len(faults) > 1 else ''}")
        self.faults = faults


class InvalidQuery(ServiceError): ...


class Misdirected(ServiceError):
    def __init__(self, host: str, accepted: list[str]):
        super().__init__(
            f"Host is {shortened(host)}; this service answers to {', '.join(accepted)} only (its setting allowed_hosts)"
        )


class RateLimited(ServiceError):
    def __init__(self, wait_seconds: float):
        self.wait_seconds, self.retry_after_seconds = wait_seconds, max(1, math.ceil(wait_seconds))
        super().__init__(f"the key's rate is used up; there is room again in {self.retry_after_seconds} s")


class OutOfMemory(ServiceError):
    def __init__(self) -> None:
        super().__init__("the service had too little memory for this request")


class UnknownModel(ServiceError): ...


Refused = ServiceError | InferenceError | OutcomesRefused | TooManySubscribers | NotRecalibrating
REFUSED = get_args(Refused)

STATUS: dict[type[Refused], int] = {
    MalformedBody: 400,
    BadHeader: 400,
    InvalidQuery: 400,
    NotAuthenticated: 401,
    NotPermitted: 403,
    NotRecalibrating: 404,
    OutcomesNotKept: 404,
    UnknownModel: 404,
    NotAcceptable: 406,
    BodyTooSlow: 408,
    ReloadRunning: 409,
    LengthRequired: 411,
    BodyTooLarge: 413,
    UnknownCoding: 415,
    WrongMediaType: 415,
    Misdirected: 421,
    BundleRefused: 422,
    InvalidBody: 422,
    QueueFull: 429,
    RateLimited: 429,
    ClientDisconnected: CLIENT_CLOSED_REQUEST,
    NotReady: 503,
    OutOfMemory: 503,
    PredictionFailed: 503,
    StoreUnavailable: 503,
    TooManySubscribers: 503,
    DeadlinePassed: 504,
}


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Problem details; ``errors`` lists the faults of a body."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[Fault] = []


def service_problem(_: Request[Any, Any, Any] | None, error: Refused) -> Response[bytes]:
    """The response to one of our exceptions."""
    status = STATUS[type(error)]
    headers = {}
    if isinstance(error, QueueFull | RateLimited):
        headers["Retry-After"] = str(error.retry_after_seconds)
    elif status == 503:
        headers["Retry-After"] = "1"
    if isinstance(error, BodyTooSlow):
        headers["Connection"] = "close"
    if isinstance(error, NotAuthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, UnknownCoding):
        headers["Accept-Encoding"] = "zstd, gzip"
    return _respond(status, str(error), error.faults if isinstance(error, InvalidBody) else [], headers)


def response_messages(response: Response[bytes]) -> tuple[Any, Any]:
    """The ASGI messages of a response that Litestar does not send."""
    body, status = response.content, response.status_code or 200
    headers = {"content-type": response.media_type, "content-length": len(body), **response.headers}
    encoded = [(name.lower().encode("latin-1"), str(value).encode("latin-1")) for name, value in headers.items()]
    return (
        {"type": "http.response.start", "status": status, "headers": encoded},
        {"type": "http.response.body", "body": body, "more_body": False},
    )


def refusal_messages(refused: QueueFull) -> tuple[Any, Any]:
    """The ASGI messages of `service_problem`'s response, for whoever is refused before there is a request."""
    return response_messages(service_problem(None, refused))


def http_problem(request: Request[Any, Any, Any], error: HTTPException) -> Response[bytes]:
    """The response to Litestar's own exceptions: 404, 405."""
    detail = error.detail
    if error.status_code == 404:
        detail = f"there is no {shortened(request.url.path)}; {_paths(request)}"
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("allow", "")
        detail = f"{shortened(request.method)} is not for this path; it takes {allowed}"
    return _respond(error.status_code, detail, [], dict(error.headers or {}))


def _paths(request: Request[Any, Any, Any]) -> str:
    paths = sorted({route.path_format for route in request.app.routes})
    near = difflib.get_close_matches(request.url.path[:SHOWN_CHARACTERS], paths, n=1)
    return f"did you mean {near[0]}?" if near else f"there are {', '.join(paths)}"


def shortened(text: str) -> str:
    """What a client sent, as an error may show it."""
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"


def unexpected_problem(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The response to a fault of ours; logged with the request's id, and nothing of it is shown."""
    context = request.scope["state"].get("context")
    if isinstance(error, MemoryError):
        LOGGER.error("too little memory for a request")
        return service_problem(request, OutOfMemory())
    fields = context and {
        "request_id": context.request_id, "trace_id": context.trace.trace_id, "span_id": context.trace.span_id,
    }  # fmt: skip
    LOGGER.error("unexpected error", exc_info=error, extra={"fields": fields or {}})
    return _respond(500, "an unexpected error; it has been logged", [], {})


def _respond(status: int, detail: str, faults: list[Fault], headers: dict[str, str]) -> Response[bytes]:
    return Response(_problem(status, detail, faults), status_code=status, media_type=PROBLEM, headers=headers)


def _problem(status: int, detail: str, faults: list[Fault]) -> bytes:
    title = "Client Closed Request" if status == CLIENT_CLOSED_REQUEST else http.HTTPStatus(status).phrase
    return msgspec.json.encode(_with_type(Problem(title=title, status=status, detail=detail, errors=faults)))


def _with_type(problem: Problem) -> dict[str, Any]:
    return {"type": problem.type, **msgspec.to_builtins(problem)}
