"""What every route does: take a body, have passengers answered, log and count the answers, respond."""

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.datastructures import ResponseHeader, State
from litestar.types import Receive

from models.passenger import Passenger
from service.drift.keeper import DriftKeeper
from service.drift.monitor import Drift
from service.http.access import Access
from service.http.decoding import decode_body
from service.http.errors import (
    BadHeader,
    BodyTooLarge,
    BodyTooSlow,
    DeadlinePassed,
    InvalidBody,
    InvalidQuery,
    LengthRequired,
    MalformedBody,
    NotAcceptable,
    NotReady,
    PredictionFailed,
    QueueFull,
    UnknownCoding,
    WrongMediaType,
)
from service.http.negotiation import JSON, MESSAGEPACK, media_type
from service.http.request_body import TIMEOUT_HEADER, deadline_seconds, read_body
from service.inference.batcher import Batcher
from service.inference.fair_queue import Answer
from service.routes.openapi.document import refusals
from service.routes.schemas import ModelIdentity, PredictionResponse, uuid7
from service.store.store import Store

AnyRequest = Request[Any, Any, State]
T = TypeVar("T", bound=msgspec.Struct)
V = TypeVar("V", bound=str)
SHOWN_CHARACTERS = 60

NOT_ACCEPTABLE = refusals(
    (
        "Accept takes neither JSON nor MessagePack",
        NotAcceptable(f"Accept is text/html; this can be had as {JSON} or {MESSAGEPACK}"),
    ),
)
READ_REFUSALS = refusals(("not loaded yet", NotReady("the model is being loaded")), beside=NOT_ACCEPTABLE)
"""What every route may refuse that reads nothing, and tells of the model."""

BODY_REFUSALS = refusals(
    ("not JSON or MessagePack, or a key stands twice", MalformedBody("the body is not JSON: Input data was truncated")),
    ("the body did not come within read_seconds", BodyTooSlow(4096)),
    ("neither Content-Length nor Transfer-Encoding", LengthRequired()),
    ("body larger than max_body_bytes", BodyTooLarge(1 << 20)),
    (
        "Content-Type is neither JSON nor MessagePack",
        WrongMediaType(f"Content-Type is text/plain; it must be {JSON} (UTF-8) or {MESSAGEPACK}"),
    ),
    (
        "compressed by something else than gzip or zstd",
        UnknownCoding("Content-Encoding is br; it must be gzip, zstd or absent"),
    ),
    ("a value of a wrong type or out of range, an unknown or a missing field", InvalidBody([])),
    beside=NOT_ACCEPTABLE,
)
"""What every route that reads a body may refuse it with."""

REFUSALS = refusals(
    (
        f"{TIMEOUT_HEADER} is not a number of milliseconds",
        BadHeader(f"{TIMEOUT_HEADER} is soon; it must be a whole number of milliseconds from 1"),
    ),
    ("more requests wait than can be answered in time", QueueFull(1)),
    ("not loaded yet", NotReady("the model is being loaded")),
    ("the model gave no finite number", PredictionFailed("the model gave no valid answer for this request")),
    ("not answered within the client's or the service's limit", DeadlinePassed("no answer within 30 seconds")),
    beside=BODY_REFUSALS,
)
"""What every route that predicts may refuse with."""

TIMEOUT = {
    "name": TIMEOUT_HEADER, "in": "header", "required": False,
    "schema": {"type": "integer", "minimum": 1, "maximum": 10**12 - 1},
    "description": "How long the client waits, at most timeout_seconds.",
}  # fmt: skip
"""A parameter of every route that predicts."""

TIMING = ResponseHeader(
    name="Server-Timing", description="Milliseconds waited and computed: queue;dur=…, inference;dur=…",
    documentation_only=True,
)  # fmt: skip


async def take(request: AnyRequest, form: type[T]) -> T:
    """The body as ``form``; raises the ServiceError of whatever is wrong with it."""
    media_type(request.headers.get("accept", ""))  # Refused before anything is computed.
    settings = request.app.state.settings
    body = await read_body(request.headers, request.receive, settings.max_body_bytes, settings.read_seconds)
    return decode_body(body, request.headers.get("content-type", ""), form)


def query_value(request: AnyRequest, name: str, accepted: Sequence[V]) -> V:
    """The query's ``name``, one of ``accepted``, by default their first.

    Raises InvalidQuery for another value, one that is given twice, and any other parameter.
    """
    given: list[tuple[str, str]] = list(request.query_params.multi_items())
    for other, _ in given:
        if other != name:
            near = difflib.get_close_matches(other, [name], n=1)
            hint = f'did you mean "{name}"?' if near else f"the only one is {name}"
            raise InvalidQuery(f"{_shown(other)} is not a query parameter of this route; {hint}")
    if len(given) > 1:
        raise InvalidQuery(f"{name} is given {len(given)} times; it must be given once")
    wanted = given[0][1] if given else accepted[0]
    for value in accepted:
        if wanted == value:
            return value
    raise InvalidQuery(f"{name} is {_shown(wanted)}; it must be {' or '.join(accepted)}")


def _shown(text: str) -> str:
    return msgspec.json.encode(text[:SHOWN_CHARACTERS]).decode()


async def answered(
    request: AnyRequest, passengers: Sequence[Passenger], trial: bool = False, body_read: bool = True
) -> tuple[Answer, list[PredictionResponse]]:
    """Passengers → their predictions in order, counted, given to the drift tests and logged; raises as `computed`.

    A ``trial`` is answered alike and leaves no trace in counters of predictions, drift tests, log and shadow: whoever
    plays with a form sends what no traffic looks like.
    """
    answer = await computed(request, passengers, body_read)
    bundle = answer.bundle
    ids = [uuid7() for _ in answer.predictions]
    if not trial:
        _count(request, answer, passengers, ids)
    identity = ModelIdentity(bundle.name, bundle.version)
    return answer, [
        PredictionResponse(
            id=id, model=identity, survived=one.survived, probability=one.probability, confidence=one.confidence
        )
        for id, one in zip(ids, answer.predictions, strict=True)
    ]


def _count(request: AnyRequest, answer: Answer, passengers: Sequence[Passenger], ids: Sequence[str]) -> None:
    state, bundle = request.app.state, answer.bundle
    state.metrics.predicted(bundle.version, answer.predictions)
    drift = drift_of(request)
    # An answer of the bundle before this one may come in just after the swap.
    if drift.version == bundle.version:
        drift.predicted(answer.predictions)
    store: Store | None = state.store
    if store is not None:
        store.log(bundle.version, ids, passengers, answer.predictions)
    if state.shadow is not None:
        state.shadow.offer(passengers, answer.predictions)


async def computed(request: AnyRequest, passengers: Sequence[Passenger], body_read: bool = True) -> Answer:
    """Passengers → their predictions in order, which leave no trace but the time they waited; raises as the batcher.

    Whoever reads the body still, and so sees for itself that the client leaves, says so by ``body_read``.
    """
    access: Access = request.app.state.access
    client = access.client(request.scope)
    with access.rows(request.scope, len(passengers)):
        answer = await batcher_of(request).predict(
            passengers, patience_seconds(request), client, (lambda: _left(request.receive)) if body_read else None
        )
    request.app.state.metrics.waited(answer.queue_seconds)
    return answer


def patience_seconds(request: AnyRequest) -> float:
    """How long the client waits; raises BadHeader."""
    return deadline_seconds(request.headers.get(TIMEOUT_HEADER), request.app.state.settings.timeout_seconds)


async def _left(receive: Receive) -> None:
    """Return when the client is gone; its body has been read, so nothing else can come."""
    while (await receive())["type"] != "http.disconnect":
        pass


def respond(
    request: AnyRequest, value: Any, answer: Answer | None = None, headers: dict[str, str] | None = None
) -> Response[bytes]:
    """``value`` as JSON, or as MessagePack where the client asks for it, with the answer's ``Server-Timing``.

    Raises NotAcceptable where the client takes neither."""
    form = media_type(request.headers.get("accept", ""))
    content = msgspec.json.encode(value) if form == JSON else msgspec.msgpack.encode(value)
    timing = (
        f"queue;dur={answer.queue_seconds * 1e3:.2f}, inference;dur={answer.inference_seconds * 1e3:.2f}"
        if answer
        else None
    )
    headers = {"Vary": "Accept", **({"Server-Timing": timing} if timing else {}), **(headers or {})}
    return Response(content, media_type=form, headers=headers)


def batcher_of(request: AnyRequest) -> Batcher:
    """The application's batcher."""
    batcher: Batcher = request.app.state.batcher
    return batcher


def drift_of(request: AnyRequest) -> Drift:
    """The drift tests; raises NotReady before the model is loaded."""
    keeper: DriftKeeper = request.app.state.drift
    if keeper.drift is None:
        raise not_ready(batcher_of(request))
    return keeper.drift


def not_ready(batcher: Batcher) -> NotReady:
    """Why there is no predictor yet."""
    return NotReady(batcher.failure or "the model is being loaded")
