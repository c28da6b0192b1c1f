"""POST /v1/predict and /v1/predict/batch; and how every route that predicts does so."""

from collections.abc import Sequence

from litestar import Response, post
from litestar.openapi.spec import Example
from litestar.types import Receive

from models.passenger import Passenger
from service.http.errors import InvalidQuery
from service.inference.fair_queue import Answer
from service.routes.openapi.description import LINKS, PARAMETERS, TAKES, TIMEOUT, TIMING, Body, Negotiated
from service.routes.openapi.refusals import PREDICTION_REFUSALS, refusals
from service.routes.request import (
    AnyRequest,
    drift_of,
    parse_body,
    query_value,
    request_timeout,
    respond,
    services_of,
)
from service.routes.schemas import BatchRequest, BatchResponse, ModelIdentity, PredictionResponse
from service.uuid7 import uuid7

TRIAL = "trial"
TRIAL_PARAMETER = {
    "name": TRIAL, "in": "query", "required": False, "schema": {"type": "boolean", "default": False},
    "description": "Answer without counting it as traffic: not in metrics, drift tests or log.",
}  # fmt: skip
TRIAL_REFUSALS = refusals(
    ("a query parameter or its value that there is not", InvalidQuery('trial is "x"; it must be false or true')),
    beside=PREDICTION_REFUSALS,
)

PASSENGER = {
    "pclass": 1, "sex": "female", "name": "Allison, Miss. Helen Loraine", "age": 2, "sibsp": 1, "parch": 2,
    "fare": 151.55, "ticket": "113781", "cabin": "C22 C26", "embarked": "S",
}  # fmt: skip
"""The passenger of the document's examples."""

PREDICTION_ID = "0199c1f2-6a5e-7c3b-9d41-2f0b8c7e5a10"
ANSWER = Example(
    id="survived", summary="a child of the first class",
    value={
        "id": PREDICTION_ID, "model": {"name": "titanic", "version": "3f9c0d1e2a4b"}, "survived": True,
        "probability": 0.8732,
        "confidence": {
            "interval": [0.8273, 0.9293], "prediction_set": ["survived"], "coverage": 0.9, "margin": 0.7463,
            "entropy_bits": 0.549, "typicality": 0.0393, "abstain": False, "uncalibrated_probability": 0.652,
            "calibration": [{"step": "model", "probability": 0.652}, {"step": "temperature", "probability": 0.8732}],
            "warnings": [],
        },
    },
)  # fmt: skip

FAULTY = {"pclass": 4, "sex": "female", "agee": 2}

PASSENGER_BODY = Body(Passenger, PASSENGER, FAULTY)
BATCH_BODY = Body(
    BatchRequest, {"passengers": [PASSENGER, {"pclass": 3, "sex": "male"}]}, {"passengers": [PASSENGER, FAULTY]}
)

TO_OUTCOME = {
    "outcome": {
        "operationId": "sendOutcomes",
        "description": "What became of the passenger, when it is known.",
        "requestBody": {"outcomes": [{"id": "$response.body#/id", "survived": True}]},
    }
}


@post(
    "/v1/predict", status_code=200, operation_id="predict", summary="Predict one passenger", tags=["predictions"],
    opt={TAKES: PASSENGER_BODY, PARAMETERS: [TRIAL_PARAMETER, TIMEOUT], LINKS: TO_OUTCOME}, response_headers=[TIMING],
    responses={200: Negotiated(PredictionResponse, description="the prediction", examples=[ANSWER]), **TRIAL_REFUSALS},
)  # fmt: skip
async def predict(request: AnyRequest) -> Response[bytes]:
    """One passenger → one prediction: the calibrated probability of survival, and how far to trust it.

    Unknown fields may be left out or null, but for ``pclass`` and ``sex``. The answer's ``id`` is that under which an
    outcome can be sent later.

    A ``trial`` is not counted as traffic: not by metrics, drift tests, or log.
    """
    trial = query_value(request, TRIAL, ("false", "true")) == "true"
    passenger = await parse_body(request, Passenger)
    answer, predictions = await predict_and_record(request, [passenger], trial)
    return respond(request, predictions[0], answer)


@post(
    "/v1/predict/batch", status_code=200, operation_id="predictBatch", summary="Predict up to 1024 passengers",
    tags=["predictions"], opt={TAKES: BATCH_BODY, PARAMETERS: [TIMEOUT]}, response_headers=[TIMING],
    responses={
        200: Negotiated(BatchResponse, description="the predictions, in the passengers' order"), **PREDICTION_REFUSALS,
    },
)  # fmt: skip
async def predict_batch(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 passengers → as many predictions, in order.

    Each is what ``/v1/predict`` would answer. If one passenger is faulty, all faults are named and none is predicted.
    """
    batch = await parse_body(request, BatchRequest)
    answer, predictions = await predict_and_record(request, batch.passengers)
    return respond(request, BatchResponse(predictions), answer)


async def predict_and_record(
    request: AnyRequest, passengers: Sequence[Passenger], trial: bool = False, body_read: bool = True
) -> tuple[Answer, list[PredictionResponse]]:
    """Passengers → their predictions in order, counted, given to the drift tests and logged; raises as `run_inference`.

    A ``trial`` is answered alike and leaves no trace in counters of predictions, drift tests, log and shadow: whoever
    plays with a form sends what no traffic looks like.
    """
    answer = await run_inference(request, passengers, body_read)
    ids = [uuid7() for _ in answer.predictions]
    if not trial:
        _record(request, answer, passengers, ids)
    model = ModelIdentity(answer.bundle.name, answer.bundle.version)
    return answer, [
        PredictionResponse(
            id=id, model=model, survived=prediction.survived, probability=prediction.probability,
            confidence=prediction.confidence,
        )
        for id, prediction in zip(ids, answer.predictions, strict=True)
    ]  # fmt: skip


def _record(request: AnyRequest, answer: Answer, passengers: Sequence[Passenger], ids: Sequence[str]) -> None:
    services, version = services_of(request), answer.bundle.version
    services.metrics.predicted(version, answer.predictions)
    drift = drift_of(request)
    # An answer of the bundle before this one may come in just after the swap.
    if drift.version == version:
        drift.predicted(answer.predictions)
    if services.store is not None:
        services.store.log(version, ids, passengers, answer.predictions)
    if services.shadow is not None:
        services.shadow.offer(passengers, answer.predictions)


async def run_inference(request: AnyRequest, passengers: Sequence[Passenger], body_read: bool = True) -> Answer:
    """Passengers → their predictions in order, of which only the time that they waited is counted; raises as the
    batcher.

    ``body_read`` is False where the body is read meanwhile: who reads it sees by itself that the client disconnects.
    """
    services = services_of(request)
    client = services.access.client(request.scope)
    disconnected = (lambda: _disconnected(request.receive)) if body_read else None
    with services.access.rows(request.scope, len(passengers)):
        answer = await services.batcher.predict(passengers, request_timeout(request), client, disconnected)
    services.metrics.waited(answer.queue_seconds)
    return answer


async def _disconnected(receive: Receive) -> None:
    """Return when the client is gone; its body has been read, so nothing else can come."""
    while (await receive())["type"] != "http.disconnect":
        pass
