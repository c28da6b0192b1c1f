"""The /v1 routes, health and metrics."""

from collections.abc import Sequence
from typing import Any

import msgspec
from litestar import Request, Response, get, post
from litestar.datastructures import State
from litestar.openapi.datastructures import ResponseSpec
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from models.passenger import Passenger
from service import diagnosis
from service.batcher import Answer, Batcher
from service.bodies import JSON, MESSAGEPACK, MESSAGEPACK_TYPES, decode_body
from service.drift import STREAMS, Drift
from service.drift_keeper import DriftKeeper
from service.errors import NotReady, OutcomesNotKept, Problem
from service.metrics import Metrics
from service.schemas import (
    Acknowledgement,
    BatchRequest,
    BatchResponse,
    DriftReport,
    Health,
    ModelDescription,
    ModelIdentity,
    OutcomesRequest,
    OutcomesResponse,
    PredictionResponse,
    uuid7,
)  # fmt: skip
from service.store import Store

AnyRequest = Request[Any, Any, State]
REFUSALS = {
    status: ResponseSpec(Problem, description=text, media_type="application/problem+json")
    for status, text in {
        400: "malformed body", 413: "body too large", 415: "neither JSON nor MessagePack", 422: "faults in the body",
        429: "queue full", 503: "not ready", 504: "deadline passed",
    }.items()
}  # fmt: skip
NO_STORE = ResponseSpec(Problem, description="the service has no store", media_type="application/problem+json")

DRIFT_REFUSALS = {status: REFUSALS[status] for status in (400, 413, 415, 422, 503)}


@post("/v1/predict", status_code=200, responses={200: ResponseSpec(PredictionResponse), **REFUSALS})
async def predict(request: AnyRequest) -> Response[bytes]:
    """One passenger → one prediction."""
    passenger = decode_body(await request.body(), request.headers.get("content-type", ""), Passenger)
    answer, predictions = await _predict(request, [passenger])
    return _respond(request, predictions[0], answer)


@post("/v1/predict/batch", status_code=200, responses={200: ResponseSpec(BatchResponse), **REFUSALS})
async def predict_batch(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 passengers → as many predictions, in order."""
    batch = decode_body(await request.body(), request.headers.get("content-type", ""), BatchRequest)
    answer, predictions = await _predict(request, batch.passengers)
    return _respond(request, BatchResponse(predictions), answer)


@post("/v1/outcomes", status_code=200, responses={200: ResponseSpec(OutcomesResponse), 404: NO_STORE, **REFUSALS})
async def take_outcomes(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 outcomes, acknowledged when durable and counted once however often they are sent."""
    store: Store | None = request.app.state.store
    metrics: Metrics = request.app.state.metrics
    if store is None:
        raise OutcomesNotKept
    body = decode_body(await request.body(), request.headers.get("content-type", ""), OutcomesRequest)
    outcomes = [(one.id.lower(), one.survived) for one in body.outcomes]
    fates = await store.label(outcomes, request.app.state.settings.timeout_seconds)
    metrics.outcomes_received(fates)

    def ids(fate: str) -> list[str]:
        return [one.id for one, found in zip(body.outcomes, fates, strict=True) if found == fate]

    response = OutcomesResponse(
        counted=fates.count("counted"), repeated=fates.count("repeated"), unknown=ids("unknown"),
        conflicting=ids("conflicting"),
    )  # fmt: skip
    return _respond(request, response)


@get("/v1/model", responses={200: ResponseSpec(ModelDescription), 503: REFUSALS[503]})
async def model(request: AnyRequest) -> Response[bytes]:
    """What is served: manifest, evaluation, back end."""
    batcher = _batcher(request)
    if batcher.predictor is None:
        raise _not_ready(batcher)
    bundle = batcher.predictor.bundle
    description = ModelDescription(
        name=bundle.name, version=bundle.version, backend=msgspec.to_builtins(batcher.predictor.backend),
        manifest=bundle.manifest, evaluation=bundle.evaluation,
    )  # fmt: skip
    return _respond(request, description)


@get("/v1/drift", responses={200: ResponseSpec(DriftReport), 503: REFUSALS[503]})
async def drift(request: AnyRequest) -> Response[bytes]:
    """What has changed since training: alarms, distributions, estimates, and which of three causes."""
    return _respond(request, diagnosis.report(_drift(request)))


@post("/v1/drift/acknowledge", status_code=200, responses={200: ResponseSpec(DriftReport), **DRIFT_REFUSALS})
async def acknowledge(request: AnyRequest) -> Response[bytes]:
    """End an alarm, or all, and begin the test again."""
    asked = decode_body(await request.body(), request.headers.get("content-type", ""), Acknowledgement)
    held = _drift(request)
    for stream in STREAMS if asked.stream == "all" else (asked.stream,):
        held.acknowledge(stream, asked.begin)
    return _respond(request, diagnosis.report(held))


@get("/health/live")
async def live() -> Health:
    """The process runs and answers."""
    return Health("live")


@get("/health/ready", responses={200: ResponseSpec(Health), 503: ResponseSpec(Health)})
async def ready(request: AnyRequest) -> Response[Health]:
    """The model is loaded and warm, and the process is not stopping; the detail says if outcomes cannot be kept."""
    batcher, store = _batcher(request), request.app.state.store
    if batcher.ready and not batcher.draining:
        unusable = store is not None and store.failure
        return Response(Health("ready", f"outcomes are refused, the store is unusable: {unusable}" if unusable else ""))
    detail = batcher.failure or ("draining" if batcher.draining else "loading")
    return Response(Health("not ready", detail), status_code=503)


@get("/metrics", include_in_schema=False)
async def metrics(request: AnyRequest) -> Response[bytes]:
    """Prometheus' text format."""
    held: Metrics = request.app.state.metrics
    return Response(generate_latest(held.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})


async def _predict(request: AnyRequest, passengers: Sequence[Passenger]) -> tuple[Answer, list[PredictionResponse]]:
    batcher, held = _batcher(request), request.app.state.metrics
    answer = await batcher.predict(passengers, request.app.state.settings.timeout_seconds)
    assert batcher.predictor is not None
    bundle = batcher.predictor.bundle
    held.waited(answer.queue_seconds)
    held.predicted(bundle.version, passengers, answer.predictions)
    _drift(request).predicted(passengers, answer.predictions)
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


def _batcher(request: AnyRequest) -> Batcher:
    batcher: Batcher = request.app.state.batcher
    return batcher


def _drift(request: AnyRequest) -> Drift:
    keeper: DriftKeeper = request.app.state.drift
    if keeper.drift is None:
        raise _not_ready(_batcher(request))
    return keeper.drift


def _not_ready(batcher: Batcher) -> NotReady:
    return NotReady(batcher.failure or "the model is being loaded")


def _respond(request: AnyRequest, value: Any, answer: Answer | None = None) -> Response[bytes]:
    packed = any(one in request.headers.get("accept", "") for one in MESSAGEPACK_TYPES)
    encode, media_type = (msgspec.msgpack.encode, MESSAGEPACK) if packed else (msgspec.json.encode, JSON)
    timing = (
        f"queue;dur={answer.queue_seconds * 1e3:.2f}, inference;dur={answer.inference_seconds * 1e3:.2f}"
        if answer
        else None
    )
    return Response(encode(value), media_type=media_type, headers={"Server-Timing": timing} if timing else {})
