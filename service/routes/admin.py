"""/admin: what only an operator may do."""

from litestar import Response, post
from msgspec import Struct

from service.drift.errors import NotRecalibrating
from service.http.negotiation import media_type
from service.inference.errors import BundleRefused, ReloadRunning
from service.inference.reloading import Reloaded
from service.routes.openapi.description import Negotiated
from service.routes.openapi.refusals import READ_REFUSALS, refusals
from service.routes.request import AnyRequest, drift_of, headers_of, respond, services_of

RELOAD_REFUSALS = refusals(
    ("a bundle is being loaded already", ReloadRunning()),
    ("the bundle is not taken, the old one goes on", BundleRefused("model.safetensors was changed")),
    beside=READ_REFUSALS,
)


@post(
    "/admin/reload", status_code=200, operation_id="reload", summary="Swap to the bundle that the folder holds now",
    tags=["operations"], responses={200: Negotiated(Reloaded, description="the versions"), **RELOAD_REFUSALS},
)  # fmt: skip
async def reload(request: AnyRequest) -> Response[bytes]:
    """Load the bundle's folder anew and swap to it; the old bundle serves until then, and goes on if this fails."""
    media_type(headers_of(request).get("accept", ""))  # Refused before anything is loaded.
    return respond(request, await services_of(request).reloader.reload())


class Undone(Struct, frozen=True, kw_only=True):
    """The online step that was served of this version until now, and the outcomes that it was learnt from."""

    version: str
    offset: float
    slope: float
    outcomes: int


UNDO_REFUSALS = refusals(("the service does not recalibrate", NotRecalibrating()), beside=READ_REFUSALS)


@post(
    "/admin/online/undo", status_code=200, operation_id="undoOnline",
    summary="Serve the bundle's own probabilities again", tags=["operations"],
    responses={200: Negotiated(Undone, description="what was undone"), **UNDO_REFUSALS},
)  # fmt: skip
async def undo_online(request: AnyRequest) -> Response[bytes]:
    """Forget the offset and slope that outcomes taught, at once and durably; outcomes from now on teach anew."""
    media_type(headers_of(request).get("accept", ""))  # Refused before anything is undone.
    version = drift_of(request).version
    step = await services_of(request).drift.undo_online()
    return respond(
        request, Undone(version=version, offset=step.offset, slope=step.slope, outcomes=step.outcomes)
    )  # fmt: skip
