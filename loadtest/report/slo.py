"""Limits of a scenario, what was measured, and the verdict."""

import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

LIMITS = Path(__file__).parents[1] / "slo.toml"

AT_LEAST = ("answered_per_second", "knee_rate", "versions_seen", "alarms_after_shift")
"""Limits that are not to be fallen short of; all others are not to be exceeded."""

Milliseconds = float


class Percentiles(Struct, frozen=True, forbid_unknown_fields=True):
    """Limits on the latency of one kind of request."""

    p50_ms: Milliseconds | None = None
    p95_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None


class Limits(Struct, frozen=True, forbid_unknown_fields=True):
    """What a scenario must keep to; None: no limit."""

    error_rate: float | None = None
    refused_share: float | None = None
    late_share: float | None = None
    wrong_answers: int | None = None
    refused_p95_ms: float | None = None
    recovery_seconds: float | None = None
    memory_growth_mb: float | None = None
    answered_per_second: float | None = None
    knee_rate: float | None = None
    versions_seen: int | None = None
    alarms_before_shift: int | None = None
    alarms_after_shift: int | None = None
    predict: Percentiles | None = None
    batch: Percentiles | None = None
    outcomes: Percentiles | None = None
    invalid: Percentiles | None = None
    page: Percentiles | None = None
    metrics: Percentiles | None = None


class Row(Struct, frozen=True):
    """One limit, what was measured, whether it was kept."""

    name: str
    limit: float
    measured: float
    kept: bool


def read_limits(scenario: str, path: Path = LIMITS) -> Limits:
    """The scenario's limits, those of [default] where it names none; raises ValueError naming what is not one."""
    with path.open("rb") as file:
        tables: dict[str, Any] = tomllib.load(file)
    try:
        return msgspec.convert(tables.get("default", {}) | tables.get(scenario, {}), Limits)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path.name}, [{scenario}]: {error}") from error


def judge(limits: Limits, measured: Mapping[str, float]) -> list[Row]:
    """A row per limit. ``measured`` by the limits' names, those of a kind of request as predict.p99_ms; what was not
    measured, or is not a number, does not keep its limit."""
    rows = []
    for name, limit in _flat(limits).items():
        found = measured.get(name, math.nan)
        rows.append(Row(name, limit, found, found >= limit if name in AT_LEAST else found <= limit))
    return rows


def compare(measured: Mapping[str, float], baseline: Mapping[str, float], ratio: float) -> list[Row]:
    """A row per latency of both: its limit is ``ratio`` times the baseline's."""
    return [
        Row(f"{name} / baseline", ratio, measured[name] / baseline[name], measured[name] <= ratio * baseline[name])
        for name in baseline
        if name.endswith("_ms") and measured.get(name, math.nan) >= 0 and baseline[name] > 0
    ]


def table(rows: Sequence[Row]) -> str:
    """The rows for a terminal."""
    if not rows:
        return "no limits"
    width = max(len(row.name) for row in rows)
    lines = [f"{'':{width}}  {'limit':>10}  {'measured':>10}  verdict"]
    for row in rows:
        sign = "≥" if row.name in AT_LEAST else "≤"
        limit, said = f"{sign}{row.limit:g}", "kept" if row.kept else "FAILED"
        lines.append(f"{row.name:{width}}  {limit:>10}  {row.measured:>10.4g}  {said}")
    return "\n".join(lines)


def _flat(limits: Limits) -> dict[str, float]:
    flat: dict[str, float] = {}
    for name in limits.__struct_fields__:
        value = getattr(limits, name)
        if isinstance(value, Percentiles):
            flat |= {
                f"{name}.{one}": limit for one in value.__struct_fields__ if (limit := getattr(value, one)) is not None
            }
        elif value is not None:
            flat[name] = value
    return flat
