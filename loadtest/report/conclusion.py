"""The end of a run: limits are held against what was measured, and the report is written."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from loadtest.report import page as report
from loadtest.report.recording import Recording
from loadtest.report.server_series import Scrape, window
from loadtest.report.slo import LIMITS, check_slo, compare, read_limits, table
from loadtest.report.summary import (
    RateCheck,
    Summary,
    fit_capacity,
    generator,
    measure,
    percentiles_csv,
    recovery_seconds,
    to_json,
    where_time_went,
)
from loadtest.traffic.corpus import RESULTS
from loadtest.traffic.scenarios import Stage

LOGGER = logging.getLogger("evenkeel")


class RunInfo(Struct, kw_only=True):
    """What was run, and how far it got."""

    scenario: str
    host: str
    started: str
    seconds: float
    arrivals: str
    load_average: tuple[float, float]
    complete: bool = True
    stages: list[Stage] = []
    knee: float | None = None
    spike: tuple[float, float] | None = None
    alarms: dict[str, float] | None = None
    max_batch_rows: int = 64
    kinds: list[str] = []


def conclude(
    info: RunInfo, recording: Recording, scrapes: list[Scrape], *, limits: Path = LIMITS, baseline: str = "",
    ratio: float = 1.5, results: str = "",
) -> Summary:  # fmt: skip
    """Check the limits, write report.html, summary.json and percentiles.csv, and print the verdict."""
    summary = summarise(info, recording, scrapes)
    summary.verdict = [
        row
        for row in check_slo(read_limits(info.scenario, limits), summary.measured)
        # Of a mix of one's own, what was not asked for has no latency.
        if "." not in row.name or not info.kinds or row.name.partition(".")[0] in info.kinds
    ]
    if baseline:
        summary.verdict += compare(summary.measured, read_measured(Path(baseline)), ratio)
    # An answer that is not right fails a run, whatever a file of limits says.
    kept = all(row.kept for row in summary.verdict) and not summary.measured["wrong_answers"]
    summary.passed = kept and info.complete
    folder = Path(results) if results else RESULTS / f"{time.strftime('%Y%m%d-%H%M%S')}-{info.scenario}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "summary.json").write_bytes(to_json(summary))
    (folder / "percentiles.csv").write_text(percentiles_csv(recording))
    (folder / "report.html").write_text(report.page(summary, recording, scrapes))
    print(text(summary), f"{folder / 'report.html'}", sep="\n", flush=True)
    return summary


def summarise(info: RunInfo, recording: Recording, scrapes: list[Scrape]) -> Summary:
    """All figures, without a verdict."""
    whole, measured = recording.between(), measure(recording, scrapes)
    if info.spike:
        measured["recovery_seconds"] = recovery_seconds(recording, int(info.spike[0]), math.ceil(info.spike[1]))
    model, checks = None, list[RateCheck]()
    if info.knee is not None:
        measured["knee_rate"] = info.knee
        try:
            model, checks = fit_capacity(recording, scrapes, info.stages, info.knee, info.max_batch_rows)
        except ValueError as error:
            LOGGER.warning("%s", error)
    return Summary(
        scenario=info.scenario, host=info.host, started=info.started, seconds=info.seconds, arrivals=info.arrivals,
        complete=info.complete, requests=whole.requests, answers_checked=sum(recording.versions.values()),
        measured=measured | (info.alarms or {}), versions=recording.versions, faults=recording.faults,
        unanswered=recording.unanswered, time_ms=where_time_went(recording, scrapes),
        server=window(scrapes[0], scrapes[-1]) if len(scrapes) > 1 else None, generator=generator(recording),
        load_average=info.load_average, stages=info.stages, knee_rate=info.knee, model=model, checks=checks,
    )  # fmt: skip


def read_measured(path: Path) -> dict[str, float]:
    """The figures of an earlier run's summary.json."""
    found: dict[str, Any] = msgspec.json.decode(path.read_bytes())["measured"]
    return {name: value for name, value in found.items() if value is not None}


def text(summary: Summary) -> str:
    """The verdict for a terminal."""
    made = summary.generator
    lines = [
        f"{summary.scenario}: {summary.requests:,} requests in {summary.seconds:.0f} s ({summary.arrivals}); "
        f"{summary.answers_checked:,} predictions checked, {summary.measured['wrong_answers']:.0f} wrong",
        "",
        table(summary.verdict),
        "",
    ]
    lines += [f"fault: {one}" for one in summary.faults[:5]]
    if summary.time_ms:
        lines.append("a single prediction's mean time: " + ", ".join(
            f"{place} {ms:.1f} ms" for place, ms in summary.time_ms.items()))  # fmt: skip
    if summary.server:
        lines.append(
            f"service: batches of {summary.server.batch_rows:.1f} rows, {summary.server.hit_share:.0%} of the texts "
            f"from the cache, {summary.server.busy_share:.0%} of the inference threads' time used, "
            f"{summary.server.cpu_cores:.2f} cores"
        )
    lines.append(
        f"generator: {made.cpu_cores:.2f} cores at {made.requests_per_second:.0f} requests/s, late by "
        f"{made.late_p99_ms:.1f} ms (p99)"
        + (f"; THE BOTTLENECK: {made.bottleneck}" if made.bottleneck else "; not the bottleneck")
    )
    lines.append(f"load average: {summary.load_average[0]:.2f} before, {summary.load_average[1]:.2f} after")
    if summary.model:
        lines.append(capacity_text(summary))
    lines.append("PASSED" if summary.passed else "FAILED" if summary.complete else "STOPPED before its end: no verdict")
    return "\n".join(lines)


def capacity_text(summary: Summary) -> str:
    """The model and its errors."""
    model = summary.model
    assert model is not None
    lines = [
        f"capacity: knee at {summary.knee_rate:.1f} requests/s; an inference takes {model.a_ms:.2f} ms and "
        f"{model.b_ms:.2f} ms a row, {model.workers} at a time, at most {model.max_rate:.0f} rows/s"
    ]
    for one in summary.checks:
        tail = (
            f"p99 {one.predicted.p99_ms:.0f} ms predicted, {one.p99_ms:.0f} measured ({one.p99_error:+.0%})"
            if math.isfinite(one.predicted.p99_ms)
            else f"p99 unbounded predicted, {one.p99_ms:.0f} ms measured"
        )
        lines.append(
            f"  {one.rate:.1f}/s: {one.predicted.throughput:.1f}/s predicted, {one.throughput:.1f} measured "
            f"({one.throughput_error:+.0%}); {tail}"
        )
    return "\n".join(lines)
