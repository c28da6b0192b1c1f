"""What every route does: take a body, have passengers answered, log and count the answers, respond."""

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from litestar import Request, Response
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import Receive

from models.passenger import Passenger
from service.access import Access
from service.batcher import Batcher
from service.bodies import decode_body
from service.drift import Drift
from service.drift_keeper import DriftKeeper
from service.errors import BadHeader, NotReady, Problem
from service.fair_queue import Answer
from service.incoming import read_body
from service.negotiation import JSON, media_type
from service.schemas import ModelIdentity, PredictionResponse, uuid7
from service.store import Store

AnyRequest = Request[Any, Any, State]
T = TypeVar("T", bound=msgspec.Struct)
TIMEOUT_HEADER = "X-Request-Timeout-Ms"
SHOWN_CHARACTERS = 60

REFUSALS = {
    status: ResponseSpec(Problem, description=text, media_type="application/problem+json")
    for status, text in {
        400: "malformed body", 401: "no key, or not a good one", 403: "the key lacks the scope",
        406: "neither JSON nor MessagePack is accepted", 411: "no body", 413: "body too large",
        415: "neither JSON nor MessagePack, or an unknown coding", 422: "faults in the body",
        429: "queue full, or the key's rate used up", 503: "not ready", 504: "deadline passed",
    }.items()
}  # fmt: skip


async def take(request: AnyRequest, form: type[T]) -> T:
    """The body as ``form``; raises the ServiceError of whatever is wrong with it."""
    media_type(request.headers.get("accept", ""))  # Refused before anything is computed.
    limit = request.app.state.settings.max_body_bytes
    body = await read_body(request.headers, request.receive, limit)
    return decode_body(body, request.headers.get("content-type", ""), form)


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
    state.metrics.predicted(bundle.version, passengers, answer.predictions)
    drift = drift_of(request)
    # An answer of the bundle before this one may come in just after the swap.
    if drift.version == bundle.version:
        drift.predicted(passengers, answer.predictions)
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
    access.rows(request.scope, len(passengers))
    # Who has a key is one client, from wherever.
    client = request.scope["state"]["exchange"].key or (request.client.host if request.client else "")
    answer = await batcher_of(request).predict(
        passengers, deadline_seconds(request), client, (lambda: _left(request.receive)) if body_read else None
    )
    request.app.state.metrics.waited(answer.queue_seconds)
    return answer


def deadline_seconds(request: AnyRequest) -> float:
    """How long the client waits: ``X-Request-Timeout-Ms``, at most the service's own limit, which is the default.

    Raises BadHeader for anything but a whole number of milliseconds from 1.
    """
    limit: float = request.app.state.settings.timeout_seconds
    given = request.headers.get(TIMEOUT_HEADER)
    if given is None:
        return limit
    if not given.isascii() or not given.isdigit() or len(given) > 12 or int(given) < 1:
        shown = given[:SHOWN_CHARACTERS]
        raise BadHeader(f"{TIMEOUT_HEADER} is {shown}; it must be a whole number of milliseconds from 1")
    return min(limit, int(given) / 1e3)


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
