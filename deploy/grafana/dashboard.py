"""The Grafana dashboard, as code: python -m deploy.grafana.dashboard writes evenkeel.json beside this file.

With --check it writes nothing and fails if the file is not what this code makes.
"""

import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import barchart, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as kinds
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

FILE = Path(__file__).with_name("evenkeel.json")
SOURCE = kinds.DataSourceRef(type_val="prometheus", uid="${source}")
JOB, CHOSEN = 'job=~"$job"', 'job=~"$job", version="$version"'
ROUTES = 'route=~"/v[12]/.*"'
HEIGHT = 8
Query = tuple[str, str]
"""A PromQL expression and the legend of its series."""


def build() -> dashboard.Dashboard:
    """The dashboard: what an operator asks first stands first."""
    board = (
        dashboard.Dashboard("Evenkeel")
        .uid("evenkeel")
        .description("Predictions, their drift and their calibration, and the service that makes them")
        .tags(["evenkeel"])
        .time("now-6h", "now")
        .refresh("30s")
        .tooltip(kinds.DashboardCursorSync.CROSSHAIR)
        .readonly()
        .annotation(_alerts())
    )
    for variable in _variables():
        board.with_variable(variable)
    numbers = count(1)
    for title, panels in ROWS.items():
        board.with_row(dashboard.Row(title).id(next(numbers)))
        for panel in panels():
            board.with_panel(panel.id(next(numbers)))
    return board


def _variables() -> list[Any]:
    versions = f"label_values(evenkeel_reference_rows{{{JOB}}}, version)"
    return [
        dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"),
        _variable("job", "label_values(evenkeel_reference_rows, job)").include_all(True).all_value(".+").multi(True),
        _variable("version", versions),
        _variable("field", f"label_values(evenkeel_reference_input_proportion{{{CHOSEN}}}, field)"),
    ]


def _variable(name: str, query: str) -> Any:
    refresh = kinds.VariableRefresh.ON_TIME_RANGE_CHANGED
    return dashboard.QueryVariable(name).label(name).datasource(SOURCE).query(query).refresh(refresh)


def _alerts() -> Any:
    expression = 'ALERTS{alertname=~"Evenkeel.*", alertstate="firing"}'
    return dashboard.AnnotationQuery().name("alerts").datasource(SOURCE).enable(True).icon_color("red").expr(expression)


def _overview() -> list[Any]:
    requests = f"sum(rate(evenkeel_http_requests_total{{{JOB}, {ROUTES}}}[$__rate_interval]))"
    return [
        _stat("Replicas with a loaded model", f"count(evenkeel_reference_rows{{{JOB}}}) or vector(0)", low_is_bad=True),
        _stat("Drift alarms latched", f"sum(max by (job, version, stream) (evenkeel_drift_alarm{{{JOB}}}))"),
        _stat("Alerts firing", 'count(ALERTS{alertname=~"Evenkeel.*", alertstate="firing"}) or vector(0)'),
        _stat("Requests per second", requests, unit="reqps", judged=False),
        _stat(
            "Requests failed, of 0.1% allowed",
            f"max(job:evenkeel_requests_failed:ratio_rate1h{{{JOB}}})",
            "percentunit",
            limit=0.001,
        ),
        _stat(
            "Predictions late, of 1% allowed",
            f"max(job:evenkeel_predictions_slow:ratio_rate1h{{{JOB}}})",
            "percentunit",
            limit=0.01,
        ),
    ]


def _traffic() -> list[Any]:
    def rate(series: str, by: str) -> str:
        return f"sum by ({by}) (rate({series}[$__rate_interval]))"

    return [
        _lines(
            "Requests by route", (rate(f"evenkeel_http_requests_total{{{JOB}}}", "route"), "{{route}}"), unit="reqps"
        ),
        _lines(
            "Predictions by version",
            (rate(f"evenkeel_predictions_total{{{JOB}}}", "version"), "{{version}}"),
            unit="reqps",
        ),
        _lines(
            "Answers by status",
            (rate(f"evenkeel_http_requests_total{{{JOB}, {ROUTES}}}", "status"), "{{status}}"),
            unit="reqps",
        ),
        _lines("Refusals by reason", (rate(f"evenkeel_rejected_total{{{JOB}}}", "reason"), "{{reason}}"), unit="reqps"),
        _lines(
            "Share of requests that fail",
            (f"job:evenkeel_requests_failed:ratio_rate5m{{{JOB}}}", "5 min"),
            (f"job:evenkeel_requests_failed:ratio_rate1h{{{JOB}}}", "1 h"),
            ("vector(0.001)", "objective"),
            unit="percentunit",
            text="5xx and queue-full answers; the month may have 0.1%",
        ),
    ]


def _latency() -> list[Any]:
    return [
        _lines(
            "Single predictions",
            *_quantiles("evenkeel_http_request_seconds_bucket", 'route="/v1/predict"'),
            unit="s",
            text="Time to the response's start, all replicas together",
        ),
        _lines(
            "Batches of predictions",
            *_quantiles("evenkeel_http_request_seconds_bucket", 'route="/v1/predict/batch"'),
            unit="s",
        ),
        _lines("Wait before the first inference", *_quantiles("evenkeel_queue_seconds_bucket"), unit="s"),
        _lines("Duration of an inference", *_quantiles("evenkeel_inference_seconds_bucket"), unit="s"),
        _lines(
            "Share of single predictions over 250 ms",
            (f"job:evenkeel_predictions_slow:ratio_rate5m{{{JOB}}}", "5 min"),
            (f"job:evenkeel_predictions_slow:ratio_rate1h{{{JOB}}}", "1 h"),
            ("vector(0.01)", "objective"),
            unit="percentunit",
        ),
    ]


def _drift() -> list[Any]:
    return [
        _lines(
            "Evidence of drift",
            (f"max by (version, stream) (evenkeel_drift_log_evidence{{{JOB}}})", "{{stream}} {{version}}"),
            ("ln(vector(1 + 1e7))", "alarm at the default run length"),
            text="Log evidence of the sequential tests; at the line a stream alarms, falsely once in 10,000,000 rows",
        ),
        _states(
            "Alarms latched",
            f"max by (version, stream) (evenkeel_drift_alarm{{{JOB}}})",
            "{{stream}} {{version}}",
        ),
        _bars(
            "Predictions of the last hour against the reference",
            "bin",
            (f"sum by (bin) (job_version_bin:evenkeel_prediction_share:1h{{{CHOSEN}}})", "live"),
            (f"max by (bin) (job_version_bin:evenkeel_reference_share:1h{{{CHOSEN}}})", "reference"),
            unit="percentunit",
            text="Empty below 200 predictions",
        ),
        _lines(
            "Population stability index of predictions",
            (f"job_version:evenkeel_prediction_psi:1h{{{JOB}}}", "{{version}}"),
            (f"job_version:evenkeel_prediction_psi_null:1h{{{JOB}}}", "{{version}} by chance"),
            text="An hour's predictions against the reference, and the mean of that while nothing has changed",
        ),
        _lines(
            "Jensen–Shannon divergence of predictions",
            (f"job_version:evenkeel_prediction_js:1h{{{JOB}}}", "{{version}}"),
            unit="bits",
        ),
    ]


def _inputs() -> list[Any]:
    return [
        _lines(
            "Population stability index by field, over its mean by chance",
            (
                f"job_version_field:evenkeel_input_psi:1h{{{CHOSEN}}}"
                " / (job_version_field:evenkeel_input_psi_null:1h > 0)",
                "{{field}}",
            ),
            text="1 is what chance makes; the field that moved stands out",
        ),
        _lines(
            "Jensen–Shannon divergence by field",
            (f"job_version_field:evenkeel_input_js:1h{{{CHOSEN}}}", "{{field}}"),
            unit="bits",
        ),
        _bars(
            "$field of the last hour against the reference",
            "bin",
            (f'sum by (bin) (job_version_field_bin:evenkeel_input_share:1h{{{CHOSEN}, field="$field"}})', "live"),
            (
                f'max by (bin) (job_version_field_bin:evenkeel_reference_input_share:1h{{{CHOSEN}, field="$field"}})',
                "reference",
            ),
            unit="percentunit",
        ),
        _lines(
            "Values outside the training rows",
            (f"sum by (field) (rate(evenkeel_input_warnings_total{{{CHOSEN}}}[$__rate_interval]))", "{{field}}"),
            unit="cps",
        ),
    ]


def _calibration() -> list[Any]:
    return [
        _bars(
            "Reliability, outcomes of the last day",
            "bin",
            (f"max by (bin) (job_version_bin:evenkeel_outcome_mean_probability:1d{{{CHOSEN}}})", "predicted"),
            (f"max by (bin) (job_version_bin:evenkeel_outcome_rate:1d{{{CHOSEN}}})", "survived"),
            unit="percentunit",
            text="Two bars of a height are a probability that is true; empty below 200 outcomes",
        ),
        _lines(
            "Calibration error",
            (f"job_version:evenkeel_ece:1d{{{JOB}}}", "{{version}}"),
            (f"job_version:evenkeel_ece_null:1d{{{JOB}}}", "{{version}} by chance"),
            (
                f"job_version:evenkeel_ece_null:1d{{{JOB}}} + 4 * job_version:evenkeel_ece_null_deviation:1d",
                "{{version}} limit",
            ),
            unit="percentunit",
            text="Of the outcomes that came in within a day",
        ),
        _lines(
            "Accuracy, expected and actual",
            (f"job_version:evenkeel_expected_accuracy:1h{{{JOB}}}", "expected of all, 1 h"),
            (f"job_version:evenkeel_outcome_expected_accuracy:1d{{{JOB}}}", "expected of those with an outcome, 1 d"),
            (f"job_version:evenkeel_outcome_accuracy:1d{{{JOB}}}", "actual, 1 d"),
            unit="percentunit",
        ),
        _lines(
            "Survivors, expected and actual",
            (f"job_version:evenkeel_expected_prevalence:1h{{{JOB}}}", "expected of all, 1 h"),
            (f"job_version:evenkeel_outcome_expected_prevalence:1d{{{JOB}}}", "expected of those with an outcome, 1 d"),
            (f"job_version:evenkeel_outcome_prevalence:1d{{{JOB}}}", "actual, 1 d"),
            unit="percentunit",
        ),
        _lines(
            "Proper scores",
            (f"job_version:evenkeel_outcome_log_loss:1d{{{JOB}}}", "log loss {{version}}"),
            (f"job_version:evenkeel_outcome_brier:1d{{{JOB}}}", "Brier score {{version}}"),
        ),
        _lines(
            "Outcomes received",
            (f"sum by (result) (rate(evenkeel_outcomes_received_total{{{JOB}}}[$__rate_interval]))", "{{result}}"),
            unit="cps",
        ),
    ]


def _uncertainty() -> list[Any]:
    return [
        _lines(
            "Prediction sets by size",
            (f"sum by (size) (rate(evenkeel_prediction_sets_total{{{CHOSEN}}}[$__rate_interval]))", "{{size}}"),
            unit="cps",
        ),
        _lines(
            "Share that abstains",
            (f"job_version:evenkeel_abstention_share:1h{{{JOB}}}", "{{version}}"),
            unit="percentunit",
        ),
    ]


def _machine() -> list[Any]:
    def rate(series: str) -> str:
        return f"sum by (instance) (rate({series}[$__rate_interval]))"

    found = f'evenkeel_cache_lookups_total{{{JOB}, result="hit"}}'
    rows, batches = f"evenkeel_batch_rows_sum{{{JOB}}}", f"evenkeel_batch_rows_count{{{JOB}}}"
    return [
        _lines("Rows waiting", (f"evenkeel_queue_rows{{{JOB}}}", "{{instance}}")),
        _lines("Rows of an inference, mean", (f"{rate(rows)} / {rate(batches)}", "{{instance}}")),
        _lines(
            "Texts found in the cache",
            (f"{rate(found)} / {rate(f'evenkeel_cache_lookups_total{{{JOB}}}')}", "{{instance}}"),
            unit="percentunit",
        ),
        _states("Store", f"evenkeel_store_up{{{JOB}}}", "{{instance}}", bad="unusable", good="usable", bad_value=0),
        _lines("Predictions waiting for the store", (f"evenkeel_store_queue_rows{{{JOB}}}", "{{instance}}")),
        _lines(
            "Predictions logged, and not",
            (f"sum(rate(evenkeel_store_written_total{{{JOB}}}[$__rate_interval]))", "written"),
            (
                f"sum by (reason) (rate(evenkeel_store_dropped_total{{{JOB}}}[$__rate_interval]))",
                "not logged: {{reason}}",
            ),
            unit="cps",
        ),
        _lines("Duration of a write to the store", *_quantiles("evenkeel_store_write_seconds_bucket"), unit="s"),
        _lines("Predictions in the store", (f"evenkeel_store_rows{{{JOB}}}", "{{instance}}")),
        _lines("Processor", (rate(f"process_cpu_seconds_total{{{JOB}}}"), "{{instance}}"), text="Cores busy"),
        _lines("Memory", (f"process_resident_memory_bytes{{{JOB}}}", "{{instance}}"), unit="bytes"),
    ]


ROWS: dict[str, Callable[[], list[Any]]] = {
    "Overview": _overview,
    "Drift": _drift,
    "Calibration, from outcomes": _calibration,
    "Inputs": _inputs,
    "Traffic and errors": _traffic,
    "Latency": _latency,
    "Uncertainty": _uncertainty,
    "Queue, cache, store, process": _machine,
}


def _quantiles(series: str, matcher: str = "") -> list[Query]:
    selector = ", ".join(filter(None, (JOB, matcher)))
    rates = f"sum by (le) (rate({series}{{{selector}}}[$__rate_interval]))"
    return [(f"histogram_quantile({q}, {rates})", f"{q * 100:g}%") for q in (0.5, 0.95, 0.99)]


def _target(letter: str, query: Query) -> Any:
    return prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(query[0]).legend_format(query[1])


def _stat(
    title: str, expression: str, unit: str = "short", limit: float = 1, low_is_bad: bool = False, judged: bool = True
) -> Any:
    """One number; red from ``limit`` on, or below it."""
    colors = ("red", "green") if low_is_bad else ("green", "red")
    steps = [kinds.Threshold(None, colors[0] if judged else "blue")]
    steps += [kinds.Threshold(limit, colors[1])] if judged else []
    panel = stat.Panel().title(title).datasource(SOURCE).unit(unit).height(4).span(4)
    panel.thresholds(dashboard.ThresholdsConfig().mode(kinds.ThresholdsMode.ABSOLUTE).steps(steps))
    return panel.with_target(_target("A", (expression, "")).instant())


def _lines(title: str, *queries: Query, unit: str = "short", text: str = "") -> Any:
    panel = timeseries.Panel().title(title).description(text).datasource(SOURCE).unit(unit).height(HEIGHT).span(12)
    panel.legend(_legend()).tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI)).fill_opacity(5)
    for letter, query in zip("ABCDEF", queries, strict=False):
        panel.with_target(_target(letter, query).range())
    return panel


def _bars(title: str, by: str, *queries: Query, unit: str, text: str = "") -> Any:
    """Values of now, side by side, one group of bars for each value of the label ``by``."""
    panel = barchart.Panel().title(title).description(text).datasource(SOURCE).unit(unit).height(HEIGHT).span(12)
    panel.legend(_legend()).x_field(by).min(0)
    names: dict[str, str] = {}
    for letter, query in zip("ABCDEF", queries, strict=False):
        panel.with_target(_target(letter, query).instant().format(PromQueryFormat.TABLE))
        names[f"Value #{letter}"] = query[1]
    for kind, options in (
        ("joinByField", {"byField": by, "mode": "outer"}),
        ("filterFieldsByName", {"include": {"names": [by, *names]}}),
        ("organize", {"renameByName": names}),
    ):
        panel.with_transformation(kinds.DataTransformerConfig(id_val=kind, options=options))
    return panel


def _states(
    title: str, expression: str, legend: str, bad: str = "alarm", good: str = "quiet", bad_value: int = 1
) -> Any:
    """0 and 1 over time, as words."""
    words = {str(value): (bad, "red") if value == bad_value else (good, "green") for value in (0, 1)}
    mapping = kinds.ValueMap(
        options={value: kinds.ValueMappingResult(text=word, color=color) for value, (word, color) in words.items()}
    )
    panel = statetimeline.Panel().title(title).datasource(SOURCE).height(HEIGHT).span(12).mappings([mapping])
    return panel.with_target(_target("A", (expression, legend)).range())


def _legend() -> Any:
    shown = common.VizLegendOptions().show_legend(True).display_mode(shapes.LegendDisplayMode.LIST)
    return shown.placement(shapes.LegendPlacement.BOTTOM)


def render() -> str:
    """The dashboard as JSON."""
    return JSONEncoder(sort_keys=True, indent=2, ensure_ascii=False).encode(build().build()) + "\n"


def main(arguments: list[str]) -> int:
    """Write the file, or, with --check, compare; 0 when it is current."""
    if arguments == ["--check"]:
        if FILE.read_text() == render():
            return 0
        print("deploy/grafana/evenkeel.json is not what its code makes: ./run dashboard", file=sys.stderr)
        return 1
    FILE.write_text(render())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
