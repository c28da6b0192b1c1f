"""GET /v1/model: what is served."""

import hashlib

import msgspec
from litestar import Response, get
from litestar.datastructures import ResponseHeader
from litestar.openapi.datastructures import ResponseSpec

from service.http.negotiation import media_type
from service.routes.openapi.description import PARAMETERS, Negotiated
from service.routes.openapi.refusals import READ_REFUSALS
from service.routes.request import AnyRequest, headers_of, not_ready, respond, services_of
from service.routes.schemas import ModelDescription

IF_NONE_MATCH = {
    "name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"},
    "description": "The ETag of an earlier answer.",
}  # fmt: skip
ETAG = ResponseHeader(name="ETag", description="Changes when the answer does.", documentation_only=True)


@get(
    "/v1/model", operation_id="getModel", summary="What is served", tags=["model"],
    opt={PARAMETERS: [IF_NONE_MATCH]}, response_headers=[ETAG],
    responses={
        200: Negotiated(ModelDescription, description="the model"),
        304: ResponseSpec(None, description="it is still the one that If-None-Match names"), **READ_REFUSALS,
    },
)  # fmt: skip
async def model(request: AnyRequest) -> Response[bytes]:
    """How the bundle came to be (manifest), how good it is (evaluation), what a row is (schema), what computes it."""
    batcher = services_of(request).batcher
    if batcher.predictor is None:
        raise not_ready(batcher)
    bundle = batcher.predictor.bundle
    description = ModelDescription(
        name=bundle.name, version=bundle.version, backend=msgspec.to_builtins(batcher.predictor.backend),
        manifest=bundle.manifest, evaluation=bundle.evaluation, schema=bundle.schema,
    )  # fmt: skip
    # Strong tags of two forms must differ (RFC 9110, section 8.8.3).
    form = media_type(headers_of(request).get("accept", ""))
    digest = hashlib.sha256(form.encode() + msgspec.json.encode(description)).hexdigest()[:32]
    headers = {"ETag": f'"{digest}"', "Cache-Control": "no-cache"}
    return respond(request, description, headers=headers)
