"""Alarms before and after the change of the mix are told apart; one that stands already stops the run."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from loadtest.report.drift_check import DriftWatch


def report(*alarmed: datetime) -> dict[str, Any]:
    streams = [
        {"stream": f"stream {place}", "alarm": True, "since": one.isoformat()} for place, one in enumerate(alarmed)
    ]
    return {"summary": "", "streams": [*streams, {"stream": "quiet", "alarm": False, "since": None}]}


def test_alarms_are_counted_by_side_of_the_change() -> None:
    now = [report()]
    watch = DriftWatch(lambda: now[0])
    watch.note_shift(SimpleNamespace(shift_at=0.0, now=lambda: 1.0))
    at = datetime.now(UTC)
    now[0] = report(at - timedelta(seconds=9), at + timedelta(seconds=5), at + timedelta(seconds=7))
    assert watch.verdict() == {"alarms_before_shift": 1, "alarms_after_shift": 2}


def test_an_alarm_that_stands_is_told_with_what_ends_it() -> None:
    with pytest.raises(ValueError, match="already alarmed: stream 0; POST"):
        DriftWatch(lambda: report(datetime.now(UTC)))
