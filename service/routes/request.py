"""What handlers share: the services, the body and the query of a request, and the response."""

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.datastructures import State

from service.drift.monitor import DriftMonitor
from service.http.body.decoding import decode_body
from service.http.body.request_body import TIMEOUT_HEADER, deadline_seconds, read_body
from service.http.errors import SHOWN_CHARACTERS, InvalidQuery
from service.http.middleware import RequestContext
from service.http.negotiation import JSON, media_type
from service.inference.batcher import Batcher
from service.inference.errors import NotReady
from service.inference.fair_queue import Answer
from service.routes.table import Table, table_of_rows
from service.services import Services

AnyRequest = Request[Any, Any, State]
T = TypeVar("T", bound=msgspec.Struct)
V = TypeVar("V", bound=str)


def services_of(request: AnyRequest) -> Services:
    """What the application is made of."""
    services: Services = request.scope["litestar_app"].state["services"]
    return services


def headers_of(request: AnyRequest) -> Mapping[str, str]:
    """The request's headers by their names in lower case; of several of a name the first."""
    headers: Mapping[str, str] = request.scope["state"]["headers"]
    return headers


def context_of(request: AnyRequest) -> RequestContext:
    """What the middleware knows of the request."""
    context: RequestContext = request.scope["state"]["context"]
    return context


def drift_of(request: AnyRequest) -> DriftMonitor:
    """The drift tests; raises NotReady before the model is loaded."""
    services = services_of(request)
    if services.drift.monitor is None:
        raise not_ready(services.batcher)
    return services.drift.monitor


def table_of(request: AnyRequest) -> Table:
    """The table whose rows are predicted; raises NotReady before the model is loaded."""
    batcher = services_of(request).batcher
    if batcher.predictor is None:
        raise not_ready(batcher)
    return table_of_rows(batcher.predictor.rows)


def not_ready(batcher: Batcher) -> NotReady:
    """Why there is no predictor yet."""
    return NotReady(batcher.failure or "the model is being loaded")


async def parse_body(request: AnyRequest, form: type[T]) -> T:
    """The body as ``form``; raises the ServiceError of whatever is wrong with it."""
    media_type(headers_of(request).get("accept", ""))  # Refused before anything is computed.
    body = await read_request_body(request)
    return decode_body(body, headers_of(request).get("content-type", ""), form)


async def read_request_body(request: AnyRequest) -> bytes:
    """The body's bytes within the settings' limits; raises as `read_body`."""
    settings = services_of(request).settings
    return await read_body(headers_of(request), request.receive, settings.max_body_bytes, settings.read_seconds)


def request_timeout(request: AnyRequest) -> float:
    """Seconds that the client waits; raises BadHeader."""
    given = headers_of(request).get(TIMEOUT_HEADER.lower())
    return deadline_seconds(given, services_of(request).settings.timeout_seconds)


def query_value(request: AnyRequest, name: str, accepted: Sequence[V]) -> V:
    """The query's ``name``, one of ``accepted``, by default their first; raises as `query_values`."""
    wanted = query_values(request, {name: accepted}).get(name, accepted[0])
    return next(value for value in accepted if value == wanted)


def query_values(request: AnyRequest, accepted: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """The query's parameters that are given, each one of those ``accepted`` by its name.

    Raises InvalidQuery for another value, one that is given twice, and any other parameter.
    """
    if not request.scope["query_string"]:
        return {}
    given: list[tuple[str, str]] = list(request.query_params.multi_items())
    names = list(accepted)
    for other, _ in given:
        if other not in accepted:
            near = difflib.get_close_matches(other, names, n=1)
            those = f"the only one is {names[0]}" if len(names) == 1 else f"there are {', '.join(names)}"
            hint = f'did you mean "{near[0]}"?' if near else those
            raise InvalidQuery(f"{_shown(other)} is not a query parameter of this route; {hint}")
    for name, count in Counter(name for name, _ in given).items():
        if count > 1:
            raise InvalidQuery(f"{name} is given {count} times; it must be given once")
    for name, wanted in given:
        if wanted not in accepted[name]:
            raise InvalidQuery(f"{name} is {_shown(wanted)}; it must be {' or '.join(accepted[name])}")
    return dict(given)


def _shown(text: str) -> str:
    return msgspec.json.encode(text[:SHOWN_CHARACTERS]).decode()


def respond(
    request: AnyRequest, value: Any, answer: Answer | None = None, headers: dict[str, str] | None = None
) -> Response[bytes]:
    """``value`` as JSON, or as MessagePack where the client asks for it, with the answer's ``Server-Timing``.

    Raises NotAcceptable where the client takes neither."""
    form = media_type(headers_of(request).get("accept", ""))
    content = msgspec.json.encode(value) if form == JSON else msgspec.msgpack.encode(value)
    headers = {"Vary": "Accept", **(headers or {})}
    if answer is not None:
        queue, inference = answer.queue_seconds * 1e3, answer.inference_seconds * 1e3
        headers["Server-Timing"] = f"queue;dur={queue:.2f}, inference;dur={inference:.2f}"
    return Response(content, media_type=form, headers=headers)
