"""What every route does: take a body, have passengers answered, log and count the answers, respond."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.datastructures import ResponseHeader, State

from models.passenger import Passenger
from service.batcher import Answer, Batcher
from service.bodies import decode_body
from service.drift import Drift
from service.drift_keeper import DriftKeeper
from service.errors import (
    BodyTooLarge,
    DeadlinePassed,
    InvalidBody,
    LengthRequired,
    MalformedBody,
    NotAcceptable,
    NotReady,
    PredictionFailed,
    QueueFull,
    UnknownCoding,
    WrongMediaType,
)
from service.incoming import read_body
from service.negotiation import JSON, MESSAGEPACK, media_type
from service.openapi import refusals
from service.schemas import ModelIdentity, PredictionResponse, uuid7
from service.store import Store

AnyRequest = Request[Any, Any, State]
T = TypeVar("T", bound=msgspec.Struct)

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
    ("more requests wait than can be answered in time", QueueFull(1)),
    ("not loaded yet", NotReady("the model is being loaded")),
    ("the model gave no finite number", PredictionFailed("the model gave no valid answer for this request")),
    ("not answered within timeout_seconds", DeadlinePassed("no answer within 30 seconds")),
    beside=BODY_REFUSALS,
)
"""What every route that predicts may refuse with."""

TIMING = ResponseHeader(
    name="Server-Timing", description="Milliseconds waited and computed: queue;dur=…, inference;dur=…",
    documentation_only=True,
)  # fmt: skip


async def take(request: AnyRequest, form: type[T]) -> T:
    """The body as ``form``; raises the ServiceError of whatever is wrong with it."""
    media_type(request.headers.get("accept", ""))  # Refused before anything is computed.
    limit = request.app.state.settings.max_body_bytes
    body = await read_body(request.headers, request.receive, limit)
    return decode_body(body, request.headers.get("content-type", ""), form)


async def answered(request: AnyRequest, passengers: Sequence[Passenger]) -> tuple[Answer, list[PredictionResponse]]:
    """Passengers → their predictions in order, counted, given to the drift tests and logged; raises as the batcher."""
    batcher, held = batcher_of(request), request.app.state.metrics
    answer = await batcher.predict(passengers, request.app.state.settings.timeout_seconds)
    assert batcher.predictor is not None
    bundle = batcher.predictor.bundle
    held.waited(answer.queue_seconds)
    held.predicted(bundle.version, passengers, answer.predictions)
    drift_of(request).predicted(passengers, answer.predictions)
    ids = [uuid7() for _ in answer.predictions]
    store: Store | None = request.app.state.store
    if store is not None:
        store.log(bundle.version, ids, passengers, answer.predictions)
    identity = ModelIdentity(bundle.name, bundle.version)
    return answer, [
        PredictionResponse(
            id=id, model=identity, survived=one.survived, probability=one.probability, confidence=one.confidence
        )
        for id, one in zip(ids, answer.predictions, strict=True)
    ]


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
