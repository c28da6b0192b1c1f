"""create_app: the wiring of settings, metrics, batcher and routes."""

from collections.abc import Callable, Sequence

from litestar.datastructures import State
from litestar.exceptions import HTTPException
from litestar.routes import HTTPRoute
from prometheus_client import CollectorRegistry

from service.drift.keeper import DriftKeeper
from service.http.access import make_access
from service.http.errors import ServiceError, http_problem, service_problem, unexpected_problem
from service.http.load_shedding import Door
from service.http.logs import RequestLog
from service.http.middleware import Exchange, Surface
from service.http.response_headers import ResponseHeaders, origins
from service.inference.batcher import Batcher, PredictorLike
from service.inference.reloading import Reloader
from service.inference.shadow import Shadow
from service.metrics import Metrics
from service.routes import api, explain, stream
from service.routes.drift_events import DriftEvents, drift_events
from service.routes.oip import routes as oip
from service.routes.openapi import pages as schema_pages
from service.routes.page import page_router
from service.settings import Settings
from service.store.prediction_log import CountedOutcome
from service.store.store import OnOutcomes, Store


def create_app(
    settings: Settings, load: Callable[[Metrics], PredictorLike], registry: CollectorRegistry | None = None,
    on_ready: Callable[[PredictorLike], None] = lambda _: None, on_failure: Callable[[str], None] = lambda _: None,
    make_store: Callable[[Metrics, OnOutcomes], Store | None] = lambda _, __: None,
    load_shadow: Callable[[], PredictorLike] | None = None,
) -> Surface:  # fmt: skip
    """The application. ``load`` is called on the inference thread when the application starts, not before, with the
    metrics that the predictor may report to. ``make_store`` is told whom to tell of outcomes; without one, none is
    kept. ``load_shadow`` loads a second predictor, which answers nobody. Raises KeysError where the settings name a
    file of keys that cannot be used."""
    metrics = Metrics(registry or CollectorRegistry())
    access = make_access(settings, metrics.keys_current)
    drift = DriftKeeper(settings)

    def loaded(predictor: PredictorLike) -> None:
        metrics.model_loaded(predictor.bundle, predictor.backend)
        if drift.drift is None:
            metrics.drift_begun(drift.begin(predictor.bundle))
            on_ready(predictor)

    batcher = Batcher(
        lambda: load(metrics), metrics, stall_seconds=settings.stall_seconds,
        max_batch_rows=settings.max_batch_rows, max_queue_rows=settings.max_queue_rows,
        on_loaded=loaded, on_failure=on_failure,
    )  # fmt: skip

    def counted(fresh: Sequence[CountedOutcome]) -> None:
        metrics.outcomes_counted(fresh)
        if drift.drift is not None:
            # The test is of the model served; those of an older one may still come in for a while.
            drift.drift.outcomes(
                [(one.probability, one.survived) for one in fresh if one.version == drift.drift.version]
            )

    store = make_store(metrics, counted)
    shadow = Shadow(load_shadow, metrics) if load_shadow else None
    reloader = Reloader(batcher, drift, metrics, lambda: load(metrics))

    request_log = RequestLog(settings.log_requests)

    def observe(exchange: Exchange) -> None:
        metrics.responded(exchange.route, exchange.method, exchange.status, exchange.seconds, exchange.reason)
        request_log(exchange)

    app = Surface(
        observe=observe,
        door=Door(batcher, access, settings.timeout_seconds),
        response_headers=ResponseHeaders(origins(settings.cors_origins), settings.tls_certificate is not None),
        middleware=[access],
        route_handlers=[
            api.predict, api.predict_batch, stream.predict_stream, api.take_outcomes, api.model, api.drift,
            api.acknowledge, api.reload, api.live, api.ready, api.metrics, drift_events, explain.explain, page_router(),
            oip.server, oip.live, oip.ready, oip.model, oip.model_ready, oip.infer,
            schema_pages.page, schema_pages.file,
        ],
        state=State(
            {"settings": settings, "metrics": metrics, "batcher": batcher, "drift": drift, "store": store,
             "reloader": reloader, "shadow": shadow, "drift_events": DriftEvents(), "access": access,
             "turns": stream.Turns(2 * settings.max_batch_rows)}
        ),
        on_startup=[batcher.start, drift.start, reloader.start, *([store.start] if store else []),
            *([shadow.start] if shadow else []),
        ],
        on_shutdown=[
            lambda: batcher.stop(settings.timeout_seconds),
            *([lambda: store.stop(settings.timeout_seconds)] if store else []),
            *([lambda: shadow.stop(settings.timeout_seconds)] if shadow else []),
            drift.stop,
        ],
        exception_handlers={
            ServiceError: oip.in_protocols_form(service_problem),
            HTTPException: oip.in_protocols_form(http_problem),
            Exception: oip.in_protocols_form(unexpected_problem),
        },
        request_max_body_size=None,  # service/http/request_body.py sees to it.
        openapi_config=None,  # service/routes/openapi/document.py makes it.
        logging_config=None,
        debug=False,
    )  # fmt: skip
    app.state.documents = schema_pages.documents(app.routes)
    for route in app.routes:
        if isinstance(route, HTTPRoute) and route.path.startswith(("/v1/", "/v2/")):
            for method in route.methods - {"OPTIONS"}:
                metrics.route_known(route.path_format, method)
    return app
