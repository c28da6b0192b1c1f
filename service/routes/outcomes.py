"""POST /v1/outcomes: what became of rows that were predicted."""

from typing import Any

from litestar import Response, post

from service.inference.errors import DeadlinePassed, NotReady, QueueFull
from service.routes.openapi.description import TAKES, Body, Negotiated
from service.routes.openapi.refusals import BODY_REFUSALS, refusals
from service.routes.request import AnyRequest, context_of, parse_body, respond, services_of, table_of
from service.routes.schemas import OutcomesResponse
from service.routes.table import PREDICTION_ID, Table
from service.store.errors import OutcomesNotKept, StoreUnavailable


def outcomes_body(table: Table) -> Body:
    """Outcomes, and some with a class that there is not."""
    sent = {"outcomes": [{"id": PREDICTION_ID, "outcome": table.schema.positive}]}
    return Body(table.outcomes, sent, {"outcomes": [{"id": PREDICTION_ID, "outcome": ""}]})


OUTCOME_REFUSALS = refusals(
    ("the service has no store", OutcomesNotKept()),
    ("more outcomes wait than can be written in time", QueueFull(1)),
    ("the store is unusable now", StoreUnavailable()),
    ("the service is stopping", NotReady("stopping")),
    ("not durable within timeout_seconds", DeadlinePassed("not durable within 30 seconds")),
    beside=BODY_REFUSALS,
)


@post(
    "/v1/outcomes", status_code=200, operation_id="sendOutcomes", summary="Send up to 1024 outcomes", tags=["outcomes"],
    opt={TAKES: outcomes_body},
    responses={200: Negotiated(OutcomesResponse, description="what became of each outcome"), **OUTCOME_REFUSALS},
)  # fmt: skip
async def send_outcomes(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 outcomes, acknowledged when durable and counted once however often they are sent.

    Each names the ``id`` of a prediction's answer and the class that came true. From outcomes come the live calibration
    and its drift test.
    """
    services = services_of(request)
    if services.store is None:
        raise OutcomesNotKept
    body: Any = await parse_body(request, table_of(request).outcomes)
    outcomes = [(outcome.id.lower(), outcome.outcome) for outcome in body.outcomes]
    with context_of(request).stage("store"):
        statuses = await services.store.label(outcomes, services.settings.timeout_seconds)
    services.metrics.outcomes_received(statuses)

    def ids(wanted: str) -> list[str]:
        return [outcome.id for outcome, status in zip(body.outcomes, statuses, strict=True) if status == wanted]

    response = OutcomesResponse(
        counted=statuses.count("counted"), repeated=statuses.count("repeated"), unknown=ids("unknown"),
        conflicting=ids("conflicting"),
    )  # fmt: skip
    return respond(request, response)
