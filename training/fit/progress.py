"""What training shows while it runs: a bar with the time left on a terminal, quiet lines when piped."""

import sys
import threading
import time
from pathlib import Path
from typing import Protocol, Self

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from training.fit.epoch_diagnostics import EpochDiagnostics


class Report(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Progress of a fine-tuning: optimisation steps done since the last, a finished epoch, or something to say."""

    steps: int = 0
    note: str = ""
    epoch: EpochDiagnostics | None = None


class Listener(Protocol):
    """Receives the progress of a fine-tuning."""

    def advance(self, steps: int = 1) -> None: ...

    def epoch(self, diagnostics: EpochDiagnostics) -> None: ...

    def note(self, sentence: str) -> None: ...


class TrainingProgress:
    """A context manager; every epoch's diagnostics go to ``log`` (JSON lines) and to the display."""

    def __init__(self, log: Path, total_steps: int, quiet: bool = False):
        self._log, self._quiet = log, quiet
        self._lock = threading.Lock()
        self._total, self._done, self._start = total_steps, 0, time.monotonic()
        columns = (
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn(),
            TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[last]}"),
        )  # fmt: skip
        self._bar = Progress(*columns, console=Console(stderr=True), disable=quiet or not sys.stderr.isatty())
        self._task = self._bar.add_task("training", total=total_steps, last="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def phase(self, name: str) -> None:
        """Say what is being computed."""
        self._bar.update(self._task, description=name)
        if not self._quiet and not sys.stderr.isatty():
            print(name, file=sys.stderr, flush=True)

    def report(self, line: bytes) -> None:
        """Count the `Report`, a line of JSON, of a fine-tuning in another process."""
        report = msgspec.json.decode(line, type=Report)
        with self._lock:
            self.advance(report.steps)
            if report.epoch is not None:
                self.epoch(report.epoch)
            if report.note:
                self.note(report.note)

    def advance(self, steps: int = 1) -> None:
        """Count optimisation steps, also those that an earlier run had done."""
        self._done += steps
        self._bar.advance(self._task, steps)

    def share(self, done: float) -> None:
        """Show which share of the phase is done, in [0, 1]."""
        self._bar.update(self._task, last=f"{done:.0%}")

    def note(self, sentence: str) -> None:
        """Say something beside the bar, unless there is nothing to say."""
        if sentence and not self._quiet:
            self._bar.console.print(sentence, highlight=False, markup=False, soft_wrap=True)

    def reach(self, steps: int) -> None:
        """Count up to ``steps``: what a failed fine-tuning left out will not be done."""
        self.advance(max(0, steps - self._done))

    def epoch(self, diagnostics: EpochDiagnostics) -> None:
        """Record one finished epoch."""
        with self._log.open("ab") as log:
            log.write(msgspec.json.encode(diagnostics) + b"\n")
        line = diagnostics.line()
        self._bar.update(self._task, last=line)
        if not self._quiet and not sys.stderr.isatty():
            left = (time.monotonic() - self._start) / max(self._done, 1) * (self._total - self._done)
            print(f"{line}, {left:.0f} s left", file=sys.stderr, flush=True)
