"""The rows of panels, and what each asks Prometheus."""

from collections.abc import Callable
from functools import partial
from typing import Any

from deploy.grafana.panels import Query, bars, lines, number, states

JOB = 'job=~"$job"'
OF_JOB = f"{{{JOB}}}"
OF_VERSION = f'{{{JOB}, version="$version"}}'
OF_ROUTES = f'{{{JOB}, route=~"/v[12]/.*"}}'
OF_FIELD = f'{{{JOB}, version="$version", field="$field"}}'
WINDOW = "[$__rate_interval]"


def quantiles(series: str, matcher: str = "") -> list[Query]:
    selector = ", ".join(filter(None, (JOB, matcher)))
    rates = f"sum by (le) (rate({series}{{{selector}}}{WINDOW}))"
    return [(f"histogram_quantile({q}, {rates})", f"{q * 100:g}%") for q in (0.5, 0.95, 0.99)]


def by_version(rule: str, legend: str) -> Query:
    return f"job_version:{rule}{OF_JOB}", legend


def by_bin(aggregate: str, rule: str, legend: str, selector: str = OF_VERSION) -> Query:
    return f"{aggregate} by (bin) ({rule}{selector})", legend


def rate_by(label: str, series: str, selector: str = OF_JOB) -> Query:
    return f"sum by ({label}) (rate({series}{selector}{WINDOW}))", f"{{{{{label}}}}}"


shares = partial(lines, unit="percentunit")


def overview() -> list[Any]:
    requests = f"sum(rate(evenkeel_http_requests_total{OF_ROUTES}{WINDOW}))"
    return [
        number("Replicas with a loaded model", f"count(evenkeel_reference_rows{OF_JOB}) or vector(0)", low_is_bad=True),
        number("Drift alarms latched", f"sum(max by (job, version, stream) (evenkeel_drift_alarm{OF_JOB}))"),
        number("Alerts firing", 'count(ALERTS{alertname=~"Evenkeel.*", alertstate="firing"}) or vector(0)'),
        number("Requests per second", requests, unit="reqps", limit=None),
        number(
            "Requests failed, of 0.1% allowed",
            f"max(job:evenkeel_requests_failed:ratio_rate1h{OF_JOB})",
            "percentunit",
            limit=0.001,
        ),
        number(
            "Predictions late, of 1% allowed",
            f"max(job:evenkeel_predictions_slow:ratio_rate1h{OF_JOB})",
            "percentunit",
            limit=0.01,
        ),
    ]


def traffic() -> list[Any]:
    return [
        lines("Requests by route", rate_by("route", "evenkeel_http_requests_total"), unit="reqps"),
        lines("Predictions by version", rate_by("version", "evenkeel_predictions_total"), unit="reqps"),
        lines("Answers by status", rate_by("status", "evenkeel_http_requests_total", OF_ROUTES), unit="reqps"),
        lines("Refusals by reason", rate_by("reason", "evenkeel_rejected_total"), unit="reqps"),
        shares(
            "Share of requests that fail",
            (f"job:evenkeel_requests_failed:ratio_rate5m{OF_JOB}", "5 min"),
            (f"job:evenkeel_requests_failed:ratio_rate1h{OF_JOB}", "1 h"),
            ("vector(0.001)", "objective"),
            text="5xx and queue-full answers; the month may have 0.1%",
        ),
    ]


def latency() -> list[Any]:
    return [
        lines(
            "Single predictions",
            *quantiles("evenkeel_http_request_seconds_bucket", 'route="/v1/predict"'),
            unit="s",
            text="Time to the response's start, all replicas together",
        ),
        lines(
            "Batches of predictions",
            *quantiles("evenkeel_http_request_seconds_bucket", 'route="/v1/predict/batch"'),
            unit="s",
        ),
        lines("Wait before the first inference", *quantiles("evenkeel_queue_seconds_bucket"), unit="s"),
        lines("Duration of an inference", *quantiles("evenkeel_inference_seconds_bucket"), unit="s"),
        shares(
            "Share of single predictions over 250 ms",
            (f"job:evenkeel_predictions_slow:ratio_rate5m{OF_JOB}", "5 min"),
            (f"job:evenkeel_predictions_slow:ratio_rate1h{OF_JOB}", "1 h"),
            ("vector(0.01)", "objective"),
        ),
    ]


def drift() -> list[Any]:
    return [
        lines(
            "Evidence of drift",
            (f"max by (version, stream) (evenkeel_drift_log_evidence{OF_JOB})", "{{stream}} {{version}}"),
            ("ln(vector(1 + 5.832e8))", "alarm at the default settings"),
            text="Log evidence of the sequential tests; at the line a stream alarms, falsely once in 583,200,000 rows",
        ),
        states(
            "Alarms latched", (f"max by (version, stream) (evenkeel_drift_alarm{OF_JOB})", "{{stream}} {{version}}")
        ),
        bars(
            "Predictions of the last hour against the reference",
            "bin",
            by_bin("sum", "job_version_bin:evenkeel_prediction_share:1h", "live"),
            by_bin("max", "job_version_bin:evenkeel_reference_share:1h", "reference"),
            unit="percentunit",
            text="Empty below 200 predictions",
        ),
        lines(
            "Population stability index of predictions",
            by_version("evenkeel_prediction_psi:1h", "{{version}}"),
            by_version("evenkeel_prediction_psi_null:1h", "{{version}} by chance"),
            text="An hour's predictions against the reference, and the mean of that while nothing has changed",
        ),
        lines(
            "Jensen–Shannon divergence of predictions",
            by_version("evenkeel_prediction_js:1h", "{{version}}"),
            unit="bits",
        ),
    ]


def inputs() -> list[Any]:
    return [
        lines(
            "Population stability index by field, over its mean by chance",
            (
                f"job_version_field:evenkeel_input_psi:1h{OF_VERSION}"
                " / (job_version_field:evenkeel_input_psi_null:1h > 0)",
                "{{field}}",
            ),
            text="1 is what chance makes; the field that moved stands out",
        ),
        lines(
            "Jensen–Shannon divergence by field",
            (f"job_version_field:evenkeel_input_js:1h{OF_VERSION}", "{{field}}"),
            unit="bits",
        ),
        bars(
            "$field of the last hour against the reference",
            "bin",
            by_bin("sum", "job_version_field_bin:evenkeel_input_share:1h", "live", OF_FIELD),
            by_bin("max", "job_version_field_bin:evenkeel_reference_input_share:1h", "reference", OF_FIELD),
            unit="percentunit",
        ),
        lines(
            "Values outside the training rows",
            rate_by("field", "evenkeel_input_warnings_total", OF_VERSION),
            unit="cps",
        ),
    ]


def calibration() -> list[Any]:
    return [
        bars(
            "Reliability, outcomes of the last day",
            "bin",
            by_bin("max", "job_version_bin:evenkeel_outcome_mean_probability:1d", "predicted"),
            by_bin("max", "job_version_bin:evenkeel_outcome_rate:1d", "actual"),
            unit="percentunit",
            text="Two bars of a height are a probability that is true; empty below 200 outcomes",
        ),
        shares(
            "Calibration error",
            by_version("evenkeel_ece:1d", "{{version}}"),
            by_version("evenkeel_ece_null:1d", "{{version}} by chance"),
            (
                f"job_version:evenkeel_ece_null:1d{OF_JOB} + 4 * job_version:evenkeel_ece_null_deviation:1d",
                "{{version}} limit",
            ),
            text="Of the outcomes that came in within a day",
        ),
        shares(
            "Accuracy, expected and actual",
            by_version("evenkeel_expected_accuracy:1h", "expected of all, 1 h"),
            by_version("evenkeel_outcome_expected_accuracy:1d", "expected of those with an outcome, 1 d"),
            by_version("evenkeel_outcome_accuracy:1d", "actual, 1 d"),
        ),
        shares(
            "Share of $outcome, expected and actual",
            by_version("evenkeel_expected_prevalence:1h", "expected of all, 1 h"),
            by_version("evenkeel_outcome_expected_prevalence:1d", "expected of those with an outcome, 1 d"),
            by_version("evenkeel_outcome_prevalence:1d", "actual, 1 d"),
        ),
        shares(
            "Shares of the classes, expected and actual",
            (
                "sum by (outcome) (job_version_outcome:evenkeel_expected_prevalence:1h" + OF_VERSION + ")",
                "{{outcome}}, expected of all, 1 h",
            ),
            (
                "sum by (outcome) (job_version_outcome:evenkeel_outcome_prevalence:1d" + OF_VERSION + ")",
                "{{outcome}}, actual, 1 d",
            ),
        ),
        lines(
            "Proper scores",
            by_version("evenkeel_outcome_log_loss:1d", "log loss {{version}}"),
            by_version("evenkeel_outcome_brier:1d", "Brier score {{version}}"),
        ),
        lines("Outcomes received", rate_by("result", "evenkeel_outcomes_received_total"), unit="cps"),
    ]


def uncertainty() -> list[Any]:
    return [
        lines("Prediction sets by size", rate_by("size", "evenkeel_prediction_sets_total", OF_VERSION), unit="cps"),
        shares("Share that abstains", by_version("evenkeel_abstention_share:1h", "{{version}}")),
    ]


def machine() -> list[Any]:
    def rate(series: str) -> str:
        return f"sum by (instance) (rate({series}{WINDOW}))"

    found = f'evenkeel_cache_lookups_total{{{JOB}, result="hit"}}'
    rows, batches = f"evenkeel_batch_rows_sum{OF_JOB}", f"evenkeel_batch_rows_count{OF_JOB}"
    return [
        lines("Rows waiting", (f"evenkeel_queue_rows{OF_JOB}", "{{instance}}")),
        lines("Rows of an inference, mean", (f"{rate(rows)} / {rate(batches)}", "{{instance}}")),
        shares(
            "Texts found in the cache",
            (f"{rate(found)} / {rate(f'evenkeel_cache_lookups_total{OF_JOB}')}", "{{instance}}"),
        ),
        states("Store", (f"evenkeel_store_up{OF_JOB}", "{{instance}}"), bad="unusable", good="usable", bad_value=0),
        lines("Predictions waiting for the store", (f"evenkeel_store_queue_rows{OF_JOB}", "{{instance}}")),
        lines(
            "Predictions logged, and not",
            (f"sum(rate(evenkeel_store_written_total{OF_JOB}{WINDOW}))", "written"),
            (f"sum by (reason) (rate(evenkeel_store_dropped_total{OF_JOB}{WINDOW}))", "not logged: {{reason}}"),
            unit="cps",
        ),
        lines("Duration of a write to the store", *quantiles("evenkeel_store_write_seconds_bucket"), unit="s"),
        lines("Predictions in the store", (f"evenkeel_store_rows{OF_JOB}", "{{instance}}")),
        lines("Processor", (rate(f"process_cpu_seconds_total{OF_JOB}"), "{{instance}}"), text="Cores busy"),
        lines("Memory", (f"process_resident_memory_bytes{OF_JOB}", "{{instance}}"), unit="bytes"),
    ]


ROWS: dict[str, Callable[[], list[Any]]] = {
    "Overview": overview,
    "Drift": drift,
    "Calibration, from outcomes": calibration,
    "Inputs": inputs,
    "Traffic and errors": traffic,
    "Latency": latency,
    "Uncertainty": uncertainty,
    "Queue, cache, store, process": machine,
}
