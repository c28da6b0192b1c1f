"""What the online step did, for the drift report."""

from datetime import UTC, datetime

from msgspec import Struct

from models.calibration.online import OnlinePlatt


class OnlineReport(Struct, frozen=True, kw_only=True):
    """The online step: served log-odds are ``slope`` · z + ``offset``, z the bundle's, learnt from so many ``outcomes``
    ``since`` then (RFC 3339). ``log_loss`` is the mean of these outcomes, each by the step as it was before it came,
    and ``bundle_log_loss`` that of the bundle's own probabilities (nats); all null before the first outcome."""

    offset: float
    slope: float
    outcomes: int
    since: str | None
    log_loss: float | None
    bundle_log_loss: float | None
    summary: str


def online_report(online: OnlinePlatt) -> OnlineReport:
    """In words and numbers."""
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
        bundle_log_loss=before, summary=summary,
    )  # fmt: skip
