"""Drift tests → a report that tells three causes apart: the mix of passengers, the base rate, the calibration."""

import math
from datetime import UTC, datetime

import numpy as np

from models.passenger import INPUT_BINS
from models.reference import PROBABILITY_BINS, bin_names
from service.drift.label_free import (
    expected_accuracy,
    expected_prevalence,
    prevalence_differs,
    shift_fit,
    shifted_prevalence,
    stability_index,
    tenth_means,
)
from service.drift.monitor import STREAMS, Drift
from service.routes.schemas import (
    BinShares,
    CauseReport,
    Distribution,
    DriftReport,
    LabelFreeEstimates,
    OutcomeBin,
    StreamReport,
)

MIN_ROWS = 100
"""Fewer recent rows than these say nothing about a prevalence."""
MIN_FIT = 0.01
"""Below this p-value a prior shift does not explain the probabilities."""
SHOWN_FIELDS = 3
NOUN = {"prediction": "prediction", "input": "prediction", "calibration": "outcome"}


def report(drift: Drift) -> DriftReport:
    """The whole report, computed when asked for."""
    counts, fine_counts, fine_sums = drift.recent()
    distributions = _distributions(drift, counts)
    estimates = _estimates(drift, counts[0], fine_counts, fine_sums)
    streams = [_stream(drift, stream) for stream in STREAMS]
    causes = [_mix(drift, distributions), _base_rate(drift, estimates), _calibration(drift)]
    return DriftReport(
        version=drift.version, run_length=drift.run_length, summary=_summary(streams, causes), streams=streams,
        causes=causes, estimates=estimates, distributions=distributions, reliability=_reliability(drift),
    )  # fmt: skip


def _stream(drift: Drift, stream: str) -> StreamReport:
    latch, seen, rate = drift.alarms.get(stream), drift.seen[stream], drift.rows_per_second(stream)
    days = drift.run_length / rate / 86400 if rate > 0 else None
    since = _time(latch.since) if latch else None
    noun = NOUN[stream]
    state = f"alarm since {noun} {latch.at} at {since}" if latch else f"no alarm in {seen} {noun}s"
    price = f"one false alarm in about {_days(days)} at the {rate:.3g} {noun}s/s seen" if days else "no traffic yet"
    return StreamReport(
        stream=stream, alarm=latch is not None, since=since, at=latch.at if latch else None,
        field=latch.field if latch else None, log_evidence=drift.log_evidence(stream), threshold=drift.threshold,
        seen=seen, days_to_false_alarm=days, summary=f"{state}; {price}",
        history=[(row, round(math.log1p(evidence), 3)) for row, evidence in drift.traces[stream].points],
    )  # fmt: skip


def _distributions(drift: Drift, counts: np.ndarray) -> list[Distribution]:
    names = {"probability": PROBABILITY_BINS} | {bins.field: bin_names(bins) for bins in INPUT_BINS}
    found = []
    for (variable, bins), live, reference in zip(names.items(), counts, drift.reference_counts, strict=True):
        index, expected = stability_index(live, reference)
        live_shares, shares = live / max(live.sum(), 1), reference / reference.sum()
        found.append(
            Distribution(
                variable=variable, rows=int(live.sum()), reference_rows=drift.reference.rows, stability_index=index,
                expected_stability_index=expected,
                bins=[BinShares(name, float(q), float(r))
                      for name, q, r in zip(bins, live_shares, shares, strict=False)],
            )
        )  # fmt: skip
    return found


def _estimates(drift: Drift, live: np.ndarray, counts: np.ndarray, sums: np.ndarray) -> LabelFreeEstimates | None:
    if live.sum() < MIN_ROWS:
        return None
    served, baseline, training = sums, drift.training_prevalence, drift.training_prevalence
    if drift.prior_shift is not None:
        served = counts * drift.prior_shift.probabilities(sums / np.maximum(counts, 1))
        baseline = drift.prior_shift.target
    prevalence = shifted_prevalence(counts, sums, training)
    return LabelFreeEstimates(
        rows=int(counts.sum()), expected_accuracy=expected_accuracy(counts, served),
        expected_prevalence=expected_prevalence(counts, served), prior_shift_prevalence=prevalence,
        prior_shift_fit=shift_fit(
            live, drift.reference_counts[0], tenth_means(counts, sums), training, prevalence.value
        ), baseline_prevalence=baseline,
    )  # fmt: skip


def _reliability(drift: Drift) -> list[OutcomeBin]:
    return [
        OutcomeBin(name, int(outcomes), int(survived), total / outcomes if outcomes else None)
        for name, (outcomes, survived, total) in zip(PROBABILITY_BINS, drift.outcome_tenths.tolist(), strict=True)
    ]


def _mix(drift: Drift, distributions: list[Distribution]) -> CauseReport:
    alarms = [
        f"the {stream} test alarmed at prediction {latch.at}" + (f", {latch.field} most of all" if latch.field else "")
        for stream in ("prediction", "input")
        if (latch := drift.alarms.get(stream))
    ]
    if not drift.seen["input"]:
        return CauseReport("mix", None, "nothing was predicted yet")
    if not alarms:
        return CauseReport("mix", False, "neither inputs nor predictions have departed from the reference")
    far = sorted(distributions, key=lambda one: one.expected_stability_index - one.stability_index)[:SHOWN_FIELDS]
    shown = ", ".join(
        f"{one.variable} (index {one.stability_index:.3f}, {one.expected_stability_index:.3f} expected)" for one in far
    )
    return CauseReport("mix", True, f"{'; '.join(alarms)}. Farthest from the reference lately: {shown}")


def _base_rate(drift: Drift, estimates: LabelFreeEstimates | None) -> CauseReport:
    if estimates is None:
        return CauseReport("base_rate", None, f"fewer than {MIN_ROWS} recent predictions")
    live, baseline, fit = estimates.prior_shift_prevalence, estimates.baseline_prevalence, estimates.prior_shift_fit
    low, high = live.interval
    told = f"estimated share of survivors {live.value:.3f} ({low:.3f}–{high:.3f}), served for {baseline:.3f}"
    if "calibration" in drift.alarms:
        return CauseReport("base_rate", None, f"{told}, but from probabilities that the outcomes contradict")
    if not prevalence_differs(live, baseline, drift.reference.rows):
        return CauseReport("base_rate", False, told)
    if fit < MIN_FIT:
        return CauseReport("base_rate", False, f"{told}, but no base rate explains the probabilities (p = {fit:.2g})")
    return CauseReport(
        "base_rate", True,
        f"{told}, and that explains the probabilities (p = {fit:.2g}), if passengers of either fate look as they did; "
        f"--target-prevalence {live.value:.2f} would serve for it",
    )  # fmt: skip


def _calibration(drift: Drift) -> CauseReport:
    seen = drift.seen["calibration"]
    if latch := drift.alarms.get("calibration"):
        return CauseReport(
            "calibration", True,
            f"outcome {latch.at} made it: rates are more than {drift.dead_band:g} away from the probabilities",
        )  # fmt: skip
    if not seen:
        return CauseReport("calibration", None, "no outcomes have come in, and nothing else can tell")
    return CauseReport(
        "calibration", False, f"{seen} outcomes do not contradict a calibration within ±{drift.dead_band:g}"
    )


def _summary(streams: list[StreamReport], causes: list[CauseReport]) -> str:
    words = {
        "mix": "the mix of passengers moved", "base_rate": "the base rate moved", "calibration": "the calibration broke"
    }  # fmt: skip
    found = [words[one.cause] for one in causes if one.found]
    if not any(one.alarm for one in streams):
        hint = f", though without an alarm it seems that {' and '.join(found)}" if found else ""
        return f"no drift test alarms{hint}"
    caveat = "" if "calibration" in [one.cause for one in causes if one.found] else (
        "; estimates without outcomes are right only while calibration holds"
    )  # fmt: skip
    return " and ".join(found) + caveat


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _days(days: float) -> str:
    return f"{days:.1f} days" if days < 100 else f"{days / 365.25:.1f} years"
