"""POST /v1/predict and /v1/predict/batch; and how every route that predicts does so."""

import asyncio
import math
from collections.abc import Sequence
from typing import Any

from litestar import Response, post
from litestar.openapi.spec import Example
from msgspec import UNSET

from models.calibration.confidence import Confidence
from models.rows import Row
from service.http.connections import ON_DISCONNECT
from service.http.errors import InvalidQuery
from service.inference.fair_queue import Answer
from service.routes.openapi.description import (
    ANSWERS,
    LINKS,
    PARAMETERS,
    TAKES,
    TIMEOUT,
    TIMING,
    TRIAL,
    Body,
    Negotiated,
)
from service.routes.openapi.refusals import PREDICTION_REFUSALS, refusals
from service.routes.request import (
    AnyRequest,
    context_of,
    drift_of,
    parse_body,
    query_value,
    request_timeout,
    respond,
    services_of,
    table_of,
)
from service.routes.schemas import BatchResponse, ModelIdentity, PredictionResponse
from service.routes.table import PREDICTION_ID, Table
from service.uuid7 import uuid7

TRIAL_QUERY = "trial"
TRIAL_PARAMETER = {
    "name": TRIAL_QUERY, "in": "query", "required": False, "schema": {"type": "boolean", "default": False},
    "description": "Answer without counting it as traffic: not in metrics, drift tests or log.",
}  # fmt: skip
TRIAL_REFUSALS = refusals(
    ("a query parameter or its value that there is not", InvalidQuery('trial is "x"; it must be false or true')),
    beside=PREDICTION_REFUSALS,
)


def row_body(table: Table) -> Body:
    """One row."""
    return Body(table.row, table.example, table.refused)


def batch_body(table: Table) -> Body:
    """Several rows."""
    return Body(
        table.batch, {"rows": [table.example, table.short_example]}, {"rows": [table.example, table.refused]}
    )  # fmt: skip


def answers(table: Table) -> list[Example]:
    """What a row may be answered."""
    probabilities, positive = table.example_probabilities, table.schema.positive
    two = len(probabilities) == 2
    own = _said_of_two(probabilities[positive]) if two else _said_of_more(probabilities)
    confidence = {
        "prediction_set": [positive], "coverage": 0.9, "margin": 0.7463, "entropy_bits": 0.549, "typicality": 0.0393,
        "abstain": False, "warnings": [],
    } | own  # fmt: skip
    prediction = {
        "id": PREDICTION_ID, "model": {"name": table.schema.name, "version": "3f9c0d1e2a4b"}, "outcome": positive,
        **_decided(table),
        **({"probability": probabilities[positive]} if two else {}), "probabilities": probabilities,
        "confidence": {name: confidence[name] for name in Confidence.__struct_fields__ if name in confidence},
    }  # fmt: skip
    return [Example(id="prediction", summary=f"a {table.schema.row}", value=prediction)]


def _decided(table: Table) -> dict[str, str]:
    """The decision of an example, where there are costs."""
    costs, probabilities = table.schema.decision_costs, list(table.example_probabilities.values())
    return {} if costs is None else {"decision": table.schema.classes[costs.decide(probabilities)]}


def _said_of_two(p: float) -> dict[str, Any]:
    """What an example's confidence says of the positive class."""
    return {
        "interval": [0.7573, 0.9493], "venn_abers": [0.8273, 0.9293], "uncalibrated_probability": 0.652,
        "calibration": [{"step": "model", "probability": 0.652}, {"step": "temperature", "probability": p}],
    }  # fmt: skip


def _said_of_more(p: dict[str, float]) -> dict[str, Any]:
    """What an example's confidence says of each class."""
    raw = {name: round(q / 2 + 0.5 / len(p), 4) for name, q in p.items()}
    greatest, second = sorted(p.values(), reverse=True)[:2]
    return {
        "intervals": {name: [round(0.85 * q, 4), round(1.1 * q, 4)] for name, q in p.items()},
        "venn_abers": {name: [round(0.95 * q, 4), round(1.05 * q, 4)] for name, q in p.items()},
        "uncalibrated_probabilities": raw,
        "calibration": [{"step": "model", "probabilities": raw}, {"step": "temperature", "probabilities": p}],
        "margin": round(greatest - second, 4), "entropy_bits": round(-sum(q * math.log2(q) for q in p.values()), 3),
    }  # fmt: skip


def links(table: Table) -> dict[str, object]:
    """What follows a prediction."""
    outcome = {"id": "$response.body#/id", "outcome": table.schema.positive}
    return {
        "outcome": {
            "operationId": "sendOutcomes", "description": "What became of the row, when it is known.",
            "requestBody": {"outcomes": [outcome]},
        }
    }  # fmt: skip


@post(
    "/v1/predict", status_code=200, operation_id="predict", summary="Predict one row", tags=["predictions"],
    opt={TAKES: row_body, ANSWERS: answers, PARAMETERS: [TRIAL_PARAMETER, TIMEOUT, TRIAL], LINKS: links},
    response_headers=[TIMING],
    responses={200: Negotiated(PredictionResponse, description="the prediction"), **TRIAL_REFUSALS},
)  # fmt: skip
async def predict(request: AnyRequest) -> Response[bytes]:
    """One row → one prediction: the calibrated probability of each class, and how far to trust it.

    What is unknown may be left out or null, but for what is required. The answer's ``id`` is that under which an
    outcome can be sent later.

    A ``trial`` is not counted as traffic: not by metrics, drift tests, or log.
    """
    trial = query_value(request, TRIAL_QUERY, ("false", "true")) == "true"
    row = await parse_body(request, table_of(request).row)
    answer, predictions = await predict_and_record(request, [row], trial)
    return respond(request, predictions[0], answer)


@post(
    "/v1/predict/batch", status_code=200, operation_id="predictBatch", summary="Predict up to 1024 rows",
    tags=["predictions"], opt={TAKES: batch_body, PARAMETERS: [TIMEOUT, TRIAL]}, response_headers=[TIMING],
    responses={
        200: Negotiated(BatchResponse, description="the predictions, in the rows' order"), **PREDICTION_REFUSALS,
    },
)  # fmt: skip
async def predict_batch(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 rows → as many predictions, in order.

    Each is what ``/v1/predict`` would answer. If one row is faulty, all faults are named and none is predicted.
    """
    batch: Any = await parse_body(request, table_of(request).batch)
    answer, predictions = await predict_and_record(request, batch.rows)
    return respond(request, BatchResponse(predictions), answer)


async def predict_and_record(
    request: AnyRequest, rows: Sequence[Row], trial: bool = False, body_read: bool = True
) -> tuple[Answer, list[PredictionResponse]]:
    """Rows → their predictions in order, counted, given to the drift tests and logged; raises as `run_inference`
    and `Access.trial`.

    A ``trial`` is answered alike and leaves no trace in counters of predictions, drift tests, log and shadow: whoever
    plays with a form sends what no traffic looks like.
    """
    trial = services_of(request).access.trial(request.scope) or trial
    answer = await run_inference(request, rows, body_read)
    ids = [uuid7() for _ in answer.predictions]
    if not trial:
        # When the answer is on its way, in the step that follows this one: before any other request is looked at.
        asyncio.get_running_loop().call_soon(_record, request, answer, rows, ids)
    model = ModelIdentity(answer.bundle.name, answer.bundle.version)
    classes = answer.bundle.schema.classes
    return answer, [
        PredictionResponse(
            id=id, model=model, outcome=prediction.outcome,
            decision=UNSET if prediction.decision is None else prediction.decision,
            probability=UNSET if prediction.probability is None else prediction.probability,
            probabilities=dict(zip(classes, prediction.probabilities, strict=True)), confidence=prediction.confidence,
        )
        for id, prediction in zip(ids, answer.predictions, strict=True)
    ]  # fmt: skip


def _record(request: AnyRequest, answer: Answer, rows: Sequence[Row], ids: Sequence[str]) -> None:
    services, version = services_of(request), answer.bundle.version
    services.metrics.predicted(version, answer.predictions)
    drift = drift_of(request)
    # An answer of the bundle before this one may come in just after the swap.
    if drift.version == version:
        drift.predicted(answer.predictions)
    if services.store is not None:
        if drift.version == version:
            drift.remember(ids, answer.predictions)
        with context_of(request).stage("store"):
            services.store.log(version, ids, rows, answer.predictions)
    if services.shadow is not None:
        services.shadow.offer(rows, answer.predictions)


async def run_inference(request: AnyRequest, rows: Sequence[Row], body_read: bool = True) -> Answer:
    """Rows → their predictions in order, of which only the time that they waited is counted; raises as the
    batcher.

    ``body_read`` is False where the body is read meanwhile: who reads it sees by itself that the client disconnects.
    """
    services = services_of(request)
    client = services.access.client(request.scope)
    scope: Any = request.scope
    with services.access.rows(request.scope, len(rows)):
        answer = await services.batcher.predict(
            rows, request_timeout(request), client, scope.get(ON_DISCONNECT) if body_read else None
        )
    context = context_of(request)
    services.metrics.waited(answer.queue_seconds, context.exemplar)
    if context.span is not None:
        context.span.record(answer.stages)
    return answer
