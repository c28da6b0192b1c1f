"""Log lines for people or for machines. No line carries a value that a row has."""

import logging
import math
import queue
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from logging.handlers import QueueHandler
from typing import Any

import msgspec

from service.http.middleware import RequestContext

LOGGER = logging.getLogger("evenkeel")
REQUESTS = logging.getLogger("evenkeel.requests")
OVERLOAD_SECONDS = 1.0
WAITING_LINES = 10_000
LOST = "%d log lines are lost: they were not read in time"
CLOSE_SECONDS = 2.0
REST_SECONDS = 0.05
"""That a line may be late."""


class _WithoutMessages(logging.Formatter):
    """Shows an exception's type and place; its message may hold what a client sent."""

    def formatException(self, ei: Any) -> str:
        kind, _, where = ei
        return "".join(traceback.format_tb(where)) + (kind.__name__ if kind else "")


class JsonFormatter(_WithoutMessages):
    """One JSON object a line: ``time`` (RFC 3339), ``level``, ``logger``, ``message``, and what else is known."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(), "logger": record.name, "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }  # fmt: skip
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class NonBlockingHandler(QueueHandler):
    """Hands records to a thread that writes them: a disk that is slow, or a pipe that nobody reads, must not hold up
    the event loop. ``waiting`` records may wait at most; what is past them is lost, and a line says how
    much when there is room. After what waited is written the thread rests: to wake it costs the event loop more than
    the line."""

    queue: queue.Queue[Any]

    def __init__(self, handler: logging.Handler, waiting: int = WAITING_LINES):
        super().__init__(queue.Queue(waiting))
        self._lost = 0
        self._handler, self._closing = handler, threading.Event()
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def _write(self) -> None:
        while True:
            self._handler.handle(self.queue.get())
            self.queue.task_done()
            if self.queue.empty():
                self._handler.flush()
                self._closing.wait(REST_SECONDS)

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        """As it is: it leaves the thread, not the process."""
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            if self._lost:
                lost = {"name": "evenkeel", "levelno": logging.WARNING, "levelname": "WARNING", "args": (self._lost,)}
                self.queue.put_nowait(logging.makeLogRecord({**lost, "msg": LOST}))
                self._lost = 0
            self.queue.put_nowait(record)
        except queue.Full:
            self._lost += 1

    def close(self) -> None:
        """Write what waits."""
        self._closing.set()
        self.queue.join()
        super().close()


def configure(level: str, form: str) -> None:
    """Log to standard error until `finish`; ``form`` is text, json, or auto: text to a terminal, JSON to all else."""
    # What no line says costs as much as the rest of it (Python's logging HOWTO, "Optimization").
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    as_text = form == "text" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler()
    handler.setFormatter(_WithoutMessages("%(asctime)s %(levelname)s %(message)s") if as_text else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[NonBlockingHandler(handler)], force=True)


def finish() -> None:
    """Write all that waits, unless nobody takes it within `CLOSE_SECONDS`."""

    def write() -> None:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    writer.join(CLOSE_SECONDS)


class RequestLog:
    """A line for each request that ended; ``wanted`` is all, problems (status 400 and above) or none.

    Of those refused because too many wait there may be thousands a second, which a line each would make more of: one in
    `OVERLOAD_SECONDS` has its line, which says how many had none since the last.
    """

    def __init__(self, wanted: str, clock: Callable[[], float] = time.monotonic):
        self._wanted, self._clock = wanted, clock
        self._others, self._logged = 0, -math.inf

    def __call__(self, context: RequestContext) -> None:
        if self._wanted == "none" or (self._wanted == "problems" and context.status < 400):
            return
        # Probes and scrapes come every few seconds, and what they find is logged where it arises.
        probe = context.route.startswith(("/health/", "/metrics"))
        level = logging.DEBUG if probe else logging.WARNING if context.status >= 500 else logging.INFO
        if not REQUESTS.isEnabledFor(level):
            return
        fields: dict[str, Any] = {}
        if context.status == 429 and context.reason is None:
            now = self._clock()
            if now - self._logged < OVERLOAD_SECONDS:
                self._others += 1
                return
            fields, self._logged, self._others = {"others": self._others}, now, 0
        milliseconds = round((context.seconds or 0) * 1e3, 2)
        others = f", and {fields['others']} others refused alike" if fields.get("others") else ""
        REQUESTS.log(
            level, "%s %s %d, %g ms, %s%s", context.method, context.route, context.status, milliseconds,
            context.request_id, others,
            extra={"fields": {**fields_of(context), "status": context.status, "milliseconds": milliseconds, **fields}},
        )  # fmt: skip


def fields_of(context: RequestContext) -> dict[str, Any]:
    """What names a request in its line."""
    trace = context.trace
    return {
        "request_id": context.request_id, "trace_id": trace.trace_id, "span_id": trace.span_id,
        "parent_id": trace.parent_id, "method": context.method, "route": context.route,
        **({} if context.key is None else {"key": context.key}),
    }  # fmt: skip
