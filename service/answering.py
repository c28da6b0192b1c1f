"""What every route does: take a body, have passengers answered, log and count the answers, respond."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.datastructures import ResponseHeader, State
from litestar.exceptions import ClientException

from models.passenger import Passenger
from service.batcher import Answer, Batcher
from service.bodies import JSON, MESSAGEPACK, MESSAGEPACK_TYPES, decode_body
from service.drift import Drift
from service.drift_keeper import DriftKeeper
from service.errors import (
    DeadlinePassed,
    InvalidBody,
    MalformedBody,
    NotReady,
    PredictionFailed,
    QueueFull,
    WrongMediaType,
)
from service.openapi import refusals
from service.schemas import ModelIdentity, PredictionResponse, uuid7
from service.store import Store

AnyRequest = Request[Any, Any, State]
T = TypeVar("T", bound=msgspec.Struct)

BODY_REFUSALS = refusals(
    ("not JSON or MessagePack", MalformedBody("the body is not JSON: Input data was truncated")),
    ("body larger than max_body_bytes", ClientException("Request Entity Too Large", status_code=413)),
    (
        "neither JSON nor MessagePack",
        WrongMediaType(f"Content-Type is text/plain; it must be {JSON} (UTF-8) or {MESSAGEPACK}"),
    ),
    ("a value of a wrong type or out of range, an unknown or a missing field", InvalidBody([])),
)
"""What every route that reads a body may refuse it with."""

NOT_READY = refusals(("not loaded yet", NotReady("the model is being loaded")))

REFUSALS = BODY_REFUSALS | refusals(
    ("more requests wait than can be answered in time", QueueFull(1)),
    ("not loaded yet", NotReady("the model is being loaded")),
    ("the model gave no finite number", PredictionFailed("the model gave no valid answer for this request")),
    ("not answered within timeout_seconds", DeadlinePassed("no answer within 30 seconds")),
)
"""What every route that predicts may refuse with."""

TIMING = ResponseHeader(
    name="Server-Timing", description="milliseconds waited and computed: queue;dur=…, inference;dur=…",
    documentation_only=True,
)  # fmt: skip


async def take(request: AnyRequest, form: type[T]) -> T:
    """The body as ``form``; raises the ServiceError of whatever is wrong with it."""
    return decode_body(await request.body(), request.headers.get("content-type", ""), form)


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


def respond(request: AnyRequest, value: Any, answer: Answer | None = None) -> Response[bytes]:
    """``value`` as JSON, or as MessagePack where the client asks for it, with the answer's ``Server-Timing``."""
    packed = any(one in request.headers.get("accept", "") for one in MESSAGEPACK_TYPES)
    encode, media_type = (msgspec.msgpack.encode, MESSAGEPACK) if packed else (msgspec.json.encode, JSON)
    timing = (
        f"queue;dur={answer.queue_seconds * 1e3:.2f}, inference;dur={answer.inference_seconds * 1e3:.2f}"
        if answer
        else None
    )
    return Response(encode(value), media_type=media_type, headers={"Server-Timing": timing} if timing else {})


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
