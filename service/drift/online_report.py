"""What the online step did, for the drift report."""

from collections.abc import Sequence
from datetime import UTC, datetime

from msgspec import Struct

from models.calibration.adaptive_sets import bound
from service.online.recalibration import OnlineRecalibration


class ThresholdReport(Struct, frozen=True):
    """A class's thresholds: what was added to them, after so many outcomes of the class, the share of these that the
    set missed, null without any, and how far it can be from ``allowed``, 1 − coverage, whatever comes."""

    shift: float
    outcomes: int
    missed: float | None
    allowed: float
    bound: float | None


class OnlineReport(Struct, frozen=True, kw_only=True):
    """The online step: served log-odds are ``slope`` · z + ``offset``, z the bundle's, learnt from so many ``outcomes``
    ``since`` then (RFC 3339). ``log_loss`` is the mean of these outcomes, each by the step as it was before it came,
    and ``bundle_log_loss`` that of the bundle's own probabilities (nats); all null before the first
    outcome. ``thresholds`` of the prediction sets are by class."""

    offset: float
    slope: float
    outcomes: int
    since: str | None
    log_loss: float | None
    bundle_log_loss: float | None
    thresholds: dict[str, ThresholdReport]
    summary: str


def online_report(recalibration: OnlineRecalibration, classes: Sequence[str]) -> OnlineReport:
    """In words and numbers."""
    online = recalibration.state.platt
    known = online.outcomes > 0
    since = datetime.fromtimestamp(online.since, UTC).isoformat(timespec="seconds") if online.since else None
    before, after = (
        total / online.outcomes if known else None for total in (online.log_loss_before, online.log_loss_after)
    )
    if before is None or after is None:
        summary = "no outcome yet: the bundle's own probabilities are served"
    else:
        summary = (
            f"served log-odds are {online.slope:.2f} times the bundle's {online.offset:+.2f}, learnt from "
            f"{online.outcomes} outcomes since {since}; over these the log loss was {after:.4f}, {before:.4f} without"
        )
    return OnlineReport(
        offset=online.offset, slope=online.slope, outcomes=online.outcomes, since=since, log_loss=after,
        bundle_log_loss=before, thresholds=_thresholds(recalibration, classes), summary=summary,
    )  # fmt: skip


def _thresholds(recalibration: OnlineRecalibration, classes: Sequence[str]) -> dict[str, ThresholdReport]:
    sets, allowed = recalibration.state.sets, 1 - recalibration.coverage
    columns = zip(classes, sets.shifts, sets.outcomes, sets.missed, recalibration.by_class, strict=True)
    return {
        name: ThresholdReport(
            shift, outcomes, missed / outcomes if outcomes else None, allowed,
            bound(list(own), outcomes) if outcomes else None,
        )
        for name, shift, outcomes, missed, own in columns
    }  # fmt: skip
