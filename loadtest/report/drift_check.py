"""Whether the service's drift tests notice that the mix of rows changed, and not before."""

import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

LOGGER = logging.getLogger("evenkeel")


class DriftWatch:
    """Raises ValueError at the start when an alarm stands already: at the end it would mean nothing."""

    def __init__(self, report: Callable[[], Any]):
        self._report = report
        self._shift: datetime | None = None
        latched = [one["stream"] for one in report()["streams"] if one["alarm"]]
        if latched:
            raise ValueError(
                f"already alarmed: {', '.join(latched)}; POST {{}} as JSON to /v1/drift/acknowledge, then try again"
            )

    def note_shift(self, run: Any) -> None:
        """Wait for the time when the mix changes, and keep it."""
        time.sleep(max(run.shift_at - run.now(), 0))
        # The service gives the time of an alarm in whole seconds.
        self._shift = datetime.now(UTC).replace(microsecond=0)
        LOGGER.info("the mix changes")

    def verdict(self) -> dict[str, float]:
        """``alarms_before_shift``, ``alarms_after_shift``: streams that alarmed then."""
        found = self._report()
        LOGGER.info("drift: %s", found["summary"])
        alarmed = {one["stream"]: datetime.fromisoformat(one["since"]) for one in found["streams"] if one["alarm"]}
        shift = self._shift or datetime.max.replace(tzinfo=UTC)
        for stream, since in alarmed.items():
            LOGGER.info("%s alarmed %.0f s after the mix changed", stream, (since - shift).total_seconds())
        early = sum(since < shift for since in alarmed.values())
        return {"alarms_before_shift": float(early), "alarms_after_shift": float(len(alarmed) - early)}
