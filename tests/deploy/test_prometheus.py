"""Rules and alerts by promtool, their names against what the service exports, and their numbers against NumPy's."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from prometheus_client import CollectorRegistry

from models.bundle.read import Bundle
from models.reference import PROBABILITY_BINS, PredictionBins
from service.drift.label_free import stability_index
from service.drift.monitor import DriftMonitor
from service.metrics import Metrics
from service.settings import Settings
from tests.conftest import ROOT
from tests.deploy.expressions import DEPLOY, alerts, grouping_labels, panels, rules, selectors
from tests.deploy.programs import RULES, check, need
from tests.service.inference.test_batcher import Echo
from tests.service.serving import make_app
from tests.titanic import SCHEMA

SCRAPED = {"job", "instance"}
"""Labels that Prometheus gives to whatever it scrapes."""


@pytest.mark.parametrize("file", sorted((RULES / "rules").glob("*.yml")), ids=lambda file: file.name)
def test_promtool_accepts_the_rules(file: Path) -> None:
    assert "SUCCESS" in check(need("promtool"), "check", "rules", "--lint-fatal", file)


def test_promtool_accepts_the_configurations() -> None:
    for name in ("prometheus.yml", "prometheus.compose.yml"):
        check(need("promtool"), "check", "config", RULES / name)


def test_amtool_accepts_the_configuration_of_the_alertmanager() -> None:
    check(need("amtool"), "check-config", DEPLOY / "alertmanager" / "alertmanager.yml")


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted((RULES / "tests").glob("*.yml")), ids=lambda file: file.name)
def test_promtool_runs_the_unit_tests_of_the_rules(file: Path) -> None:
    check(need("promtool"), "test", "rules", file)


def test_every_alert_has_a_case_that_fires_and_one_that_is_silent() -> None:
    cases = [
        (case["alertname"], bool(case["exp_alerts"]))
        for file in (RULES / "tests").glob("*.yml")
        for test in yaml.safe_load(file.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
    ]
    assert set(cases) == {(alert["alert"], fires) for alert in alerts() for fires in (True, False)}


def test_every_alert_tells_whoever_is_called_what_to_do() -> None:
    headings = [
        line.removeprefix("### ").strip().lower()
        for line in (ROOT / "docs" / "monitoring.md").read_text().splitlines()
        if line.startswith("### ")
    ]
    for alert in alerts():
        assert alert["labels"]["severity"] in ("page", "ticket")
        assert set(alert["annotations"]) == {"summary", "description", "runbook"}
        assert alert["annotations"]["runbook"].removeprefix("docs/monitoring.md#") in headings, alert["alert"]
        assert alert["alert"] in (ROOT / "docs" / "monitoring.md").read_text()


@pytest.fixture(scope="module")
def exported(tiny_bundle: Bundle) -> dict[str, dict[str, set[str]]]:
    """Name of each series that the service exports with the tiny bundle → label → its values."""
    registry = CollectorRegistry()
    app = make_app(Settings(store="none", state=""), lambda _: Echo(tiny_bundle), registry=registry)
    metrics: Metrics = app.services.metrics
    metrics.model_loaded(tiny_bundle, Echo(tiny_bundle).backend)
    metrics.drift_begun(DriftMonitor(tiny_bundle, 1e7, 0.05, np.random.default_rng(0)))
    found: dict[str, dict[str, set[str]]] = {}
    for family in registry.collect():
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


def _known(exported: dict[str, dict[str, set[str]]]) -> dict[str, set[str]]:
    """Name → labels of what is exported, and of what the rules record."""
    recorded = {rule["record"]: set(rule["record"].split(":")[0].split("_")) for rule in rules() if "record" in rule}
    return {**{name: set(labels) | SCRAPED for name, labels in exported.items()}, **recorded}


def _expressions() -> Iterator[tuple[str, str]]:
    for rule in rules():
        yield rule.get("record") or rule["alert"], rule["expr"]
    yield from panels()


@pytest.mark.parametrize(("place", "expression"), list(_expressions()))
def test_expressions_name_only_what_is_there(
    place: str, expression: str, exported: dict[str, dict[str, set[str]]]
) -> None:
    known = _known(exported)
    labels: set[str] = {"alertname", "alertstate"}
    for name, matched, exact in selectors(expression):
        assert name in known, f"{place} asks for {name}"
        assert matched <= known[name], f"{place} matches {matched - known[name]} of {name}"
        labels |= known[name]
        for label, value in exact.items():
            if label not in SCRAPED:
                # What is recorded has the values of what it is recorded from.
                values = [exported[name]] if name in exported else exported.values()
                assert any(value in one.get(label, ()) for one in values), f'{place}: {name} has no {label}="{value}"'
    assert grouping_labels(expression) <= labels, place


def test_rules_follow_the_labels_that_their_names_state() -> None:
    for rule in rules():
        if "record" in rule:
            level = rule["record"].split(":")[0].split("_")
            assert level[0] == "job"
            assert set(level) <= {"job", "version", "field", "bin", "stream", "outcome"}


@pytest.mark.slow
def test_promql_and_numpy_agree_on_random_counts(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    cases = [_random_case(rng, number) for number in range(6)]
    document = {
        "rule_files": [str(RULES / "rules" / "evenkeel.rules.yml")], "evaluation_interval": "1m", "tests": cases,
    }  # fmt: skip
    file = tmp_path / "random.yml"
    file.write_text(json.dumps(document))
    check(need("promtool"), "test", "rules", file)


def _random_case(rng: np.random.Generator, number: int) -> dict[str, object]:
    """Random counts of one hour, split over two replicas; PSI, JS and the calibration error that NumPy has for them."""
    reference = rng.multinomial(int(rng.integers(200, 2000)), rng.dirichlet(np.full(10, 0.4)))
    live = rng.multinomial(int(rng.integers(250, 5000)), rng.dirichlet(np.full(10, 0.4)))
    split = rng.binomial(live, 0.3)
    age = SCHEMA.by_name["age"].input_bins
    inputs = rng.multinomial(live.sum(), rng.dirichlet(np.full(len(age.names), 0.4)))
    trained = rng.multinomial(reference.sum(), rng.dirichlet(np.full(len(age.names), 0.4)))
    negative, positive = rng.multinomial(live.sum(), np.full(20, 0.05)).reshape(2, 10)
    sums = (negative + positive) * (np.arange(10) + rng.uniform(0.1, 0.9, 10)) / 10
    series = [
        _gauge("reference_rows", {}, reference.sum()), _gauge("outcome_class", {"outcome": "stays"}, 0),
        _gauge("outcome_class", {"outcome": "leaves"}, 1),
    ]  # fmt: skip
    for place, name in enumerate(PROBABILITY_BINS):
        bin_label = {"bin": name}
        series += [
            _counter("predictions_by_probability_total", bin_label, split[place], "a"),
            _counter("predictions_by_probability_total", bin_label, live[place] - split[place], "b"),
            _gauge("reference_probability_proportion", bin_label, reference[place] / reference.sum()),
            _counter("outcomes_total", {**bin_label, "outcome": "leaves"}, positive[place]),
            _counter("outcomes_total", {**bin_label, "outcome": "stays"}, negative[place]),
            _counter("outcome_probability_sum_total", bin_label, sums[place]),
        ]
    for place, name in enumerate(age.names):
        labels = {"field": "age", "bin": name}
        series += [
            _counter("inputs_total", labels, inputs[place]),
            _gauge("reference_input_proportion", labels, trained[place] / reference.sum()),
        ]
    psi, null = stability_index(live, reference)
    input_psi, input_null = stability_index(inputs, trained)
    expected = {
        "job_version:evenkeel_prediction_psi:1h": psi,
        "job_version:evenkeel_prediction_psi_null:1h": null,
        "job_version:evenkeel_prediction_js:1h": _jensen_shannon(live, reference),
        "job_version_field:evenkeel_input_psi:1h": input_psi,
        "job_version_field:evenkeel_input_psi_null:1h": input_null,
        "job_version_field:evenkeel_input_js:1h": _jensen_shannon(inputs, trained),
        "job_version:evenkeel_ece:1d": float(np.abs(positive - sums).sum() / live.sum()),
    }
    checks = [
        {"expr": f"count(abs({name} - {value!r}) < 1e-9)", "eval_time": "60m",
         "exp_samples": [{"labels": "{}", "value": 1}]}
        for name, value in expected.items()
    ]  # fmt: skip
    return {"name": f"random {number}", "interval": "1m", "input_series": series, "promql_expr_test": checks}


def test_the_rules_of_outcomes_are_right_of_three_classes(tmp_path: Path) -> None:
    """Against NumPy: cells are named after the predicted class, one of whose names has a blank in it."""
    rng, classes = np.random.default_rng(8), ("Gentoo", "Adélie of Biscoe", "Chinstrap")
    bins = PredictionBins(classes).names
    outcomes = rng.multinomial(3000, rng.dirichlet(np.full(len(bins) * 3, 0.5))).reshape(len(bins), 3)
    sums = outcomes.sum(axis=1) * rng.uniform(0.4, 0.9, len(bins))
    predicted = np.array([classes.index(name.rpartition(" ")[0]) for name in bins])
    right = outcomes[np.arange(len(bins)), predicted]
    expected_shares = rng.dirichlet(np.ones(3))
    series = [_gauge("outcome_class", {"outcome": name}, number) for number, name in enumerate(classes)]
    for number, name in enumerate(classes):
        series.append(_counter("expected_outcomes_total", {"outcome": name}, 3000 * expected_shares[number]))
        series += [
            _counter("outcomes_total", {"bin": cell, "outcome": name}, outcomes[place, number])
            for place, cell in enumerate(bins)
        ]
    for place, cell in enumerate(bins):
        series.append(_counter("outcome_probability_sum_total", {"bin": cell}, sums[place]))
        series.append(_counter("predictions_by_probability_total", {"bin": cell}, outcomes[place].sum()))
    values = {
        "job_version:evenkeel_ece:1d": np.abs(right - sums).sum() / 3000,
        "job_version:evenkeel_outcome_accuracy:1d": right.sum() / 3000,
        "job_version:evenkeel_outcome_expected_accuracy:1d": sums.sum() / 3000,
        **{f'job_version_outcome:evenkeel_outcome_prevalence:1d{{outcome="{name}"}}': outcomes[:, number].sum() / 3000
           for number, name in enumerate(classes)},
        **{f'job_version_outcome:evenkeel_expected_prevalence:1h{{outcome="{name}"}}': expected_shares[number]
           for number, name in enumerate(classes)},
    }  # fmt: skip
    checks = [
        {"expr": f"count(abs({name} - {float(value)!r}) < 1e-9)", "eval_time": "60m",
         "exp_samples": [{"labels": "{}", "value": 1}]}
        for name, value in values.items()
    ]  # fmt: skip
    # Of a prevalence there is none, where it would be of several classes.
    checks += [
        {"expr": f"count(job_version:evenkeel_{name})", "eval_time": "60m", "exp_samples": []}
        for name in ("expected_prevalence:1h", "outcome_prevalence:1d", "outcome_expected_prevalence:1d")
    ]
    case = {"name": "three classes", "interval": "1m", "input_series": series, "promql_expr_test": checks}
    document = {
        "rule_files": [str(RULES / "rules" / "evenkeel.rules.yml")], "evaluation_interval": "1m", "tests": [case],
    }  # fmt: skip
    file = tmp_path / "classes.yml"
    file.write_text(json.dumps(document))
    check(need("promtool"), "test", "rules", file)


def _jensen_shannon(live: np.ndarray, reference: np.ndarray) -> float:
    held = (live > 0) | (reference > 0)
    p, q = live[held] + 0.5, reference[held] + 0.5
    p, q = p / p.sum(), q / q.sum()
    middle = (p + q) / 2
    return float((p * np.log2(p / middle) + q * np.log2(q / middle)).sum() / 2)


def _series(name: str, labels: dict[str, str], instance: str, values: str) -> dict[str, str]:
    pairs = {"job": "evenkeel", "instance": instance, "version": "v1", **labels}
    text = ", ".join(f'{label}="{value}"' for label, value in pairs.items())
    return {"series": f"evenkeel_{name}{{{text}}}", "values": values}


def _counter(name: str, labels: dict[str, str], total: float, instance: str = "a") -> dict[str, str]:
    """Rises evenly to its total within the hour, so that the increase is exact."""
    return _series(name, labels, instance, f"0+{total / 60:.17f}x60")


def _gauge(name: str, labels: dict[str, str], value: float) -> dict[str, str]:
    return _series(name, labels, "a", f"{value:.17f}x60")
