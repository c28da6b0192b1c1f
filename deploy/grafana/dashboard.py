"""The Grafana dashboard, as code: python -m deploy.grafana.dashboard writes evenkeel.json beside this file.

With --check it writes nothing and fails if the file is not what this code makes.
"""

import sys
from itertools import count
from pathlib import Path
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as kinds

from deploy.grafana.panels import SOURCE
from deploy.grafana.rows import OF_JOB, OF_VERSION, ROWS

FILE = Path(__file__).with_name("evenkeel.json")


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
    versions = f"label_values(evenkeel_reference_rows{OF_JOB}, version)"
    return [
        dashboard.DatasourceVariable("source").label("Prometheus").type("prometheus"),
        _variable("job", "label_values(evenkeel_reference_rows, job)").include_all(True).all_value(".+").multi(True),
        _variable("version", versions),
        _variable("field", f"label_values(evenkeel_reference_input_proportion{OF_VERSION}, field)"),
        # The class that probabilities are of.
        _variable("outcome", f"query_result(evenkeel_outcome_class{OF_VERSION} == 1)")
        .regex('/outcome="([^"]*)"/')
        .hide(kinds.VariableHide.HIDE_VARIABLE),
    ]


def _variable(name: str, query: str) -> Any:
    refresh = kinds.VariableRefresh.ON_TIME_RANGE_CHANGED
    return dashboard.QueryVariable(name).label(name).datasource(SOURCE).query(query).refresh(refresh)


def _alerts() -> Any:
    expression = 'ALERTS{alertname=~"Evenkeel.*", alertstate="firing"}'
    return dashboard.AnnotationQuery().name("alerts").datasource(SOURCE).enable(True).icon_color("red").expr(expression)


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
