"""Prometheus series of what was predicted, by the bundle's version: outcomes, bins, reference, drift and shadow.

No label carries what a client sent. All label values exist at 0 once the bundle is known, so that rates exist.
"""

import math
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol, TypeVar

from msgspec import Struct
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info

from models.bundle.read import Bundle
from models.engines.engine import Backend
from models.prediction import Prediction
from models.reference import PredictionBins
from service.drift.monitor import STREAMS, DriftMonitor
from service.store.prediction_log import CountedOutcome

MIN_PROBABILITY = 1e-12
MAX_CLASSES_AT_0 = 20
"""Of more classes a cell's outcomes of a class that was not predicted have a series from the first one on: there would
be ten thousand at 0."""
K = TypeVar("K", contravariant=True)


class Counters(Protocol[K]):
    """A list or a mapping of counters."""

    def __getitem__(self, key: K, /) -> Counter: ...


class Series:
    """Makes series on a registry, their names with the prefix of all."""

    def __init__(self, registry: CollectorRegistry):
        self._registry = registry

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"evenkeel_{name}", text, labels, registry=self._registry)

    def gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"evenkeel_{name}", text, labels, registry=self._registry)

    def histogram(self, name: str, text: str, buckets: Sequence[float], *labels: str) -> Histogram:
        return Histogram(f"evenkeel_{name}", text, labels, buckets=buckets, registry=self._registry)


class VersionCounters(Struct):
    """The counters of one bundle, looked up once: a label costs more than a count."""

    outcomes: dict[str, Counter]
    probabilities: list[Counter]
    expected: list[Counter]
    expected_correct: Counter
    sets: list[Counter]
    abstentions: Counter
    warnings: dict[str, Counter]
    inputs: list[list[Counter]]


class CellCounters(dict[tuple[int, int], Counter]):
    """(Cell, class) → the counter of its outcomes. All are there at 0 from the start, but where there are more than
    `MAX_CLASSES_AT_0` classes those of a class that was not predicted."""

    def __init__(self, outcomes: Counter, version: str, cells: Sequence[str], classes: Sequence[str]):
        super().__init__()
        self._outcomes, self._version, self._cells, self._classes = outcomes, version, cells, classes
        each = len(cells) // len(classes)
        for cell in range(len(cells)):
            for number in range(len(classes)):
                if len(classes) <= MAX_CLASSES_AT_0 or number == cell // each:
                    self[cell, number]

    def __missing__(self, key: tuple[int, int]) -> Counter:
        cell, number = key
        counter = self[key] = self._outcomes.labels(self._version, self._cells[cell], self._classes[number])
        return counter


class OutcomeCounters(Struct):
    """The counters of one version's outcomes; ``bins`` finds the cell of what had been predicted."""

    bins: PredictionBins
    outcomes: "CellCounters"
    probabilities: list[Counter]
    log_loss: Counter
    brier: Counter


def _count(counters: Counters[K], keys: Sequence[K]) -> None:
    # Most requests are of one row, and a tally of one is the dearest part of counting it.
    for key, count in Tally(keys).items() if len(keys) > 1 else ((keys[0], 1),):
        counters[key].inc(count)


class PredictionMetrics:
    """Called from the event loop and from inference threads."""

    def __init__(self, registry: CollectorRegistry):
        self._counters: dict[str, VersionCounters] = {}
        self._outcome_counters: dict[str, OutcomeCounters] = {}
        self._shadow_cells: tuple[str, ...] = ()
        series = Series(registry)
        self._predictions = series.counter(
            "predictions_total", "Predictions answered, by predicted outcome", "version", "outcome"
        )
        self._by_probability = series.counter(
            "predictions_by_probability_total", "Predictions by tenth of probability", "version", "bin"
        )
        self._expected = series.counter(
            "expected_outcomes_total", "Sum of the probabilities of each outcome", "version", "outcome"
        )
        self._expected_correct = series.counter("expected_correct_total", "Sum of max(p, 1 - p)", "version")
        self._sets = series.counter(
            "prediction_sets_total", "Conformal prediction sets by number of classes", "version", "size"
        )
        self._abstentions = series.counter(
            "abstentions_total", "Predictions whose set is not a single class", "version"
        )
        self._warnings = series.counter("input_warnings_total", "Values outside the training rows", "version", "field")
        self._inputs = series.counter("inputs_total", "Rows by bin of each field", "version", "field", "bin")
        self._reference_probability = series.gauge(
            "reference_probability_proportion", "Share of held-out training predictions per bin", "version", "bin"
        )
        self._reference_rows = series.gauge("reference_rows", "Rows behind the reference proportions", "version")
        self._reference_input = series.gauge(
            "reference_input_proportion", "Share of training rows per bin of each field", "version", "field", "bin"
        )
        self._drift_evidence = series.gauge(
            "drift_log_evidence", "Log evidence of a drift test, which alarms at the log of its run length",
            "version", "stream",
        )  # fmt: skip
        self._drift_alarm = series.gauge(
            "drift_alarm", "1 from a drift alarm until it is acknowledged", "version", "stream"
        )
        self._online = {
            "offset": series.gauge("online_offset", "Offset of the online step, in log-odds", "version"),
            "slope": series.gauge("online_slope", "Slope of the online step on log-odds", "version"),
            "outcomes": series.gauge("online_outcomes", "Outcomes that the online step was learnt from", "version"),
        }
        self._tested: str | None = None
        """Version of the bundle that drift tests are published of."""
        self._model_info = Info("evenkeel_model", "The bundle served and what computes it", registry=registry)
        self._classes = series.gauge(
            "outcome_class", "Number of a class in their order; of two, 1 is the one that probabilities are of",
            "version", "outcome",
        )  # fmt: skip
        self._outcomes = series.counter(
            "outcomes_total", "Outcomes by the bin of what was predicted", "version", "bin", "outcome"
        )
        self._outcome_probabilities = series.counter(
            "outcome_probability_sum_total", "Sum over outcomes of what was predicted, by its bin", "version", "bin"
        )
        self._outcome_log_loss = series.counter(
            "outcome_log_loss_sum_total", "Sum over outcomes of the log loss, in nats", "version"
        )
        self._outcome_brier = series.counter(
            "outcome_brier_sum_total", "Sum over outcomes of the squared error", "version"
        )
        self._shadow_by_probability = series.counter(
            "shadow_predictions_by_probability_total", "The shadow's predictions by tenth of probability",
            "version", "bin",
        )  # fmt: skip
        self._shadow_agreements = series.counter(
            "shadow_agreements_total", "The shadow's predictions, by whether the served outcome is the same",
            "version", "agrees",
        )  # fmt: skip
        self._shadow_difference = series.counter(
            "shadow_absolute_difference_sum_total", "Sum of |shadow's − served probability|", "version"
        )
        self._shadow_dropped = series.counter(
            "shadow_dropped_total", "Predictions that the shadow did not see", "version"
        )

    def model_loaded(self, bundle: Bundle, backend: Backend) -> None:
        """Create every series of this bundle at 0 and publish its reference."""
        version, schema, reference = bundle.version, bundle.schema, bundle.reference
        cells = PredictionBins(schema.classes).names
        self._model_info.info(
            {"name": bundle.name, "version": version, "loss": bundle.manifest.origin.loss.name,
             "engine": backend.engine, "engine_version": backend.version, "reason": backend.reason,
             "device": backend.device, "blas": backend.blas, "threads": str(backend.threads),
             "parallel": str(backend.parallel), "precision": backend.precision}
        )  # fmt: skip
        self._counters[version] = VersionCounters(
            outcomes={name: self._predictions.labels(version, name) for name in schema.classes},
            probabilities=[self._by_probability.labels(version, name) for name in cells],
            expected=[self._expected.labels(version, name) for name in schema.classes],
            expected_correct=self._expected_correct.labels(version),
            sets=[self._sets.labels(version, str(size)) for size in range(len(schema.classes) + 1)],
            abstentions=self._abstentions.labels(version),
            warnings={field.name: self._warnings.labels(version, field.name) for field in schema.fields},
            inputs=[
                [self._inputs.labels(version, bins.field, name) for name in bins.names] for bins in schema.input_bins
            ],
        )
        self.versions_known({version: schema.classes})
        for name, count in zip(cells, reference.probability_counts, strict=True):
            self._reference_probability.labels(version, name).set(count / reference.rows)
        self._reference_rows.labels(version).set(reference.rows)
        for field_reference in reference.inputs:
            for name, count in field_reference.counts.items():
                self._reference_input.labels(version, field_reference.bins.field, name).set(count / reference.rows)

    def drift_begun(self, drift: DriftMonitor) -> None:
        """Publish the drift tests of a bundle; they are read when scraped, so predictions pay nothing.

        Those of the bundle before have ended, and an alarm of theirs ends with them: nobody could acknowledge it.
        """
        for stream in STREAMS:
            if self._tested is not None:
                self._drift_evidence.remove(self._tested, stream)
                self._drift_alarm.remove(self._tested, stream)
        if self._tested is not None and drift.online is not None:
            for gauge in self._online.values():
                gauge.remove(self._tested)
        self._tested = drift.version
        for name, gauge in self._online.items() if drift.online is not None else ():
            gauge.labels(drift.version).set_function(partial(_of_step, drift, name))
        for stream in STREAMS:
            self._drift_evidence.labels(drift.version, stream).set_function(partial(drift.log_evidence, stream))
            self._drift_alarm.labels(drift.version, stream).set_function(partial(drift.alarmed, stream))

    def predicted(self, version: str, predictions: Sequence[Prediction]) -> None:
        """Count answered predictions."""
        counters = self._counters[version]
        probabilities = [prediction.probabilities for prediction in predictions]
        _count(counters.outcomes, [prediction.outcome for prediction in predictions])
        _count(counters.probabilities, [prediction.probability_bin for prediction in predictions])
        for expected, of_class in zip(counters.expected, zip(*probabilities, strict=True), strict=True):
            expected.inc(sum(of_class))
        counters.expected_correct.inc(sum(map(max, probabilities)))
        confidences = [prediction.confidence for prediction in predictions]
        _count(counters.sets, [len(confidence.prediction_set) for confidence in confidences])
        counters.abstentions.inc(sum(confidence.abstain for confidence in confidences))
        for confidence in confidences:
            for warning in confidence.warnings:
                counters.warnings[warning.field].inc()
        columns = zip(*(prediction.input_bins for prediction in predictions), strict=True)
        for bins, numbers in zip(counters.inputs, columns, strict=True):
            _count(bins, numbers)

    def versions_known(self, classes: Mapping[str, Sequence[str]]) -> None:
        """Create the outcome series of these versions at 0, where they are not there yet; ``classes`` by version."""
        for version, names in classes.items():
            if version not in self._outcome_counters:
                for number, name in enumerate(names):
                    self._classes.labels(version, name).set(number)
                bins = PredictionBins(names)
                self._outcome_counters[version] = OutcomeCounters(
                    bins=bins, outcomes=CellCounters(self._outcomes, version, bins.names, names),
                    probabilities=[self._outcome_probabilities.labels(version, name) for name in bins.names],
                    log_loss=self._outcome_log_loss.labels(version), brier=self._outcome_brier.labels(version),
                )  # fmt: skip

    def outcomes_counted(self, outcomes: Sequence[CountedOutcome]) -> None:
        """Count outcomes that became durable, of known versions, against what had been predicted."""
        for version, p, label, *_ in outcomes:
            counters = self._outcome_counters[version]
            cell = counters.bins.of_row(p)
            counters.outcomes[cell, label].inc()
            counters.probabilities[cell].inc(p[1] if len(p) == 2 else max(p))
            # A map may reach 0 or 1 exactly, and one such row must not make the sum infinite.
            counters.log_loss.inc(-math.log(max(p[label], MIN_PROBABILITY)))
            counters.brier.inc(squared_error(p, label))

    def shadow_loaded(self, version: str, classes: Sequence[str]) -> None:
        """Create the series of a shadow bundle at 0."""
        self._shadow_cells = PredictionBins(classes).names
        for name in self._shadow_cells:
            self._shadow_by_probability.labels(version, name)
        for agrees in ("false", "true"):
            self._shadow_agreements.labels(version, agrees)
        self._shadow_difference.labels(version)
        self._shadow_dropped.labels(version)

    def shadowed(self, version: str, served: Sequence[Prediction], own: Sequence[Prediction]) -> None:
        """Count a shadow's predictions against those that were served for the same rows."""
        for theirs, ours in zip(served, own, strict=True):
            self._shadow_by_probability.labels(version, self._shadow_cells[ours.probability_bin]).inc()
            self._shadow_agreements.labels(version, str(theirs.outcome == ours.outcome).lower()).inc()
        # Half of the sum over classes, the distance in total variation: of two classes that of either's probability.
        difference = math.fsum(
            abs(p - q) / 2
            for theirs, ours in zip(served, own, strict=True)
            for p, q in zip(theirs.probabilities, ours.probabilities, strict=True)
        )
        self._shadow_difference.labels(version).inc(difference)

    def shadow_dropped(self, version: str, rows: int) -> None:
        """Count predictions that a shadow did not keep up with, or failed at."""
        self._shadow_dropped.labels(version).inc(rows)


def _of_step(drift: DriftMonitor, name: str) -> float:
    """The online step's offset, slope or number of outcomes as it is now."""
    return float(getattr(drift.online_step, name))


def squared_error(p: Sequence[float], label: int) -> float:
    """Brier's score of probabilities (K,): of two classes the square of the positive one's error, of more the sum of
    all classes' squares (Brier, 1950), which of two would be twice as much."""
    if len(p) == 2:
        return (p[1] - label) ** 2
    return math.fsum((q - (number == label)) ** 2 for number, q in enumerate(p))
