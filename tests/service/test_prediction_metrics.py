"""The series of predictions and outcomes: labels from the bundle's schema, all there at 0, and what is counted."""

import math

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from models.bundle.read import Bundle
from models.engines.engine import Backend
from models.reference import PROBABILITY_BINS, build_reference
from models.schema import MAX_NAMED_LEVELS
from service.prediction_metrics import PredictionMetrics
from service.store.prediction_log import CountedOutcome
from tests import churn
from tests.service.predictions import prediction

BACKEND = Backend(engine="onnx", version="1", device="cpu", threads=4, parallel=2)


class Counted:
    """The metrics of one bundle, and their samples."""

    def __init__(self, bundle: Bundle):
        self.registry, self.version = CollectorRegistry(), bundle.version
        self.metrics = PredictionMetrics(self.registry)
        self.metrics.model_loaded(bundle, BACKEND)

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"evenkeel_{name}", {"version": self.version, **labels})

    def labels(self, name: str, label: str) -> list[str]:
        samples = (sample for metric in self.registry.collect() for sample in metric.samples)
        return list(dict.fromkeys(one.labels[label] for one in samples if one.name == f"evenkeel_{name}"))


def test_the_backend_says_how_many_batches_it_computes_at_once(churn_bundle: Bundle) -> None:
    counted = Counted(churn_bundle)
    assert counted.labels("model_info", "threads") == ["4"]
    assert counted.labels("model_info", "parallel") == ["2"]


def with_classes_turned_round(bundle: Bundle) -> Bundle:
    """The same table, its classes in the other order."""
    label = msgspec.structs.replace(bundle.schema.label, classes=bundle.schema.label.classes[::-1])
    return msgspec.structs.replace(bundle, schema=msgspec.structs.replace(bundle.schema, label=label))


def test_all_series_are_there_at_0_and_bounded(churn_bundle: Bundle) -> None:
    counted = Counted(churn_bundle)
    for name in ("predictions_total", "expected_outcomes_total"):
        assert counted.labels(name, "outcome") == ["stays", "leaves"]
        assert [counted.value(name, outcome=outcome) for outcome in churn.SCHEMA.classes] == [0, 0]
    for bin in PROBABILITY_BINS:
        assert [counted.value("outcomes_total", bin=bin, outcome=name) for name in churn.SCHEMA.classes] == [0, 0]
    assert counted.labels("prediction_sets_total", "size") == ["0", "1", "2"]
    assert counted.labels("inputs_total", "field") == [field.name for field in churn.SCHEMA.fields]
    assert counted.labels("input_warnings_total", "field") == counted.labels("inputs_total", "field")
    cities = [name for name in counted.labels("inputs_total", "bin") if name.startswith("city")]
    assert cities == churn.CITIES[:MAX_NAMED_LEVELS]
    for field in churn.SCHEMA.input_bins:
        shares = [counted.value("reference_input_proportion", field=field.field, bin=name) for name in field.names]
        assert sum(share or 0 for share in shares) == pytest.approx(1)
        assert [counted.value("inputs_total", field=field.field, bin=name) for name in field.names] == [0] * len(shares)


def test_predictions_are_counted_by_class_and_by_bin(churn_bundle: Bundle) -> None:
    counted, rows = Counted(churn_bundle), churn.customers(200)
    p = np.random.default_rng(3).uniform(0.01, 0.99, len(rows)).tolist()
    answers = [prediction(q, row, schema=churn.SCHEMA) for q, row in zip(p, rows, strict=True)]
    counted.metrics.predicted(counted.version, answers[:1])
    counted.metrics.predicted(counted.version, answers[1:])
    assert counted.value("predictions_total", outcome="leaves") == sum(q >= 0.5 for q in p)
    assert counted.value("predictions_total", outcome="stays") == sum(q < 0.5 for q in p)
    assert counted.value("expected_outcomes_total", outcome="leaves") == pytest.approx(sum(p))
    assert counted.value("expected_outcomes_total", outcome="stays") == pytest.approx(len(p) - sum(p))
    assert counted.value("expected_correct_total") == pytest.approx(sum(max(q, 1 - q) for q in p))
    others = sum(row.city in churn.CITIES[MAX_NAMED_LEVELS:] for row in rows)
    assert counted.value("inputs_total", field="city", bin="other") == others > 0
    assert counted.value("inputs_total", field="senior", bin="true") == sum(row.senior is True for row in rows)
    assert counted.value("inputs_total", field="plan", bin="10") == sum(row.plan == 10 for row in rows)
    assert counted.value("inputs_total", field="note", bin="unknown") == sum(row.note is None for row in rows)


def test_outcomes_follow_the_order_of_the_classes(churn_bundle: Bundle) -> None:
    turned = with_classes_turned_round(churn_bundle)
    for bundle, positive in ((churn_bundle, "leaves"), (turned, "stays")):
        counted = Counted(bundle)
        label = bundle.schema.classes.index(positive)
        counted.metrics.outcomes_counted(
            [
                CountedOutcome(bundle.version, (0.75, 0.25), label),
                CountedOutcome(bundle.version, (0.75, 0.25), 1 - label),
            ]
        )
        counted.metrics.outcomes_counted([CountedOutcome(bundle.version, (0.75, 0.25), 1 - label)])
        other = next(name for name in bundle.schema.classes if name != positive)
        assert counted.value("outcomes_total", bin="0.2-0.3", outcome=positive) == 1
        assert counted.value("outcomes_total", bin="0.2-0.3", outcome=other) == 2
        assert counted.value("outcome_brier_sum_total") == pytest.approx(0.75**2 + 2 * 0.25**2)
        assert counted.value("outcome_log_loss_sum_total") == pytest.approx(-math.log(0.25) - 2 * math.log(0.75))


def test_a_version_of_before_has_its_own_classes() -> None:
    registry = CollectorRegistry()
    metrics = PredictionMetrics(registry)
    metrics.versions_known({"old": ("calm", "angry")})
    metrics.versions_known({"old": ("calm", "angry"), "new": ("a", "b", "c")})
    metrics.outcomes_counted([CountedOutcome("old", (0.05, 0.95), 0)])

    def value(version: str, outcome: str, bin: str = "0.9-1.0") -> float | None:
        labels = {"version": version, "bin": bin, "outcome": outcome}
        return registry.get_sample_value("evenkeel_outcomes_total", labels)

    assert [value("old", name) for name in ("calm", "angry")] == [1, 0]
    assert [value("new", name, "b 0.9-1.0") for name in ("a", "b", "c")] == [0, 0, 0]


def test_a_shadow_agrees_by_class(churn_bundle: Bundle) -> None:
    counted, row = Counted(churn_bundle), churn.customers(1)[0]
    counted.metrics.shadow_loaded(counted.version, churn.SCHEMA.classes)
    served, own = ([prediction(q, row, schema=churn.SCHEMA) for q in p] for p in ((0.4, 0.6, 0.7), (0.3, 0.4, 0.9)))
    counted.metrics.shadowed(counted.version, served, own)
    assert counted.value("shadow_agreements_total", agrees="true") == 2
    assert counted.value("shadow_agreements_total", agrees="false") == 1
    assert counted.value("shadow_absolute_difference_sum_total") == pytest.approx(0.1 + 0.2 + 0.2)


def test_a_reference_with_bins_of_the_schema(churn_bundle: Bundle) -> None:
    rows = churn.customers(100)
    reference = build_reference(np.full(100, 0.25), rows, churn.SCHEMA)
    counted = Counted(msgspec.structs.replace(churn_bundle, reference=reference))
    assert counted.value("reference_rows") == 100
    assert counted.value("reference_probability_proportion", bin="0.2-0.3") == 1
    share = np.mean([row.city in churn.CITIES[MAX_NAMED_LEVELS:] for row in rows])
    assert counted.value("reference_input_proportion", field="city", bin="other") == pytest.approx(share)
