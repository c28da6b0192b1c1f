"""/health and /metrics: for balancers, orchestrators and Prometheus."""

from litestar import Response, get
from litestar.openapi.datastructures import ResponseSpec
from prometheus_client.exposition import choose_encoder

from service.http.negotiation import OPENMETRICS, TEXT, exposition
from service.routes.openapi.description import Negotiated
from service.routes.request import AnyRequest, headers_of, services_of
from service.routes.schemas import Health


@get(
    "/health/live", operation_id="getLiveness", summary="Does the process answer?", tags=["operations"],
    responses={
        200: ResponseSpec(Health, description="it does"),
        503: ResponseSpec(Health, description="inference is lost, as the detail says: restart it"),
    },
)  # fmt: skip
async def live(request: AnyRequest) -> Response[Health]:
    """The process runs and answers; 503 when inference is lost for good, so that only a restart helps."""
    batcher = services_of(request).batcher
    if batcher.lost:
        return Response(Health("lost", batcher.failure or ""), status_code=503)
    return Response(Health("live"))


@get(
    "/health/ready", operation_id="getReadiness", summary="Is the model loaded?", tags=["operations"],
    responses={
        200: ResponseSpec(Health, description="send requests"),
        503: ResponseSpec(Health, description="send none: loading, failed or stopping, as the detail says"),
    },
)  # fmt: skip
async def ready(request: AnyRequest) -> Response[Health]:
    """The model is loaded and warm, and the process is not stopping; the detail says if outcomes cannot be kept."""
    services = services_of(request)
    batcher, store = services.batcher, services.store
    if batcher.ready and not batcher.draining:
        unusable = store is not None and store.failure
        return Response(Health("ready", f"outcomes are refused, the store is unusable: {unusable}" if unusable else ""))
    detail = batcher.failure or ("draining" if batcher.draining else "loading")
    return Response(Health("not ready", detail), status_code=503)


@get(
    "/metrics", operation_id="getMetrics", summary="Prometheus' series", tags=["operations"],
    responses={200: Negotiated(str, description="the series", media_type=TEXT, other=OPENMETRICS)},
)  # fmt: skip
async def metrics(request: AnyRequest) -> Response[bytes]:
    """All series in the format that is asked for: Prometheus' text (0.0.4 or 1.0.0) or OpenMetrics 1.0."""
    encode, content_type = choose_encoder(exposition(headers_of(request).get("accept", "")))
    content = encode(services_of(request).metrics.registry)
    return Response(content, headers={"Content-Type": content_type, "Vary": "Accept"})
