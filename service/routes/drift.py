"""/v1/drift: the report, its events, and the end of an alarm."""

from typing import Annotated, Any, Literal

from litestar import Response, get, post
from litestar.openapi.datastructures import ResponseSpec
from litestar.response import Stream
from msgspec import Meta, Struct

from service.drift import report as diagnosis
from service.drift.errors import TooManySubscribers
from service.drift.events import MAX_SUBSCRIBERS
from service.drift.monitor import STREAMS
from service.drift.report import DriftReport
from service.inference.batcher import Batcher
from service.inference.errors import NotReady
from service.routes.openapi.description import TAKES, Body, Negotiated
from service.routes.openapi.refusals import BODY_REFUSALS, READ_REFUSALS, refusals
from service.routes.request import AnyRequest, drift_of, parse_body, respond, services_of
from service.routes.schemas import Acknowledgement

ACKNOWLEDGEMENT = Body(Acknowledgement, {"stream": "input", "begin": "reference"}, {"stream": "inputs"})
EVENT_STREAM = "text/event-stream"
HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}


class DriftEvent(Struct, frozen=True):
    """A server-sent event; its data are a DriftReport."""

    event: Literal["drift"]
    id: str
    data: Annotated[
        str,
        Meta(
            extra_json_schema={
                "contentMediaType": "application/json", "contentSchema": {"$ref": "#/components/schemas/DriftReport"},
            }
        ),
    ]  # fmt: skip


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
    body = await parse_body(request, Acknowledgement)
    tests = drift_of(request)
    for stream in STREAMS if body.stream == "all" else (body.stream,):
        tests.acknowledge(stream, body.begin)
    return respond(request, diagnosis.report(tests))


@get(
    "/v1/drift/events", operation_id="followDrift", summary="Follow what has changed", tags=["drift"],
    responses={
        200: ResponseSpec(DriftEvent, media_type=EVENT_STREAM, description="without end; the schema is of each event"),
        **refusals(
            ("not loaded yet, or stopping", NotReady("the model is being loaded")),
            (f"{MAX_SUBSCRIBERS} clients follow already", TooManySubscribers()),
        ),
    },
)  # fmt: skip
async def drift_events(request: AnyRequest) -> Response[Any]:
    """Server-sent events named ``drift``: the report now, and again, at most once a second, when it has changed."""
    services = services_of(request)
    drift_of(request)
    if _stopping(services.batcher):
        raise NotReady(services.batcher.failure or "stopping")
    if request.scope["state"]["context"].method == "HEAD":
        # Routed as GET; a stream without a body would be open for ever, and say nothing. It has no length, as that one.
        return Stream(iter(()), media_type=EVENT_STREAM, headers=HEADERS)
    events = services.drift_events.stream(
        services.drift_events.subscribe(), lambda: drift_of(request), lambda: _stopping(services.batcher)
    )
    return Stream(events, media_type=EVENT_STREAM, headers=HEADERS)


def _stopping(batcher: Batcher) -> bool:
    """Whether the process is about to end: uvicorn waits for open streams before it ends the application."""
    return batcher.draining or not batcher.ready
