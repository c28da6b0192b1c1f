"""Every Prometheus series, declared in one place, on an injected registry.

No label carries what a client sent. All label values exist at 0 once the bundle is known, so that rates exist.
"""

import math
from collections import Counter as Tally
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from typing import get_args

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, PlatformCollector, ProcessCollector

from models.bundle.read import Bundle
from models.engines.backend import Backend
from models.passenger import COLUMNS, INPUT_BINS, LABELS
from models.prediction import Prediction
from models.reference import PROBABILITY_BINS, bin_names, probability_bin
from service.drift.monitor import STREAMS, DriftMonitor
from service.store.prediction_log import CountedOutcome, OutcomeStatus

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
SMALLEST_PROBABILITY = 1e-12
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


class VersionCounters(Struct):
    """The counters of one bundle, looked up once: a label costs more than a count."""

    outcomes: list[Counter]
    probabilities: list[Counter]
    expected_survivors: Counter
    expected_correct: Counter
    sets: list[Counter]
    abstentions: Counter
    warnings: dict[str, Counter]
    inputs: list[list[Counter]]


class OutcomeCounters(Struct):
    """The counters of one version's outcomes: by probability's bin, then died and survived."""

    outcomes: list[list[Counter]]
    probabilities: list[Counter]
    log_loss: Counter
    brier: Counter


def _count(counters: Sequence[Counter], numbers: Sequence[int]) -> None:
    # Most requests are of one passenger, and a tally of one is the dearest part of counting it.
    for number, count in Tally(numbers).items() if len(numbers) > 1 else ((numbers[0], 1),):
        counters[number].inc(count)


class Metrics:
    """The service's series. Methods are called from the event loop and from the inference thread."""

    def __init__(self, registry: CollectorRegistry):
        self.registry = registry
        self._counters: dict[str, VersionCounters] = {}
        self._outcome_counters: dict[str, OutcomeCounters] = {}
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
        self._drift_evidence = gauge(
            "drift_log_evidence", "Log evidence of a drift test, which alarms at the log of its run length",
            "version", "stream",
        )  # fmt: skip
        self._drift_alarm = gauge("drift_alarm", "1 from a drift alarm until it is acknowledged", "version", "stream")
        self._model_info = Info("evenkeel_model", "The bundle served and what computes it", registry=registry)
        self._http_requests = counter(
            "http_requests_total", "Requests by route, method and status", "route", "method", "status"
        )
        self._http_seconds = histogram(
            "http_request_seconds", "Time to the response's start", SECONDS, "route", "method"
        )
        self._of_response = lru_cache(1024)(self._series)
        self._batch_rows = histogram("batch_rows", "Rows of one inference", ROWS)
        self._queue_rows = gauge("queue_rows", "Rows waiting")
        self._queue_seconds = histogram("queue_seconds", "Wait of a request before its first inference", SECONDS)
        self._inference_seconds = histogram("inference_seconds", "Duration of one inference", SECONDS)
        self._rejected = counter("rejected_total", "Requests refused, by reason", "reason")
        self._stream_lines = counter(
            "stream_lines_total", "Lines of streams, by what they were answered with", "result"
        )
        self._cache_lookups = counter(
            "cache_lookups_total", "Distinct texts of a batch that were looked up in the cache", "result"
        )
        self._outcomes = counter(
            "outcomes_total", "Outcomes by the bin of what was predicted", "version", "bin", "survived"
        )
        self._outcome_probabilities = counter(
            "outcome_probability_sum_total", "Sum over outcomes of what was predicted, by its bin", "version", "bin"
        )
        self._outcome_log_loss = counter(
            "outcome_log_loss_sum_total", "Sum over outcomes of the log loss, in nats", "version"
        )
        self._outcome_brier = counter("outcome_brier_sum_total", "Sum over outcomes of the squared error", "version")
        self._outcome_statuses = counter("outcomes_received_total", "Outcomes sent, by what became of them", "result")
        self._store_up = gauge("store_up", "1 while the store takes rows")
        # Neither 0 nor 1 while it is not known, and where there is no store: no alert on 0 must fire.
        self._store_up.set(math.nan)
        self._keys_current = gauge(
            "keys_current", "0 while the file of API keys is unusable and older keys are in force"
        )
        self._keys_current.set(1)
        self._store_rows = gauge("store_rows", "Predictions in the store, about")
        self._store_queue_rows = gauge("store_queue_rows", "Predictions waiting to be written to the store")
        self._store_written = counter("store_written_total", "Predictions written to the store")
        self._store_seconds = histogram("store_write_seconds", "Duration of one write of predictions", SECONDS)
        self._store_dropped = counter("store_dropped_total", "Predictions that were not logged, by reason", "reason")
        self._failures = counter(
            "prediction_failures_total", "Requests that the model gave no answer, by reason", "reason"
        )
        self._threads_lost = counter("inference_threads_lost_total", "Inference threads that died or hung")
        self._reloads = counter("reloads_total", "Bundles loaded anew, by what became of it", "result")
        self._shadow_by_probability = counter(
            "shadow_predictions_by_probability_total", "The shadow's predictions by tenth of probability",
            "version", "bin",
        )  # fmt: skip
        self._shadow_agreements = counter(
            "shadow_agreements_total", "The shadow's predictions, by whether the served outcome is the same",
            "version", "agrees",
        )  # fmt: skip
        self._shadow_difference = counter(
            "shadow_absolute_difference_sum_total", "Sum of |shadow's − served probability|", "version"
        )
        self._shadow_dropped = counter("shadow_dropped_total", "Predictions that the shadow did not see", "version")
        for reason in FAILURES:
            self._failures.labels(reason)
        for result in ("done", "refused"):
            self._reloads.labels(result)
        for status in get_args(OutcomeStatus):
            self._outcome_statuses.labels(status)
        for reason in DROP_REASONS:
            self._store_dropped.labels(reason)
        for result in ("hit", "miss"):
            self._cache_lookups.labels(result)
        for result in ("prediction", "problem"):
            self._stream_lines.labels(result)
        for reason in REASONS:
            self._rejected.labels(reason)

    def model_loaded(self, bundle: Bundle, backend: Backend) -> None:
        """Create every series of this bundle at 0 and publish its reference."""
        version, reference = bundle.version, bundle.reference
        self._model_info.info(
            {"name": bundle.name, "version": version, "loss": bundle.manifest.origin.loss.name,
             "device": backend.device, "blas": backend.blas, "threads": str(backend.threads),
             "compiler": backend.compiler, "precision": backend.precision}
        )  # fmt: skip
        self._counters[version] = VersionCounters(
            outcomes=[self._predictions.labels(version, outcome) for outcome in LABELS],
            probabilities=[self._by_probability.labels(version, name) for name in PROBABILITY_BINS],
            expected_survivors=self._expected_survivors.labels(version),
            expected_correct=self._expected_correct.labels(version),
            sets=[self._sets.labels(version, str(size)) for size in range(len(LABELS) + 1)],
            abstentions=self._abstentions.labels(version),
            warnings={field: self._warnings.labels(version, field) for field in COLUMNS},
            inputs=[
                [self._inputs.labels(version, bins.field, name) for name in bin_names(bins)] for bins in INPUT_BINS
            ],
        )
        self.versions_known([version])
        for name, count in zip(PROBABILITY_BINS, reference.probability_counts, strict=True):
            self._reference_probability.labels(version, name).set(count / reference.rows)
        self._reference_rows.labels(version).set(reference.rows)
        for field_reference in reference.inputs:
            for name, count in field_reference.counts.items():
                self._reference_input.labels(version, field_reference.bins.field, name).set(count / reference.rows)

    def drift_begun(self, drift: DriftMonitor) -> None:
        """Publish the drift tests of a bundle; they are read when scraped, so predictions pay nothing."""
        for stream in STREAMS:
            self._drift_evidence.labels(drift.version, stream).set_function(partial(drift.log_evidence, stream))
            self._drift_alarm.labels(drift.version, stream).set_function(partial(drift.alarmed, stream))

    def predicted(self, version: str, predictions: Sequence[Prediction]) -> None:
        """Count answered predictions."""
        counters = self._counters[version]
        probabilities = [prediction.probability for prediction in predictions]
        _count(counters.outcomes, [prediction.survived for prediction in predictions])
        _count(counters.probabilities, [prediction.probability_bin for prediction in predictions])
        counters.expected_survivors.inc(sum(probabilities))
        counters.expected_correct.inc(sum(max(p, 1 - p) for p in probabilities))
        confidences = [prediction.confidence for prediction in predictions]
        _count(counters.sets, [len(confidence.prediction_set) for confidence in confidences])
        counters.abstentions.inc(sum(confidence.abstain for confidence in confidences))
        for confidence in confidences:
            for warning in confidence.warnings:
                counters.warnings[warning.field].inc()
        columns = zip(*(prediction.input_bins for prediction in predictions), strict=True)
        for bins, numbers in zip(counters.inputs, columns, strict=True):
            _count(bins, numbers)

    def versions_known(self, versions: Iterable[str]) -> None:
        """Create the outcome series of these versions at 0, where they are not there yet."""
        for version in versions:
            if version not in self._outcome_counters:
                self._outcome_counters[version] = OutcomeCounters(
                    outcomes=[
                        [self._outcomes.labels(version, name, survived) for survived in ("false", "true")]
                        for name in PROBABILITY_BINS
                    ],
                    probabilities=[self._outcome_probabilities.labels(version, name) for name in PROBABILITY_BINS],
                    log_loss=self._outcome_log_loss.labels(version),
                    brier=self._outcome_brier.labels(version),
                )

    def outcomes_counted(self, outcomes: Sequence[CountedOutcome]) -> None:
        """Count outcomes that became durable, against what had been predicted."""
        self.versions_known({one.version for one in outcomes})
        for version, p, survived in outcomes:
            counters = self._outcome_counters[version]
            place = probability_bin(p)
            counters.outcomes[place][survived].inc()
            counters.probabilities[place].inc(p)
            # A map may reach 0 or 1 exactly, and one such row must not make the sum infinite.
            counters.log_loss.inc(-math.log(max(p if survived else 1 - p, SMALLEST_PROBABILITY)))
            counters.brier.inc((p - survived) ** 2)

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

    def waited(self, seconds: float) -> None:
        self._queue_seconds.observe(seconds)

    def shadow_loaded(self, version: str) -> None:
        """Create the series of a shadow bundle at 0."""
        for name in PROBABILITY_BINS:
            self._shadow_by_probability.labels(version, name)
        for agrees in ("false", "true"):
            self._shadow_agreements.labels(version, agrees)
        self._shadow_difference.labels(version)
        self._shadow_dropped.labels(version)

    def shadowed(self, version: str, served: Sequence[Prediction], own: Sequence[Prediction]) -> None:
        """Count a shadow's predictions against those that were served for the same passengers."""
        for theirs, ours in zip(served, own, strict=True):
            self._shadow_by_probability.labels(version, PROBABILITY_BINS[ours.probability_bin]).inc()
            self._shadow_agreements.labels(version, str(theirs.survived == ours.survived).lower()).inc()
        difference = math.fsum(abs(a.probability - b.probability) for a, b in zip(served, own, strict=True))
        self._shadow_difference.labels(version).inc(difference)

    def shadow_dropped(self, version: str, rows: int) -> None:
        """Count predictions that a shadow did not keep up with, or failed at."""
        self._shadow_dropped.labels(version).inc(rows)

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

    def responded(self, route: str, method: str, status: int, seconds: float | None, reason: str | None = None) -> None:
        """Count a response; ``route`` is a template or "unmatched", never a client's path; ``reason`` is given
        where the status does not tell it."""
        requests, took, rejected = self._of_response(route, method, status, reason)
        requests.inc()
        if seconds is not None:
            took.observe(seconds)
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
