"""What a run has recorded, second by second, small enough to be kept for hours and to be sent between processes."""

import math
from collections.abc import Iterable
from typing import Self, TypeVar

import msgspec
from msgspec import Struct, field

STEPS = 50
"""Bins of a histogram per factor e: each is 2 % wide, so a percentile is right to 1 %."""

MAX_FAULTS = 20


Key = TypeVar("Key", int, str)


class Histogram(Struct):
    """Milliseconds, in bins of equal ratio."""

    bins: dict[int, int] = field(default_factory=dict)
    total: float = 0.0
    count: int = 0

    def add(self, milliseconds: float) -> None:
        place = int(math.log(max(milliseconds, 1e-3) * 1e3) * STEPS)
        self.bins[place] = self.bins.get(place, 0) + 1
        self.total += milliseconds
        self.count += 1

    def merge(self, other: "Histogram") -> None:
        _add(self.bins, other.bins)
        self.total += other.total
        self.count += other.count

    def percentile(self, share: float) -> float:
        """Milliseconds that this share of the values does not exceed; NaN of none."""
        wanted, below = share * self.count, 0
        for place in sorted(self.bins):
            below += self.bins[place]
            if below >= wanted:
                return self.middle(place)
        return math.nan

    @staticmethod
    def middle(place: int) -> float:
        """Milliseconds in the middle of a bin."""
        return math.exp((place + 0.5) / STEPS) / 1e3

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else math.nan


class Cell(Struct):
    """Requests of one kind that were due in one second. ``latency_ms`` counts from when they were due to be sent;
    ``waited_ms`` is the part before they were sent; queue and inference are what the server says of itself, and
    ``rest_ms`` is what is left of a request that was sent: network, HTTP, and both event loops."""

    results: dict[str, int] = field(default_factory=dict)
    statuses: dict[int, int] = field(default_factory=dict)
    rows: int = 0
    latency_ms: Histogram = field(default_factory=Histogram)
    waited_ms: Histogram = field(default_factory=Histogram)
    queue_ms: Histogram = field(default_factory=Histogram)
    inference_ms: Histogram = field(default_factory=Histogram)
    rest_ms: Histogram = field(default_factory=Histogram)

    def merge(self, other: "Cell") -> None:
        _add(self.results, other.results)
        _add(self.statuses, other.statuses)
        self.rows += other.rows
        for name in ("latency_ms", "waited_ms", "queue_ms", "inference_ms", "rest_ms"):
            getattr(self, name).merge(getattr(other, name))

    def count(self, result: str) -> int:
        return self.results.get(result, 0)

    @property
    def requests(self) -> int:
        return sum(self.results.values())


class Recording(Struct):
    """``cells`` by second since the start, then by kind of request; ``done_rows`` and ``done`` are rows and requests
    of predictions by the second in which they were answered; ``versions`` counts answers, ``late_ms`` is how late the
    generator was itself, ``cpu`` its share of a core, by process."""

    cells: dict[int, dict[str, Cell]] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)
    done_rows: dict[int, int] = field(default_factory=dict)
    versions: dict[str, int] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    late_ms: Histogram = field(default_factory=Histogram)
    cpu: dict[str, list[float]] = field(default_factory=dict)
    unanswered: int = 0

    def add(
        self, kind: str, due: float, answered: float, result: str, *, status: int, rows: int = 0, fault: str = "",
        version: str = "", sent: float | None = None, timing: tuple[float, float] | None = None,
    ) -> None:  # fmt: skip
        """An exchange: when it was due, sent (if later) and answered, in seconds since the start."""
        cell = self.cells.setdefault(int(due), {}).setdefault(kind, Cell())
        cell.results[result] = cell.results.get(result, 0) + 1
        cell.statuses[status] = cell.statuses.get(status, 0) + 1
        latency = (answered - due) * 1e3
        waited = (sent - due) * 1e3 if sent is not None else 0.0
        cell.latency_ms.add(latency)
        cell.waited_ms.add(waited)
        if timing:
            queue, inference = timing
            cell.queue_ms.add(queue)
            cell.inference_ms.add(inference)
            cell.rest_ms.add(max(latency - waited - queue - inference, 0.0))
        if rows and result == "ok":
            cell.rows += rows
            second = int(answered)
            self.done[second] = self.done.get(second, 0) + 1
            self.done_rows[second] = self.done_rows.get(second, 0) + rows
            self.versions[version] = self.versions.get(version, 0) + rows
        if fault and len(self.faults) < MAX_FAULTS:
            self.faults.append(f"{kind}: {fault}")

    def merge(self, other: "Recording") -> None:
        """Add what another process has recorded."""
        for second, kinds in other.cells.items():
            for kind, cell in kinds.items():
                self.cells.setdefault(second, {}).setdefault(kind, Cell()).merge(cell)
        _add(self.done, other.done)
        _add(self.done_rows, other.done_rows)
        _add(self.versions, other.versions)
        self.faults = (self.faults + other.faults)[:MAX_FAULTS]
        self.late_ms.merge(other.late_ms)
        for process, shares in other.cpu.items():
            self.cpu.setdefault(process, []).extend(shares)
        self.unanswered += other.unanswered

    def between(self, start: float = 0, stop: float = math.inf, kinds: Iterable[str] | None = None) -> Cell:
        """All requests of these kinds that were due from ``start`` on and before ``stop``, as one cell."""
        wanted = None if kinds is None else set(kinds)
        merged = Cell()
        for second, cells in self.cells.items():
            if start <= second < stop:
                for kind, cell in cells.items():
                    if wanted is None or kind in wanted:
                        merged.merge(cell)
        return merged

    def rate(self, start: int, stop: int, *, rows: bool = False) -> float:
        """Predictions answered per second, requests or rows, in whole seconds from ``start`` to before ``stop``."""
        counts = self.done_rows if rows else self.done
        return sum(counts.get(second, 0) for second in range(start, stop)) / max(stop - start, 1)

    @property
    def seconds(self) -> int:
        return 1 + max(self.cells, default=-1)

    @property
    def kinds(self) -> list[str]:
        return sorted({kind for kinds in self.cells.values() for kind in kinds})

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @classmethod
    def decode(cls, data: bytes) -> Self:
        return msgspec.msgpack.decode(data, type=cls)


def _add(mine: dict[Key, int], theirs: dict[Key, int]) -> None:
    for key, count in theirs.items():
        mine[key] = mine.get(key, 0) + count
