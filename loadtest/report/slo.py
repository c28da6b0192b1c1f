"""Service-level objectives: the limits of a scenario, held against what was measured."""

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


class PercentileLimits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Limits on the latency of one kind of request."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


class SloLimits(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
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
    predict: PercentileLimits | None = None
    batch: PercentileLimits | None = None
    outcomes: PercentileLimits | None = None
    invalid: PercentileLimits | None = None
    page: PercentileLimits | None = None
    metrics: PercentileLimits | None = None


class SloCheck(Struct, frozen=True):
    """One limit, what was measured, whether it was kept."""

    name: str
    limit: float
    measured: float
    kept: bool


def read_limits(scenario: str, path: Path = LIMITS) -> SloLimits:
    """The scenario's limits, those of [default] where it names none; raises ValueError naming what is not one."""
    with path.open("rb") as file:
        tables: dict[str, Any] = tomllib.load(file)
    try:
        return msgspec.convert(tables.get("default", {}) | tables.get(scenario, {}), SloLimits)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path.name}, [{scenario}]: {error}") from error


def check_slo(limits: SloLimits, measured: Mapping[str, float]) -> list[SloCheck]:
    """A row per limit. ``measured`` by the limits' names, those of a kind of request as predict.p99_ms; what was not
    measured, or is not a number, does not keep its limit."""
    rows = []
    for name, limit in _flat(limits).items():
        value = measured.get(name, math.nan)
        rows.append(SloCheck(name, limit, value, value >= limit if name in AT_LEAST else value <= limit))
    return rows


def compare(measured: Mapping[str, float], baseline: Mapping[str, float], ratio: float) -> list[SloCheck]:
    """A row per latency of both: its limit is ``ratio`` times the baseline's."""
    return [
        SloCheck(f"{name} / baseline", ratio, measured[name] / baseline[name], measured[name] <= ratio * baseline[name])
        for name in baseline
        if name.endswith("_ms") and measured.get(name, math.nan) >= 0 and baseline[name] > 0
    ]


def table(rows: Sequence[SloCheck]) -> str:
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


def _flat(limits: SloLimits) -> dict[str, float]:
    """The limits that are set, those of a kind of request as predict.p99_ms."""
    flat: dict[str, float] = {}
    for name, value in msgspec.to_builtins(limits).items():
        flat |= {f"{name}.{part}": limit for part, limit in value.items()} if isinstance(value, dict) else {name: value}
    return flat
