"""The kinds of panel: a number, lines over time, bars of now, states over time. A query is PromQL and its legend."""

from typing import Any

from grafana_foundation_sdk.builders import barchart, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common as shapes
from grafana_foundation_sdk.models import dashboard as kinds
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SOURCE = kinds.DataSourceRef(type_val="prometheus", uid="${source}")
HEIGHT = 8
Query = tuple[str, str]
"""A PromQL expression and the legend of its series."""


def number(title: str, query: str, unit: str = "short", limit: float | None = 1, low_is_bad: bool = False) -> Any:
    """One number; red from ``limit`` on, or below it."""
    colors = ("red", "green") if low_is_bad else ("green", "red")
    steps = [kinds.Threshold(None, "blue" if limit is None else colors[0])]
    steps += [] if limit is None else [kinds.Threshold(limit, colors[1])]
    panel = stat.Panel().title(title).datasource(SOURCE).unit(unit).height(4).span(4)
    panel.thresholds(dashboard.ThresholdsConfig().mode(kinds.ThresholdsMode.ABSOLUTE).steps(steps))
    return panel.with_target(_target("A", (query, "")).instant())


def lines(title: str, *queries: Query, unit: str = "short", text: str = "") -> Any:
    panel = _wide(timeseries.Panel(), title).description(text).unit(unit).legend(_legend()).fill_opacity(5)
    panel.tooltip(common.VizTooltipOptions().mode(shapes.TooltipDisplayMode.MULTI))
    for letter, query in zip("ABCDEF", queries, strict=False):
        panel.with_target(_target(letter, query).range())
    return panel


def bars(title: str, by: str, *queries: Query, unit: str, text: str = "") -> Any:
    """Values of now, side by side, one group of bars for each value of the label ``by``."""
    panel = _wide(barchart.Panel(), title).description(text).unit(unit).legend(_legend()).x_field(by).min(0)
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


def states(title: str, query: Query, bad: str = "alarm", good: str = "quiet", bad_value: int = 1) -> Any:
    """0 and 1 over time, as words."""
    words = {str(value): (bad, "red") if value == bad_value else (good, "green") for value in (0, 1)}
    mapping = kinds.ValueMap(
        options={value: kinds.ValueMappingResult(text=word, color=color) for value, (word, color) in words.items()}
    )
    return _wide(statetimeline.Panel(), title).mappings([mapping]).with_target(_target("A", query).range())


def _wide(panel: Any, title: str) -> Any:
    return panel.title(title).datasource(SOURCE).height(HEIGHT).span(12)


def _target(letter: str, query: Query) -> Any:
    return prometheus.Dataquery().ref_id(letter).datasource(SOURCE).expr(query[0]).legend_format(query[1])


def _legend() -> Any:
    shown = common.VizLegendOptions().show_legend(True).display_mode(shapes.LegendDisplayMode.LIST)
    return shown.placement(shapes.LegendPlacement.BOTTOM)
