"""The /v1 routes, health and metrics."""

import hashlib

import msgspec
from litestar import Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from models.passenger import Passenger
from service.drift import report as diagnosis
from service.drift.monitor import STREAMS
from service.http.errors import (
    BundleRefused,
    DeadlinePassed,
    InvalidQuery,
    NotReady,
    OutcomesNotKept,
    QueueFull,
    ReloadRunning,
    StoreUnavailable,
)
from service.http.negotiation import media_type
from service.inference.reloading import Reloaded
from service.metrics import Metrics
from service.routes.openapi.document import LINKS, PARAMETERS, TAKES, Body, Negotiated, refusals
from service.routes.prediction import (
    BODY_REFUSALS,
    READ_REFUSALS,
    REFUSALS,
    TIMEOUT,
    TIMING,
    AnyRequest,
    answered,
    batcher_of,
    drift_of,
    not_ready,
    query_value,
    respond,
    take,
)
from service.routes.schemas import (
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
from service.store.store import Store

TRIAL = "trial"
TRIAL_PARAMETER = {
    "name": TRIAL, "in": "query", "required": False, "schema": {"type": "boolean", "default": False},
    "description": "Answer without counting it as traffic: not in metrics, drift tests or log.",
}  # fmt: skip
TRIAL_REFUSALS = refusals(
    ("a query parameter or its value that there is not", InvalidQuery('trial is "x"; it must be false or true')),
    beside=REFUSALS,
)

PASSENGER = {
    "pclass": 1, "sex": "female", "name": "Allison, Miss. Helen Loraine", "age": 2, "sibsp": 1, "parch": 2,
    "fare": 151.55, "ticket": "113781", "cabin": "C22 C26", "embarked": "S",
}  # fmt: skip
"""The passenger of the document's examples."""

ID = "0199c1f2-6a5e-7c3b-9d41-2f0b8c7e5a10"
ANSWER = Example(
    id="survived", summary="a child of the first class",
    value={
        "id": ID, "model": {"name": "titanic", "version": "3f9c0d1e2a4b"}, "survived": True, "probability": 0.8732,
        "confidence": {
            "interval": [0.8273, 0.9293], "prediction_set": ["survived"], "coverage": 0.9, "margin": 0.7463,
            "entropy_bits": 0.549, "typicality": 0.0393, "abstain": False, "uncalibrated_probability": 0.652,
            "calibration": [{"step": "model", "probability": 0.652}, {"step": "temperature", "probability": 0.8732}],
            "warnings": [],
        },
    },
)  # fmt: skip

FAULTY = {"pclass": 4, "sex": "female", "agee": 2}

ONE = Body(Passenger, PASSENGER, FAULTY)
MANY = Body(
    BatchRequest, {"passengers": [PASSENGER, {"pclass": 3, "sex": "male"}]}, {"passengers": [PASSENGER, FAULTY]}
)
OUTCOMES = Body(
    OutcomesRequest, {"outcomes": [{"id": ID, "survived": True}]}, {"outcomes": [{"id": ID, "survived": "yes"}]}
)
ACKNOWLEDGEMENT = Body(Acknowledgement, {"stream": "input", "begin": "reference"}, {"stream": "inputs"})

OUTCOME_REFUSALS = refusals(
    ("the service has no store", OutcomesNotKept()),
    ("more outcomes wait than can be written in time", QueueFull(1)),
    ("the store is unusable now", StoreUnavailable()),
    ("the service is stopping", NotReady("stopping")),
    ("not durable within timeout_seconds", DeadlinePassed("not durable within 30 seconds")),
    beside=BODY_REFUSALS,
)

RELOAD_REFUSALS = refusals(
    ("a bundle is being loaded already", ReloadRunning()),
    ("the bundle is not taken, the old one goes on", BundleRefused("model.safetensors was changed")),
    beside=READ_REFUSALS,
)

IF_NONE_MATCH = {
    "name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"},
    "description": "The ETag of an earlier answer.",
}  # fmt: skip
ETAG = ResponseHeader(name="ETag", description="Changes when the answer does.", documentation_only=True)

TO_OUTCOME = {
    "outcome": {
        "operationId": "sendOutcomes",
        "description": "What became of the passenger, when it is known.",
        "requestBody": {"outcomes": [{"id": "$response.body#/id", "survived": True}]},
    }
}


@post(
    "/v1/predict", status_code=200, operation_id="predict", summary="Predict one passenger", tags=["predictions"],
    opt={TAKES: ONE, PARAMETERS: [TRIAL_PARAMETER, TIMEOUT], LINKS: TO_OUTCOME}, response_headers=[TIMING],
    responses={200: Negotiated(PredictionResponse, description="the prediction", examples=[ANSWER]), **TRIAL_REFUSALS},
)  # fmt: skip
async def predict(request: AnyRequest) -> Response[bytes]:
    """One passenger → one prediction: the calibrated probability of survival, and how far to trust it.

    Unknown fields may be left out or null, but for ``pclass`` and ``sex``. The answer's ``id`` is that under which an
    outcome can be sent later.

    A ``trial`` is not counted as traffic: not by metrics, drift tests, or log.
    """
    trial = query_value(request, TRIAL, ("false", "true")) == "true"
    passenger = await take(request, Passenger)
    answer, predictions = await answered(request, [passenger], trial)
    return respond(request, predictions[0], answer)


@post(
    "/v1/predict/batch", status_code=200, operation_id="predictBatch", summary="Predict up to 1024 passengers",
    tags=["predictions"], opt={TAKES: MANY, PARAMETERS: [TIMEOUT]}, response_headers=[TIMING],
    responses={200: Negotiated(BatchResponse, description="the predictions, in the passengers' order"), **REFUSALS},
)  # fmt: skip
async def predict_batch(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 passengers → as many predictions, in order.

    Each is what ``/v1/predict`` would answer. If one passenger is faulty, all faults are told and none is predicted.
    """
    batch = await take(request, BatchRequest)
    answer, predictions = await answered(request, batch.passengers)
    return respond(request, BatchResponse(predictions), answer)


@post(
    "/v1/outcomes", status_code=200, operation_id="sendOutcomes", summary="Send up to 1024 outcomes", tags=["outcomes"],
    opt={TAKES: OUTCOMES},
    responses={200: Negotiated(OutcomesResponse, description="what became of each outcome"), **OUTCOME_REFUSALS},
)  # fmt: skip
async def take_outcomes(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 outcomes, acknowledged when durable and counted once however often they are sent.

    Each names the ``id`` of a prediction's answer. From outcomes come the live calibration and its drift test.
    """
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


@get(
    "/v1/model", operation_id="getModel", summary="What is served", tags=["model"],
    opt={PARAMETERS: [IF_NONE_MATCH]}, response_headers=[ETAG],
    responses={
        200: Negotiated(ModelDescription, description="the model"),
        304: ResponseSpec(None, description="it is still the one that If-None-Match names"), **READ_REFUSALS,
    },
)  # fmt: skip
async def model(request: AnyRequest) -> Response[bytes]:
    """The bundle's manifest (how it came to be) and evaluation (how good it is), and what computes it."""
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


@get(
    "/v1/drift", operation_id="getDrift", summary="What has changed since training", tags=["drift"],
    responses={200: Negotiated(DriftReport, description="the report"), **READ_REFUSALS},
)  # fmt: skip
async def drift(request: AnyRequest) -> Response[bytes]:
    """Alarms, distributions, label-free estimates, and which of three causes explains a change."""
    return respond(request, diagnosis.report(drift_of(request)))


@post(
    "/v1/drift/acknowledge", status_code=200, operation_id="acknowledgeDrift", summary="End an alarm", tags=["drift"],
    opt={TAKES: ACKNOWLEDGEMENT},
    responses={200: Negotiated(DriftReport, description="the report afterwards"), **BODY_REFUSALS, **READ_REFUSALS},
)  # fmt: skip
async def acknowledge(request: AnyRequest) -> Response[bytes]:
    """End one stream's alarm, or all, and begin its test again, against the reference or the recent rows."""
    asked = await take(request, Acknowledgement)
    held = drift_of(request)
    for stream in STREAMS if asked.stream == "all" else (asked.stream,):
        held.acknowledge(stream, asked.begin)
    return respond(request, diagnosis.report(held))


@post(
    "/admin/reload", status_code=200, operation_id="reload", summary="Swap to the bundle that the folder holds now",
    tags=["operations"], responses={200: Negotiated(Reloaded, description="the versions"), **RELOAD_REFUSALS},
)  # fmt: skip
async def reload(request: AnyRequest) -> Response[bytes]:
    """Load the bundle's folder anew and swap to it; the old bundle serves until then, and goes on if this fails."""
    media_type(request.headers.get("accept", ""))  # Refused before anything is loaded.
    return respond(request, await request.app.state.reloader.reload())


@get(
    "/health/live", operation_id="getLiveness", summary="Does the process answer?", tags=["operations"],
    responses={
        200: ResponseSpec(Health, description="it does"),
        503: ResponseSpec(Health, description="inference is lost, as the detail says: restart it"),
    },
)  # fmt: skip
async def live(request: AnyRequest) -> Response[Health]:
    """The process runs and answers; 503 when inference is lost for good, so that only a restart helps."""
    batcher = batcher_of(request)
    return (
        Response(Health("lost", batcher.failure or ""), status_code=503) if batcher.lost else Response(Health("live"))
    )


@get(
    "/health/ready", operation_id="getReadiness", summary="Is the model loaded?", tags=["operations"],
    responses={
        200: ResponseSpec(Health, description="send requests"),
        503: ResponseSpec(Health, description="send none: loading, failed or stopping, as the detail says"),
    },
)  # fmt: skip
async def ready(request: AnyRequest) -> Response[Health]:
    """The model is loaded and warm, and the process is not stopping; the detail says if outcomes cannot be kept."""
    batcher, store = batcher_of(request), request.app.state.store
    if batcher.ready and not batcher.draining:
        unusable = store is not None and store.failure
        return Response(Health("ready", f"outcomes are refused, the store is unusable: {unusable}" if unusable else ""))
    detail = batcher.failure or ("draining" if batcher.draining else "loading")
    return Response(Health("not ready", detail), status_code=503)


@get(
    "/metrics", operation_id="getMetrics", summary="Prometheus' series", tags=["operations"],
    responses={200: ResponseSpec(str, description="the series", media_type="text/plain")},
)  # fmt: skip
async def metrics(request: AnyRequest) -> Response[bytes]:
    """All series in Prometheus' text format."""
    held: Metrics = request.app.state.metrics
    return Response(generate_latest(held.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})
