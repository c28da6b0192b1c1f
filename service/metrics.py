"""Every Prometheus series, declared in one place, on an injected registry.

No label carries what a client sent. All label values exist at 0 once the bundle is known, so that rates exist.
"""

from collections import Counter as Tally
from collections.abc import Sequence

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector

from models.backend import Backend
from models.bundle import Bundle
from models.passenger import COLUMNS, INPUT_BINS, LABELS, Passenger
from models.predictor import Prediction
from models.reference import PROBABILITY_BINS, bin_names, input_bin, probability_bins

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
REASONS = ("malformed", "media_type", "invalid", "too_large", "queue_full", "unavailable", "deadline", "other")
REASON_OF_STATUS = {
    400: "malformed",
    413: "too_large",
    415: "media_type",
    422: "invalid",
    429: "queue_full",
    503: "unavailable",
    504: "deadline",
}


class Metrics:
    """The service's series. Methods are called from the event loop and from the inference thread."""

    def __init__(self, registry: CollectorRegistry):
        self.registry = registry
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"evenkeel_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"evenkeel_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
            return Histogram(f"evenkeel_{name}", text, labels, buckets=buckets, registry=registry)

        self._predictions = counter(
            "predictions_total", "Predictions answered, by predicted outcome", "version", "outcome"
        )
        self._by_probability = counter(
            "predictions_by_probability_total", "Predictions by tenth of probability", "version", "bin"
        )
        self._expected_survivors = counter(
            "expected_survivors_total", "Sum of the probabilities of survival", "version"
        )
        self._expected_correct = counter("expected_correct_total", "Sum of max(p, 1 - p)", "version")
        self._sets = counter(
            "prediction_sets_total", "Conformal prediction sets by number of classes", "version", "size"
        )
        self._abstentions = counter("abstentions_total", "Predictions whose set is not a single class", "version")
        self._warnings = counter("input_warnings_total", "Values outside the training rows", "version", "field")
        self._inputs = counter("inputs_total", "Passengers by bin of each field", "version", "field", "bin")
        self._reference_probability = gauge(
            "reference_probability_proportion", "Share of held-out training predictions per bin", "version", "bin"
        )
        self._reference_rows = gauge("reference_rows", "Rows behind the reference proportions", "version")
        self._reference_input = gauge(
            "reference_input_proportion", "Share of training rows per bin of each field", "version", "field", "bin"
        )
        self._model_info = Info("evenkeel_model", "The bundle served and what computes it", registry=registry)
        self._http_requests = counter(
            "http_requests_total", "Requests by route, method and status", "route", "method", "status"
        )
        self._http_seconds = histogram(
            "http_request_seconds", "Time to the response's start", SECONDS, "route", "method"
        )
        self._batch_rows = histogram("batch_rows", "Rows of one inference", ROWS)
        self._queue_rows = gauge("queue_rows", "Rows waiting")
        self._queue_seconds = histogram("queue_seconds", "Wait of a request before its first inference", SECONDS)
        self._inference_seconds = histogram("inference_seconds", "Duration of one inference", SECONDS)
        self._rejected = counter("rejected_total", "Requests refused, by reason", "reason")
        self._cache_lookups = counter(
            "cache_lookups_total", "Distinct texts of a batch that were looked up in the cache", "result"
        )
        for result in ("hit", "miss"):
            self._cache_lookups.labels(result)
        for reason in REASONS:
            self._rejected.labels(reason)

    def model_loaded(self, bundle: Bundle, backend: Backend) -> None:
        """Create every series of this bundle at 0 and publish its reference."""
        version, reference = bundle.version, bundle.reference
        self._model_info.info(
            {"name": bundle.name, "version": version, "loss": bundle.manifest.origin.loss.name,
             "device": backend.device, "blas": backend.blas, "threads": str(backend.threads),
             "compiler": backend.compiler}
        )  # fmt: skip
        for outcome in LABELS:
            self._predictions.labels(version, outcome)
        for name, count in zip(PROBABILITY_BINS, reference.probability_counts, strict=True):
            self._by_probability.labels(version, name)
            self._reference_probability.labels(version, name).set(count / reference.rows)
        for size in range(len(LABELS) + 1):
            self._sets.labels(version, str(size))
        for one in (self._expected_survivors, self._expected_correct, self._abstentions):
            one.labels(version)
        self._reference_rows.labels(version).set(reference.rows)
        for field in COLUMNS:
            self._warnings.labels(version, field)
        for bins in INPUT_BINS:
            for name in bin_names(bins):
                self._inputs.labels(version, bins.field, name)
        for field_reference in reference.inputs:
            for name, count in field_reference.counts.items():
                self._reference_input.labels(version, field_reference.bins.field, name).set(count / reference.rows)

    def predicted(self, version: str, passengers: Sequence[Passenger], predictions: Sequence[Prediction]) -> None:
        """Count answered predictions."""
        probabilities = np.array([prediction.probability for prediction in predictions])
        for survived, count in Tally(prediction.survived for prediction in predictions).items():
            self._predictions.labels(version, LABELS[survived]).inc(count)
        for name, count in zip(
            PROBABILITY_BINS, np.bincount(probability_bins(probabilities), minlength=10), strict=True
        ):
            self._by_probability.labels(version, name).inc(int(count))
        self._expected_survivors.labels(version).inc(float(probabilities.sum()))
        self._expected_correct.labels(version).inc(float(np.maximum(probabilities, 1 - probabilities).sum()))
        for size, count in Tally(len(prediction.confidence.prediction_set) for prediction in predictions).items():
            self._sets.labels(version, str(size)).inc(count)
        self._abstentions.labels(version).inc(sum(prediction.confidence.abstain for prediction in predictions))
        warned = Tally(warning.field for prediction in predictions for warning in prediction.confidence.warnings)
        for field, count in warned.items():
            self._warnings.labels(version, field).inc(count)
        for bins in INPUT_BINS:
            for name, count in Tally(input_bin(bins, passenger) for passenger in passengers).items():
                self._inputs.labels(version, bins.field, name).inc(count)

    def queued(self, rows: int) -> None:
        self._queue_rows.set(rows)

    def computed(self, rows: int, seconds: float) -> None:
        self._batch_rows.observe(rows)
        self._inference_seconds.observe(seconds)

    def looked_up(self, hits: int, misses: int) -> None:
        self._cache_lookups.labels("hit").inc(hits)
        self._cache_lookups.labels("miss").inc(misses)

    def waited(self, seconds: float) -> None:
        self._queue_seconds.observe(seconds)

    def responded(self, route: str, method: str, status: int, seconds: float | None) -> None:
        """Count a response; ``route`` is a template or "unmatched", never a client's path."""
        self._http_requests.labels(route, method, str(status)).inc()
        if seconds is not None:
            self._http_seconds.labels(route, method).observe(seconds)
        if status >= 400 and route.startswith("/v1/predict"):
            self._rejected.labels(REASON_OF_STATUS.get(status, "other")).inc()
