"""Every PromQL expression of deploy/: where it stands, and its text."""

import json
import re
from typing import Any

import yaml

from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
VARIABLES = {"$__rate_interval": "1m", "$field": "sex", "$job": ".+"}
WORD = r"[a-zA-Z_:][a-zA-Z0-9_:]*"


def rules() -> list[dict[str, Any]]:
    """All recording and alerting rules."""
    files = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
    return [rule for file in files for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]


def alerts() -> list[dict[str, Any]]:
    return [rule for rule in rules() if "alert" in rule]


def panels() -> list[tuple[str, str]]:
    """Panel and expression of each query of the dashboard."""
    board = json.loads((DEPLOY / "grafana" / "evenkeel.json").read_text())
    found = [(panel["title"], one["expr"]) for panel in board["panels"] for one in panel.get("targets", [])]
    return found + [("annotations", one["expr"]) for one in board["annotations"]["list"]]


def with_values(expression: str, version: str) -> str:
    """A panel's expression as Grafana sends it."""
    for name, value in {**VARIABLES, "$version": version}.items():
        expression = expression.replace(name, value)
    assert "$" not in expression
    return expression


def selectors(expression: str) -> list[tuple[str, set[str], dict[str, str]]]:
    """Each series that an expression asks for: its name, the labels matched, and values that are matched exactly."""
    found = []
    for name, matchers in re.findall(
        rf"((?:{WORD})?(?:evenkeel_|process_)[a-zA-Z0-9_:]*)\s*(?:{{([^}}]*)}})?", expression
    ):
        pairs = re.findall(rf'({WORD})\s*(=~|!~|!=|=)\s*"([^"]*)"', matchers)
        exact = {label: value for label, operator, value in pairs if operator == "=" and "$" not in value}
        found.append((name, {label for label, _, _ in pairs}, exact))
    return found


def grouping_labels(expression: str) -> set[str]:
    """The labels that an expression groups or matches by."""
    lists = re.findall(r"\b(?:by|on|without|ignoring|group_left|group_right)\s*\(([^)]*)\)", expression)
    return {label.strip() for one in lists for label in one.split(",") if label.strip()}
