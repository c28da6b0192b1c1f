"""create_app: finished services → the ASGI application, Litestar with its routes within the request middleware."""

from typing import Any

from litestar import Litestar
from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.routes import HTTPRoute

from service.direct import DirectRoutes
from service.http.errors import REFUSED, http_problem, service_problem, unexpected_problem
from service.http.load_shedding import LoadShedder
from service.http.logs import RequestLog
from service.http.middleware import RequestMiddleware
from service.http.response import ResponseHeaders, origins
from service.http.tracing import Tracing
from service.routes import admin, drift, explain, health, model, outcomes, predict, stream
from service.routes.oip import routes as oip
from service.routes.openapi.pages import schema_router
from service.routes.page import page_router
from service.services import Services

EXCEPTION_HANDLERS: dict[Any, Any] = {
    **dict.fromkeys(REFUSED, oip.in_protocols_form(service_problem)),
    HTTPException: oip.in_protocols_form(http_problem),
    Exception: oip.in_protocols_form(unexpected_problem),
}


class Application(RequestMiddleware):
    """The request middleware around ``litestar``, and the ``services`` that the handlers use."""

    def __init__(self, services: Services, litestar: Litestar, tracing: Tracing | None):
        settings = services.settings
        super().__init__(
            DirectRoutes(litestar, [predict.predict, predict.predict_batch], services.access, EXCEPTION_HANDLERS),
            LoadShedder(services.batcher, services.access, settings.timeout_seconds),
            ResponseHeaders(origins(settings.cors_origins), settings.tls_certificate is not None),
            services.metrics.responded,
            RequestLog(settings.log_requests),
            tracing,
        )
        self.services, self.litestar = services, litestar


def create_app(services: Services, tracing: Tracing | None = None) -> Application:
    """The application. Its services start with it, not before, and end with it; so does what ``tracing`` sends."""
    litestar = Litestar(
        middleware=[services.access],
        route_handlers=[
            predict.predict, predict.predict_batch, stream.predict_stream, explain.explain, outcomes.send_outcomes,
            model.model, drift.drift, drift.acknowledge, drift.drift_events, admin.reload, admin.undo_online,
            health.live, health.ready, health.metrics, page_router(),
            oip.server, oip.live, oip.ready, oip.model, oip.model_ready, oip.infer,
        ],
        state=State({"services": services}),
        on_startup=[services.start],
        on_shutdown=[services.stop, *([] if tracing is None else [tracing.stop])],
        exception_handlers=EXCEPTION_HANDLERS,
        request_max_body_size=None,  # service/http/request_body.py sees to it.
        openapi_config=None,  # service/routes/openapi/document.py makes it.
        logging_config=None,
        debug=False,
    )  # fmt: skip
    litestar.register(schema_router(litestar.routes))
    for route in litestar.routes:
        if isinstance(route, HTTPRoute) and route.path.startswith(("/v1/", "/v2/")):
            for method in route.methods - {"OPTIONS"}:
                services.metrics.route_known(route.path_format, method)
    return Application(services, litestar, tracing)
