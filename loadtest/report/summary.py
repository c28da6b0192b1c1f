"""The figures of a run, from its recording and the service's own series."""

import csv
import io
import math
import random
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from loadtest.capacity import model as capacity
from loadtest.report.recording import Recording
from loadtest.report.server_series import Scrape, Window, window, windows
from loadtest.report.slo import SloCheck
from loadtest.traffic.scenarios import Stage

SHARES = (0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 1.0)
BUSY = 0.85
"""Share of a core from which a generator, which uses one, is taken to have been the bottleneck."""

LATE_SHARE = 0.5
"""As does a 99th percentile of its own lateness above this share of the median latency."""


class Generator(Struct, frozen=True):
    """What the load cost who made it. ``cpu_cores`` is of all its processes, ``busiest_share`` of the busiest one in
    its busiest second but nine of ten; ``late_p99_ms`` how late it sent requests by its own doing."""

    processes: int
    cpu_cores: float
    busiest_share: float
    requests_per_second: float
    cpu_ms_per_request: float
    late_p99_ms: float
    waited_p99_ms: float
    bottleneck: str


class RateCheck(Struct, frozen=True):
    """What the capacity model said of a rate that it was not fitted to, and what was measured there."""

    rate: float
    predicted: capacity.CapacityPrediction
    throughput: float
    p50_ms: float
    p99_ms: float

    @property
    def throughput_error(self) -> float:
        return self.predicted.throughput / self.throughput - 1 if self.throughput else math.nan

    @property
    def p99_error(self) -> float:
        return self.predicted.p99_ms / self.p99_ms - 1


class Summary(Struct, kw_only=True):
    """What summary.json holds. ``measured`` by the names of the limits; ``time_ms`` says where a prediction's mean
    time went."""

    scenario: str
    host: str
    started: str
    seconds: float
    complete: bool = True
    arrivals: str
    requests: int
    answers_checked: int
    measured: dict[str, float]
    verdict: list[SloCheck] = []
    passed: bool = False
    versions: dict[str, int]
    faults: list[str]
    unanswered: int
    time_ms: dict[str, float]
    server: Window | None
    generator: Generator
    load_average: tuple[float, float]
    stages: list[Stage] = []
    knee_rate: float | None = None
    model: capacity.CapacityModel | None = None
    checks: list[RateCheck] = []


def measure(recording: Recording, scrapes: Sequence[Scrape]) -> dict[str, float]:
    """Everything that a limit may name."""
    whole = recording.between()
    answers = {"wrong_answers": float(whole.count("wrong"))}
    total = whole.requests + recording.unanswered
    if total:
        answers["error_rate"] = (whole.count("error") + recording.unanswered) / total
        answers["late_share"] = whole.count("late") / total
        answers["refused_share"] = whole.count("refused") / total
        answers["answered_per_second"] = recording.rate(0, recording.seconds)
        answers["versions_seen"] = float(len(recording.versions))
    for kind in recording.kinds:
        latency = recording.between(kinds=[kind]).latency_ms
        for name, share in (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99)):
            answers[f"{kind}.{name}"] = latency.percentile(share)
    if "refused.p95_ms" in answers:
        answers["refused_p95_ms"] = answers["refused.p95_ms"]
    if len(scrapes) > 10:
        # The beginning is left out: buffers and caches are being filled.
        early = scrapes[len(scrapes) // 5].memory_bytes
        answers["memory_growth_mb"] = (max(one.memory_bytes for one in scrapes[-5:]) - early) / 1e6
    return answers


def recovery_seconds(recording: Recording, begin: int, end: int) -> float:
    """Seconds from the end of a spike until three seconds in a row have a 95th percentile below twice the one before
    ``begin``; infinite if that does not happen."""
    before = recording.between(1, begin, ["predict"]).latency_ms.percentile(0.95)
    calm = 0
    for second in range(end, recording.seconds):
        found = recording.between(second, second + 1, ["predict"]).latency_ms
        calm = calm + 1 if not found.count or found.percentile(0.95) <= 2 * before else 0
        if calm == 3:
            return float(second - 2 - end)
    return math.inf


def where_time_went(recording: Recording, scrapes: Sequence[Scrape]) -> dict[str, float]:
    """Mean milliseconds of a prediction of one row, by place, of those that were answered."""
    cell = recording.between(kinds=["predict"])
    if not cell.queue_ms.count:
        return {}
    queue, inference = cell.queue_ms.mean, cell.inference_ms.mean
    rest = cell.rest_ms.mean
    inside = window(scrapes[0], scrapes[-1]).http_ms - queue - inference if len(scrapes) > 1 else math.nan
    places = {"waiting to be sent": cell.waited_ms.mean, "queue": queue, "inference": inference}
    if 0 <= inside <= rest:
        return places | {"service's event loop": inside, "network, and generator's event loop": rest - inside}
    return places | {"network and event loops": rest}


def generator(recording: Recording) -> Generator:
    """What the load cost, and whether that was the bottleneck."""
    seconds = max(recording.seconds, 1)
    whole = recording.between()
    shares = sorted(share for series in recording.cpu.values() for share in series)
    cores = sum(sum(series) / len(series) for series in recording.cpu.values() if series)
    busiest = shares[int(0.9 * len(shares))] if shares else math.nan
    late, median = recording.late_ms.percentile(0.99), whole.latency_ms.percentile(0.5)
    bottleneck = ""
    if busiest > BUSY:
        bottleneck = f"a process of it used {busiest:.0%} of a core; use --workers"
    elif late > max(LATE_SHARE * median, 5):
        bottleneck = f"it sent 1 % of the requests {late:.0f} ms late or later, though it was not busy: the machine was"
    return Generator(
        processes=len(recording.cpu), cpu_cores=cores, busiest_share=busiest,
        requests_per_second=whole.requests / seconds,
        cpu_ms_per_request=1e3 * cores * seconds / whole.requests if whole.requests else math.nan,
        late_p99_ms=late, waited_p99_ms=whole.waited_ms.percentile(0.99), bottleneck=bottleneck,
    )  # fmt: skip


def fit_capacity(
    recording: Recording, scrapes: Sequence[Scrape], stages: Sequence[Stage], knee: float, max_batch_rows: int
) -> tuple[capacity.CapacityModel, list[RateCheck]]:
    """The capacity model of a ramp, and its error at the rates that it was not fitted to; raises ValueError."""
    fitted = [stage for stage in stages if stage.fitted]
    during = [
        window
        for window in windows(scrapes)
        if any(stage.start <= window.start and window.stop <= stage.stop + 1 for stage in fitted)
    ]
    low = fitted[: max(2, len(fitted) // 3)]
    inference, rest = recording.between(0, 0), recording.between(0, 0)
    for stage in fitted:
        if stage in low:
            inference.merge(recording.between(stage.start, stage.stop, ["predict"]))
        if stage.rate <= knee:
            rest.merge(recording.between(stage.start, stage.stop, ["predict"]))
    # A service that still loads does not say how many.
    workers = max((scrape.workers for scrape in scrapes), default=1)
    model = capacity.fit(during, inference.inference_ms, rest.rest_ms, max_batch_rows, workers)
    rng = random.Random(1)
    checks = []
    for stage in stages:
        if not stage.fitted:
            latency = recording.between(stage.start, stage.stop, ["predict"]).latency_ms
            # A queue that fills answers nothing at first.
            begin = int(stage.start) + (2 if stage.rate > knee else 0)
            predicted = capacity.predict(model, latency.count / (stage.stop - stage.start), rng)
            throughput = recording.rate(begin, int(stage.stop))
            checks.append(
                RateCheck(stage.rate, predicted, throughput, latency.percentile(0.5), latency.percentile(0.99))
            )
    return model, checks


def percentiles_csv(recording: Recording) -> str:
    """Latency in milliseconds by kind of request."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["kind", "requests", "rows", *(f"p{100 * share:g}_ms" for share in SHARES)])
    for kind in [*recording.kinds, None]:
        cell = recording.between(kinds=None if kind is None else [kind])
        values = [f"{cell.latency_ms.percentile(share):.2f}" for share in SHARES]
        writer.writerow([kind or "all", cell.requests, cell.rows, *values])
    return out.getvalue()


def to_json(summary: Summary) -> bytes:
    """The summary for people's eyes too; what is not finite is null."""
    plain: Any = msgspec.to_builtins(summary)
    return msgspec.json.format(msgspec.json.encode(plain), indent=1)
