"""The service's Prometheus series, on an injected registry: predictions (`PredictionMetrics`) and operation.

No label carries what a client sent. All label values exist at 0, so that rates exist.
"""

import math
from collections import Counter as Tally
from collections.abc import Sequence
from functools import lru_cache
from typing import get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, PlatformCollector, ProcessCollector

from service.http.middleware import RequestContext
from service.prediction_metrics import PredictionMetrics, Series
from service.store.prediction_log import OutcomeStatus

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
REASONS = (
    "malformed", "media_type", "invalid", "too_large", "too_slow", "queue_full", "unavailable", "deadline",
    "client_left", "unauthenticated", "forbidden", "rate", "host", "other",
)  # fmt: skip
FAILURES = ("not_finite", "error", "lost")
DROP_REASONS = ("queue_full", "refused", "stopped")
REASON_OF_STATUS = {
    400: "malformed",
    401: "unauthenticated",
    403: "forbidden",
    408: "too_slow",
    413: "too_large",
    415: "media_type",
    422: "invalid",
    429: "queue_full",
    499: "client_left",
    503: "unavailable",
    504: "deadline",
}


class Metrics(PredictionMetrics):
    """All series. Methods are called from the event loop and from inference threads."""

    def __init__(self, registry: CollectorRegistry):
        super().__init__(registry)
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        series = Series(registry)
        self._http_requests = series.counter(
            "http_requests_total", "Requests by route, method and status", "route", "method", "status"
        )
        self._http_seconds = series.histogram(
            "http_request_seconds", "Time to the response's start", SECONDS, "route", "method"
        )
        self._of_response = lru_cache(1024)(self._series)
        self._batch_rows = series.histogram("batch_rows", "Rows of one inference", ROWS)
        self._queue_rows = series.gauge("queue_rows", "Rows waiting")
        self._queue_seconds = series.histogram("queue_seconds", "Wait of a request before its first inference", SECONDS)
        self._inference_seconds = series.histogram("inference_seconds", "Duration of one inference", SECONDS)
        self._rejected = series.counter("rejected_total", "Requests refused, by reason", "reason")
        self._stream_lines = series.counter(
            "stream_lines_total", "Lines of streams, by what they were answered with", "result"
        )
        self._cache_lookups = series.counter(
            "cache_lookups_total", "Distinct texts of a batch that were looked up in the cache", "result"
        )
        self._outcome_statuses = series.counter(
            "outcomes_received_total", "Outcomes sent, by what became of them", "result"
        )
        self._store_up = series.gauge("store_up", "1 while the store takes rows")
        # Neither 0 nor 1 while it is not known, and where there is no store: no alert on 0 must fire.
        self._store_up.set(math.nan)
        self._keys_current = series.gauge(
            "keys_current", "0 while the file of API keys is unusable and older keys are in force"
        )
        self._keys_current.set(1)
        self._store_rows = series.gauge("store_rows", "Predictions in the store, about")
        self._store_queue_rows = series.gauge("store_queue_rows", "Predictions waiting to be written to the store")
        self._store_written = series.counter("store_written_total", "Predictions written to the store")
        self._store_seconds = series.histogram("store_write_seconds", "Duration of one write of predictions", SECONDS)
        self._store_dropped = series.counter(
            "store_dropped_total", "Predictions that were not logged, by reason", "reason"
        )
        self._failures = series.counter(
            "prediction_failures_total", "Requests that the model gave no answer, by reason", "reason"
        )
        self._threads_lost = series.counter("inference_threads_lost_total", "Inference threads that died or hung")
        self._reloads = series.counter("reloads_total", "Bundles loaded anew, by what became of it", "result")
        for counter, values in (
            (self._failures, FAILURES), (self._reloads, ("done", "refused")), (self._rejected, REASONS),
            (self._outcome_statuses, get_args(OutcomeStatus)), (self._store_dropped, DROP_REASONS),
            (self._cache_lookups, ("hit", "miss")), (self._stream_lines, ("prediction", "problem")),
        ):  # fmt: skip
            for value in values:
                counter.labels(value)

    def outcomes_received(self, statuses: Sequence[OutcomeStatus]) -> None:
        for status, count in Tally(statuses).items():
            self._outcome_statuses.labels(status).inc(count)

    def store_up(self, up: bool) -> None:
        self._store_up.set(up)

    def store_rows(self, rows: int, queued: int) -> None:
        self._store_rows.set(rows)
        self._store_queue_rows.set(queued)

    def store_wrote(self, rows: int, seconds: float) -> None:
        self._store_written.inc(rows)
        self._store_seconds.observe(seconds)

    def store_dropped(self, reason: str, rows: int) -> None:
        self._store_dropped.labels(reason).inc(rows)

    def keys_current(self, current: bool) -> None:
        self._keys_current.set(current)

    def queued(self, rows: int) -> None:
        self._queue_rows.set(rows)

    def computed(self, rows: int, seconds: float) -> None:
        self._batch_rows.observe(rows)
        self._inference_seconds.observe(seconds)

    def looked_up(self, hits: int, misses: int) -> None:
        self._cache_lookups.labels("hit").inc(hits)
        self._cache_lookups.labels("miss").inc(misses)

    def streamed(self, predictions: int, problems: int) -> None:
        self._stream_lines.labels("prediction").inc(predictions)
        self._stream_lines.labels("problem").inc(problems)

    def waited(self, seconds: float, trace_id: str | None) -> None:
        self._queue_seconds.observe(seconds, _exemplar(trace_id))

    def failed(self, reason: str) -> None:
        """Count a request without an answer: ``not_finite`` numbers, an ``error``, or a ``lost`` inference thread."""
        self._failures.labels(reason).inc()

    def thread_lost(self) -> None:
        """Count an inference thread that died or hung."""
        self._threads_lost.inc()

    def reloaded(self, result: str) -> None:
        """Count a reload: ``done`` or ``refused``."""
        self._reloads.labels(result).inc()

    def route_known(self, route: str, method: str) -> None:
        """Create a route's series at 0: an error rate must see the first errors, and these may be the only ones."""
        refusals = tuple(REASON_OF_STATUS) if method == "POST" else (503,)
        for status in (200, 500, *refusals):
            self._http_requests.labels(route, method, str(status))
        self._http_seconds.labels(route, method)

    def responded(self, context: RequestContext) -> None:
        """Count a response; its route is a template or "unmatched", never a client's path."""
        requests, took, rejected = self._of_response(context.route, context.method, context.status, context.reason)
        requests.inc()
        if context.seconds is not None:
            took.observe(context.seconds, _exemplar(context.exemplar))
        if rejected is not None:
            rejected.inc()

    def _series(
        self, route: str, method: str, status: int, reason: str | None
    ) -> tuple[Counter, Histogram, Counter | None]:
        """Of a response, looked up once: requests, seconds, and refusals where it is one."""
        answers = route.startswith("/v1/predict") or route.endswith("/infer")
        refused = status >= 400 and (reason is not None or answers)
        return (
            self._http_requests.labels(route, method, str(status)), self._http_seconds.labels(route, method),
            self._rejected.labels(reason or REASON_OF_STATUS.get(status, "other")) if refused else None,
        )  # fmt: skip


def _exemplar(trace_id: str | None) -> dict[str, str] | None:
    """What leads from a latency to a request that took so long: 40 of the 128 characters that an exemplar may have,
    as an id is 32 digits whoever made it."""
    return None if trace_id is None else {"trace_id": trace_id}
