"""What every route does: take a body, have passengers answered, log and count the answers, respond."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec

from models.passenger import Passenger
from service.batcher import Answer, Batcher
from service.bodies import decode_body
from service.drift import Drift
from service.drift_keeper import DriftKeeper
from service.errors import NotReady, Problem
from service.incoming import read_body
from service.negotiation import JSON, media_type
from service.schemas import ModelIdentity, PredictionResponse, uuid7
from service.store import Store

AnyRequest = Request[Any, Any, State]
T = TypeVar("T", bound=msgspec.Struct)

REFUSALS = {
    status: ResponseSpec(Problem, description=text, media_type="application/problem+json")
    for status, text in {
        400: "malformed body", 406: "neither JSON nor MessagePack is accepted", 411: "no body", 413: "body too large",
        415: "neither JSON nor MessagePack, or an unknown coding", 422: "faults in the body",
        429: "queue full", 503: "not ready", 504: "deadline passed",
    }.items()
}  # fmt: skip


async def take(request: AnyRequest, form: type[T]) -> T:
    """The body as ``form``; raises the ServiceError of whatever is wrong with it."""
    media_type(request.headers.get("accept", ""))  # Refused before anything is computed.
    limit = request.app.state.settings.max_body_bytes
    body = await read_body(request.headers, request.receive, limit)
    return decode_body(body, request.headers.get("content-type", ""), form)


async def answered(
    request: AnyRequest, passengers: Sequence[Passenger], trial: bool = False
) -> tuple[Answer, list[PredictionResponse]]:
    """Passengers → their predictions in order, counted, given to the drift tests and logged; raises as the batcher.

    A ``trial`` is answered alike and leaves no trace in counters of predictions, drift tests and log: whoever plays
    with a form sends what no traffic looks like."""
    batcher, held = batcher_of(request), request.app.state.metrics
    answer = await batcher.predict(passengers, request.app.state.settings.timeout_seconds)
    assert batcher.predictor is not None
    bundle = batcher.predictor.bundle
    held.waited(answer.queue_seconds)
    if not trial:
        held.predicted(bundle.version, passengers, answer.predictions)
        drift_of(request).predicted(passengers, answer.predictions)
    ids = [uuid7() for _ in answer.predictions]
    store: Store | None = request.app.state.store
    if store is not None and not trial:
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
