"""The /v1 routes, health and metrics."""

import hashlib
from typing import Annotated

import msgspec
from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import QueryParameter
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from models.passenger import Passenger
from service import diagnosis
from service.answering import REFUSALS, AnyRequest, answered, batcher_of, drift_of, not_ready, respond, take
from service.drift import STREAMS
from service.errors import OutcomesNotKept, Problem
from service.metrics import Metrics
from service.reloading import Reloaded
from service.schemas import (
    Acknowledgement,
    BatchRequest,
    BatchResponse,
    DriftReport,
    Health,
    ModelDescription,
    OutcomesRequest,
    OutcomesResponse,
    PredictionResponse,
)
from service.store import Store

NO_STORE = ResponseSpec(Problem, description="the service has no store", media_type="application/problem+json")

Trial = Annotated[
    bool, QueryParameter(description="answer without counting it as traffic: not in metrics, drift tests or log")
]

RELOAD_REFUSALS = {
    status: ResponseSpec(Problem, description=text, media_type="application/problem+json")
    for status, text in {
        406: "neither JSON nor MessagePack is accepted", 409: "a bundle is being loaded already",
        422: "the bundle is not taken, the old one goes on", 503: "not ready",
    }.items()
}  # fmt: skip
DRIFT_REFUSALS = {status: REFUSALS[status] for status in (400, 406, 411, 413, 415, 422, 503)}


@post("/v1/predict", status_code=200, responses={200: ResponseSpec(PredictionResponse), **REFUSALS})
async def predict(request: AnyRequest, trial: Trial = False) -> Response[bytes]:
    """One passenger → one prediction. A ``trial`` is not counted as traffic: not by metrics, drift tests, or log."""
    passenger = await take(request, Passenger)
    answer, predictions = await answered(request, [passenger], trial)
    return respond(request, predictions[0], answer)


@post("/v1/predict/batch", status_code=200, responses={200: ResponseSpec(BatchResponse), **REFUSALS})
async def predict_batch(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 passengers → as many predictions, in order."""
    batch = await take(request, BatchRequest)
    answer, predictions = await answered(request, batch.passengers)
    return respond(request, BatchResponse(predictions), answer)


@post("/v1/outcomes", status_code=200, responses={200: ResponseSpec(OutcomesResponse), 404: NO_STORE, **REFUSALS})
async def take_outcomes(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 outcomes, acknowledged when durable and counted once however often they are sent."""
    store: Store | None = request.app.state.store
    metrics: Metrics = request.app.state.metrics
    if store is None:
        raise OutcomesNotKept
    body = await take(request, OutcomesRequest)
    outcomes = [(one.id.lower(), one.survived) for one in body.outcomes]
    fates = await store.label(outcomes, request.app.state.settings.timeout_seconds)
    metrics.outcomes_received(fates)

    def ids(fate: str) -> list[str]:
        return [one.id for one, found in zip(body.outcomes, fates, strict=True) if found == fate]

    response = OutcomesResponse(
        counted=fates.count("counted"), repeated=fates.count("repeated"), unknown=ids("unknown"),
        conflicting=ids("conflicting"),
    )  # fmt: skip
    return respond(request, response)


@get("/v1/model", responses={200: ResponseSpec(ModelDescription), 503: REFUSALS[503]})
async def model(request: AnyRequest) -> Response[bytes]:
    """What is served: manifest, evaluation, back end."""
    batcher = batcher_of(request)
    if batcher.predictor is None:
        raise not_ready(batcher)
    bundle = batcher.predictor.bundle
    description = ModelDescription(
        name=bundle.name, version=bundle.version, backend=msgspec.to_builtins(batcher.predictor.backend),
        manifest=bundle.manifest, evaluation=bundle.evaluation,
    )  # fmt: skip
    headers = {
        "ETag": f'"{hashlib.sha256(msgspec.json.encode(description)).hexdigest()[:32]}"',
        "Cache-Control": "no-cache",
    }
    return respond(request, description, headers=headers)


@get("/v1/drift", responses={200: ResponseSpec(DriftReport), 503: REFUSALS[503]})
async def drift(request: AnyRequest) -> Response[bytes]:
    """What has changed since training: alarms, distributions, estimates, and which of three causes."""
    return respond(request, diagnosis.report(drift_of(request)))


@post("/v1/drift/acknowledge", status_code=200, responses={200: ResponseSpec(DriftReport), **DRIFT_REFUSALS})
async def acknowledge(request: AnyRequest) -> Response[bytes]:
    """End an alarm, or all, and begin the test again."""
    asked = await take(request, Acknowledgement)
    held = drift_of(request)
    for stream in STREAMS if asked.stream == "all" else (asked.stream,):
        held.acknowledge(stream, asked.begin)
    return respond(request, diagnosis.report(held))


@post("/admin/reload", status_code=200, responses={200: ResponseSpec(Reloaded), **RELOAD_REFUSALS})
async def reload(request: AnyRequest) -> Response[bytes]:
    """Load the bundle's folder anew and swap to it; the old bundle serves until then, and goes on if this fails."""
    return respond(request, await request.app.state.reloader.reload())


@get("/health/live", responses={200: ResponseSpec(Health), 503: ResponseSpec(Health)})
async def live(request: AnyRequest) -> Response[Health]:
    """The process runs and answers; 503 when inference is lost for good, so that only a restart helps."""
    batcher = batcher_of(request)
    return (
        Response(Health("lost", batcher.failure or ""), status_code=503) if batcher.lost else Response(Health("live"))
    )


@get("/health/ready", responses={200: ResponseSpec(Health), 503: ResponseSpec(Health)})
async def ready(request: AnyRequest) -> Response[Health]:
    """The model is loaded and warm, and the process is not stopping; the detail says if outcomes cannot be kept."""
    batcher, store = batcher_of(request), request.app.state.store
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
