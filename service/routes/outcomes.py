"""POST /v1/outcomes: what became of passengers that were predicted."""

from litestar import Response, post

from service.inference.errors import DeadlinePassed, NotReady, QueueFull
from service.routes.openapi.description import TAKES, Body, Negotiated
from service.routes.openapi.refusals import BODY_REFUSALS, refusals
from service.routes.predict import PREDICTION_ID
from service.routes.request import AnyRequest, parse_body, respond, services_of
from service.routes.schemas import OutcomesRequest, OutcomesResponse
from service.store.errors import OutcomesNotKept, StoreUnavailable

OUTCOMES_BODY = Body(
    OutcomesRequest,
    {"outcomes": [{"id": PREDICTION_ID, "survived": True}]},
    {"outcomes": [{"id": PREDICTION_ID, "survived": "yes"}]},
)

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
    opt={TAKES: OUTCOMES_BODY},
    responses={200: Negotiated(OutcomesResponse, description="what became of each outcome"), **OUTCOME_REFUSALS},
)  # fmt: skip
async def send_outcomes(request: AnyRequest) -> Response[bytes]:
    """1 to 1024 outcomes, acknowledged when durable and counted once however often they are sent.

    Each names the ``id`` of a prediction's answer. From outcomes come the live calibration and its drift test.
    """
    services = services_of(request)
    if services.store is None:
        raise OutcomesNotKept
    body = await parse_body(request, OutcomesRequest)
    outcomes = [(outcome.id.lower(), outcome.survived) for outcome in body.outcomes]
    statuses = await services.store.label(outcomes, services.settings.timeout_seconds)
    services.metrics.outcomes_received(statuses)

    def ids(wanted: str) -> list[str]:
        return [outcome.id for outcome, status in zip(body.outcomes, statuses, strict=True) if status == wanted]

    response = OutcomesResponse(
        counted=statuses.count("counted"), repeated=statuses.count("repeated"), unknown=ids("unknown"),
        conflicting=ids("conflicting"),
    )  # fmt: skip
    return respond(request, response)
