"""Drift tests → a report that tells three causes apart: the mix of rows, the base rate, the calibration."""

import math
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from msgspec import UNSET, Struct, UnsetType

from models.reference import PROBABILITY_BINS
from service.drift.estimates import MIN_ROWS, Estimated, LabelFreeEstimates, estimate
from service.drift.label_free import stability_index
from service.drift.monitor import STREAMS, DriftMonitor
from service.drift.online_report import OnlineReport, online_report
from service.reliability.report import ReliabilityReport, reliability_report

MIN_FIT = 0.01
"""Below this p-value a prior shift does not explain the probabilities."""
SHOWN_FIELDS = 3
NOUN = {"prediction": "prediction", "input": "prediction", "calibration": "outcome"}


class StreamReport(Struct, frozen=True, kw_only=True):
    """One drift test. ``since`` (RFC 3339) and ``at`` tell when and at which of its rows it alarmed; ``field`` is the
    input field that spoke most then. It alarms when ``log_evidence`` reaches ``threshold``; ``days_to_false_alarm`` is
    what the run length means at this process's traffic. ``history`` is the course since the process started: (row,
    highest log evidence since the point before), at most 120 points."""

    stream: str
    alarm: bool
    since: str | None
    at: int | None
    field: str | None
    log_evidence: float
    threshold: float
    seen: int
    days_to_false_alarm: float | None
    summary: str
    history: list[tuple[int, float]]


class CauseReport(Struct, frozen=True):
    """Whether this is what changed, null where it is not known, and why."""

    cause: Literal["mix", "base_rate", "calibration"]
    found: bool | None
    evidence: str


class BinShares(Struct, frozen=True):
    """A bin's share among the recent rows and among the reference's."""

    bin: str
    live: float
    reference: float


class Distribution(Struct, frozen=True, kw_only=True):
    """A variable lately, against the reference. ``expected_stability_index`` is the mean while nothing changed."""

    variable: str
    rows: int
    reference_rows: int
    stability_index: float
    expected_stability_index: float
    bins: list[BinShares]


class OutcomeBin(Struct, frozen=True):
    """The outcomes of what was predicted in a tenth of a class's probability, of two classes the positive one's: how
    many, how many were of that class, and the bundle's mean probability of it for them, null without any."""

    bin: str
    outcomes: int
    positive: int
    probability: float | None


class DriftReport(Struct, frozen=True, kw_only=True):
    """What has changed since training, in words and numbers. ``reliability`` is of all outcomes of this version.
    ``positive`` names the class whose probabilities and shares these are. Of more than two classes there are, in their
    place, ``reliabilities`` by class, and ``confusion``: outcomes by class, then by the predicted one. ``by_group``
    says for whom the calibration broke. ``online`` is there where the service recalibrates; all else is of the bundle's
    own probabilities."""

    version: str
    run_length: float
    summary: str
    positive: str | UnsetType = UNSET
    streams: list[StreamReport]
    causes: list[CauseReport]
    estimates: LabelFreeEstimates | None
    distributions: list[Distribution]
    reliability: list[OutcomeBin] | UnsetType = UNSET
    reliabilities: dict[str, list[OutcomeBin]] | UnsetType = UNSET
    confusion: dict[str, dict[str, int]] | UnsetType = UNSET
    by_group: ReliabilityReport
    online: OnlineReport | UnsetType = UNSET


def report(drift: DriftMonitor) -> DriftReport:
    """The whole report, computed when asked for."""
    counts = drift.recent_counts()
    distributions = _distributions(drift, counts)
    estimated = estimate(drift, counts[0][: len(drift.reference.probability_counts)])
    streams = [_stream(drift, stream) for stream in STREAMS]
    by_group = reliability_report(drift.groups)
    causes = [_mix(drift, distributions), _base_rate(drift, estimated), _calibration(drift, by_group)]
    return DriftReport(
        version=drift.version, run_length=drift.run_length, summary=_summary(streams, causes, drift.schema.plural),
        streams=streams, causes=causes, estimates=estimated.estimates if estimated else None,
        distributions=distributions, by_group=by_group,
        online=UNSET if drift.online is None else online_report(drift.online, drift.schema.classes),
        **_by_class(drift),
    )  # fmt: skip


def _stream(drift: DriftMonitor, stream: str) -> StreamReport:
    alarm, seen, rate = drift.alarms.get(stream), drift.seen[stream], drift.rows_per_second(stream)
    days = drift.run_length / rate / 86400 if rate > 0 else None
    since = _time(alarm.since) if alarm else None
    noun = NOUN[stream]
    state = f"alarm since {noun} {alarm.at} at {since}" if alarm else f"no alarm in {seen} {noun}s"
    price = f"one false alarm in about {_days(days)} at the {rate:.3g} {noun}s/s seen" if days else "no traffic yet"
    return StreamReport(
        stream=stream, alarm=alarm is not None, since=since, at=alarm.at if alarm else None,
        field=alarm.field if alarm else None, log_evidence=drift.log_evidence(stream), threshold=drift.threshold,
        seen=seen, days_to_false_alarm=days, summary=f"{state}; {price}",
        history=[(row, round(math.log1p(evidence), 3)) for row, evidence in drift.histories[stream].points],
    )  # fmt: skip


def _distributions(drift: DriftMonitor, counts: np.ndarray) -> list[Distribution]:
    # Pairs: a field may be called probability too.
    names = [("probability", drift.cells.names), *((bins.field, bins.names) for bins in drift.schema.input_bins)]
    distributions = []
    for (variable, bins), live, reference in zip(names, counts, drift.reference_counts, strict=True):
        index, expected = stability_index(live, reference)
        live_shares, shares = live / max(live.sum(), 1), reference / reference.sum()
        distributions.append(
            Distribution(
                variable=variable, rows=int(live.sum()), reference_rows=drift.reference.rows, stability_index=index,
                expected_stability_index=expected,
                bins=[BinShares(name, float(q), float(r))
                      for name, q, r in zip(bins, live_shares, shares, strict=False)],
            )
        )  # fmt: skip
    return distributions


def _reliability(tenths: np.ndarray) -> list[OutcomeBin]:
    """`OutcomeCounts.tenths` of one class, (10, 3)."""
    return [
        OutcomeBin(name, int(outcomes), int(positive), total / outcomes if outcomes else None)
        for name, (outcomes, positive, total) in zip(PROBABILITY_BINS, tenths.tolist(), strict=True)
    ]


def _by_class(drift: DriftMonitor) -> dict[str, Any]:
    """What of the report is said of the positive of two classes, or of each of more."""
    counts, classes = drift.outcome_counts, drift.schema.classes
    if counts.confusion is None:
        return {"positive": drift.schema.positive, "reliability": _reliability(counts.tenths)}
    confusion = counts.confusion.astype(int).tolist()
    return {
        "reliabilities": dict(zip(classes, map(_reliability, counts.tenths), strict=True)),
        "confusion": {name: dict(zip(classes, row, strict=True)) for name, row in zip(classes, confusion, strict=True)},
    }


def _mix(drift: DriftMonitor, distributions: list[Distribution]) -> CauseReport:
    alarms = [
        f"the {stream} test alarmed at prediction {alarm.at}" + (f", {alarm.field} most of all" if alarm.field else "")
        for stream in ("prediction", "input")
        if (alarm := drift.alarms.get(stream))
    ]
    if not drift.seen["input"]:
        return CauseReport("mix", None, "nothing was predicted yet")
    if not alarms:
        return CauseReport("mix", False, "neither inputs nor predictions have departed from the reference")
    far = sorted(distributions, key=lambda d: d.expected_stability_index - d.stability_index)[:SHOWN_FIELDS]
    shown = ", ".join(
        f"{d.variable} (index {d.stability_index:.3f}, {d.expected_stability_index:.3f} expected)" for d in far
    )
    return CauseReport("mix", True, f"{'; '.join(alarms)}. Farthest from the reference lately: {shown}")


def _base_rate(drift: DriftMonitor, estimated: Estimated | None) -> CauseReport:
    if estimated is None:
        return CauseReport("base_rate", None, f"fewer than {MIN_ROWS} recent predictions")
    (name, live, baseline), fit = estimated.moved, estimated.estimates.prior_shift_fit
    low, high = live.interval
    share = f"estimated share of {name} {live.value:.3f} ({low:.3f}–{high:.3f}), served for {baseline:.3f}"
    if "calibration" in drift.alarms:
        return CauseReport("base_rate", None, f"{share}, but from probabilities that the outcomes contradict")
    if not estimated.differs:
        return CauseReport("base_rate", False, share)
    if fit < MIN_FIT:
        return CauseReport("base_rate", False, f"{share}, but no base rate explains the probabilities (p = {fit:.2g})")
    two = len(drift.schema.classes) == 2
    return CauseReport(
        "base_rate", True,
        f"{share}, and that explains the probabilities (p = {fit:.2g}), if {drift.schema.plural} of "
        + (f"either class look as they did; --target-prevalence {live.value:.2f} would serve for it"
           if two else "each class look as they did"),
    )  # fmt: skip


def _calibration(drift: DriftMonitor, by_group: ReliabilityReport) -> CauseReport:
    seen = drift.seen["calibration"]
    groups = f"; by group: {by_group.summary}" if by_group.broken in ("all", "group") else ""
    if alarm := drift.alarms.get("calibration"):
        return CauseReport(
            "calibration", True,
            f"outcome {alarm.at} made it: rates are more than {drift.dead_band:g} away from the probabilities{groups}",
        )  # fmt: skip
    if not seen:
        return CauseReport("calibration", None, "no outcomes have come in, and nothing else can tell")
    return CauseReport(
        "calibration", False, f"{seen} outcomes do not contradict a calibration within ±{drift.dead_band:g}{groups}"
    )


def _summary(streams: list[StreamReport], causes: list[CauseReport], rows: str) -> str:
    words = {
        "mix": f"the mix of {rows} moved", "base_rate": "the base rate moved", "calibration": "the calibration broke",
    }  # fmt: skip
    found = [cause.cause for cause in causes if cause.found]
    changes = " and ".join(words[cause] for cause in found)
    if not any(stream.alarm for stream in streams):
        return "no drift test alarms" + (f", though without an alarm it seems that {changes}" if found else "")
    caveat = "; estimates without outcomes are right only while calibration holds"
    return changes if "calibration" in found else changes + caveat


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _days(days: float) -> str:
    return f"{days:.1f} days" if days < 100 else f"{days / 365.25:.1f} years"
