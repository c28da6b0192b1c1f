"""Requests that wait for a prediction: clients take turns, and a client's requests go by when they would end at best.

Clients take turns of a few rows, so that none waits behind all requests of another: deficit round robin (Shreedhar &
Varghese 1995) with rows for bytes. A client's requests go in the order in which they would end if they shared its turns
equally: the fair sojourn protocol (Friedman & Henderson 2003, "Fairness and efficiency in web server protocols"). So
nobody waits behind all rows of a larger request, nobody ends later than by sharing, and whoever comes later and is no
smaller comes after, so that a wait can be foretold. Not locked; knows neither threads nor predictors.
"""

import asyncio
import math
import time
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice

from models.bundle.read import Bundle
from models.prediction import EncodedText, Prediction, Stage
from models.rows import Row

QUANTUM = 8
"""Rows of a turn: few enough that a batch serves several requests, enough that a large one is not all overhead."""


@dataclass(eq=False)
class Entry:
    """A waiting request: its rows, those encoded ahead, how many batches have taken, and how many are computed.

    Nobody waits for it after ``deadline`` (`time.perf_counter`). ``virtual_finish`` orders its client's requests.
    ``epoch`` counts its resets, because another model took over.
    """

    rows: Sequence[Row]
    client: str = ""
    future: "asyncio.Future[Answer]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    enqueued: float = field(default_factory=lambda: time.perf_counter())
    deadline: float = math.inf
    virtual_finish: float = 0.0
    epoch: int = 0
    stages: list[Stage] = field(default_factory=list)
    encoded: list[EncodedText] = field(default_factory=list)
    taken: int = 0
    computed: int = 0
    predictions: list[Prediction] = field(default_factory=list)
    queue_seconds: float = 0.0
    inference_seconds: float = 0.0

    @property
    def waiting(self) -> int:
        """Rows that no batch has taken yet."""
        return len(self.rows) - self.taken

    def reset(self) -> None:
        """Forget what one model made of it: an answer is of one model."""
        self.epoch += 1
        self.stages = []
        self.encoded, self.taken, self.computed, self.predictions, self.inference_seconds = [], 0, 0, [], 0.0


@dataclass(frozen=True)
class Answer:
    """Predictions in the order asked, the bundle that made them all, and where the time went: ``stages`` are those of
    the batches that the rows were in, with whoever else was in them."""

    predictions: list[Prediction]
    bundle: Bundle
    queue_seconds: float
    inference_seconds: float
    stages: Sequence[Stage] = ()


@dataclass(frozen=True)
class Slice:
    """Rows [start, stop) of an entry, in one batch, as of its epoch."""

    entry: Entry
    start: int
    stop: int
    epoch: int

    @property
    def rows(self) -> Sequence[Row]:
        return self.entry.rows[self.start : self.stop]

    @property
    def size(self) -> int:
        return self.stop - self.start

    @property
    def encoded(self) -> Sequence[EncodedText]:
        return self.entry.encoded[self.start : self.stop]

    @property
    def current(self) -> bool:
        """Whether its entry was not reset since."""
        return self.epoch == self.entry.epoch

    def put(self, predictions: Sequence[Prediction]) -> None:
        """Give its entry the rows' predictions; an entry's slices may end in another order than they began."""
        entry = self.entry
        if not entry.predictions:
            # Each is set before anybody reads them.
            entry.predictions = [predictions[0]] * len(entry.rows)
        entry.predictions[self.start : self.stop] = predictions
        entry.computed += self.size


class VirtualClock:
    """When a client's requests would end if they shared its turns equally; in rows that each of them would have got.

    ``rows`` are those of the client that no batch has taken yet.
    """

    ROUNDING = 1e-9

    def __init__(self) -> None:
        self.now = 0.0
        self.rows = 0
        self._finishes: list[float] = []

    def add(self, rows: int) -> float:
        """When a request that begins now would end."""
        self.rows += rows
        insort(self._finishes, self.now + rows)
        return self.now + rows

    def remove(self, finish: float, rows: int) -> None:
        """A request's last rows will not be computed."""
        self.rows -= rows
        place = bisect_left(self._finishes, finish)
        # It may be past its end already: those that were computed in its stead then had less.
        if self._finishes[place : place + 1] == [finish]:
            del self._finishes[place]

    def served(self, rows: int) -> None:
        """The client got so many rows."""
        self.rows -= rows
        self._advance(rows)

    def _advance(self, rows: float) -> None:
        while rows > self.ROUNDING and self._finishes:
            sharers = len(self._finishes)
            each = min(rows / sharers, self._finishes[0] - self.now)
            self.now, rows = self.now + each, rows - each * sharers
            del self._finishes[: bisect_right(self._finishes, self.now + self.ROUNDING)]


Clients = OrderedDict[str, list[Entry]]


class FairQueue:
    """Entries by client; ``rows`` is what no batch has taken yet."""

    def __init__(self) -> None:
        self._clients: Clients = OrderedDict()
        self._clocks: dict[str, VirtualClock] = {}
        self._budget = QUANTUM
        self.rows = 0

    def __iter__(self) -> Iterator[Entry]:
        for entries in self._clients.values():
            yield from entries

    def add(self, entry: Entry) -> None:
        """The entry's client gets its turn after those that wait already."""
        entry.virtual_finish = self._clocks.setdefault(entry.client, VirtualClock()).add(entry.waiting)
        insort(self._clients.setdefault(entry.client, []), entry, key=_finish)
        self.rows += entry.waiting

    def remove(self, entry: Entry) -> None:
        """Take an entry out, if it is in."""
        entries = self._clients.get(entry.client, [])
        if entry in entries:
            entries.remove(entry)
            self._clocks[entry.client].remove(entry.virtual_finish, entry.waiting)
            self.rows -= entry.waiting
            if not entries:
                del self._clients[entry.client], self._clocks[entry.client]

    def clear(self) -> list[Entry]:
        """Take all out."""
        entries = list(self)
        self._clients.clear()
        self._clocks.clear()
        self.rows = 0
        return entries

    def drop_late(self, now: float, room: int, seconds_per_row: float) -> list[Entry]:
        """Take out, where others wait too, those whose last rows the next batch has ``room`` for, and not the time.

        What is longer is left in: over many rows, what a row takes lately is too weak a reason to give up.
        """
        late = []
        for entry in list(self):
            # Beside one that is left: alone it costs nobody anything.
            others_wait = entry.waiting < self.rows
            if others_wait and entry.waiting <= room and now + entry.waiting * seconds_per_row > entry.deadline:
                self.remove(entry)
                late.append(entry)
        return late

    def reset(self) -> None:
        """Have every entry computed from its first row again."""
        for entry in self:
            self.rows += entry.taken
            self._clocks[entry.client].rows += entry.taken
            entry.reset()

    def take(self, room: int) -> list[Slice]:
        """The next batch of at most ``room`` rows, one slice for each entry in it."""
        slices = []
        given, self._budget = _turns(self._clients, room, self._budget)
        for entry, rows in given.items():
            slices.append(Slice(entry, entry.taken, entry.taken + rows, entry.epoch))
            entry.taken += rows
            self.rows -= rows
            self._clocks[entry.client].served(rows)
        for client in self._clocks.keys() - self._clients.keys():
            del self._clocks[client]
        return slices

    def peek(self, room: int) -> dict[Entry, int]:
        """Entry → rows that `take` would give it now."""
        # Every entry in the batch has a row of it at least, so no more of them, and no more clients, matter.
        first = ((client, entries[:room]) for client, entries in islice(self._clients.items(), room))
        return _turns(OrderedDict(first), room, self._budget)[0]

    def rows_before(self, client: str, rows: int) -> int:
        """At most how many of the waiting rows are computed before the last of ``rows`` new ones of a client.

        A round gives a turn to every client.
        """
        own, clock = self._clients.get(client, []), self._clocks.get(client, VirtualClock())
        behind = own[bisect_right(own, clock.now + rows, key=_finish) :]
        ahead = clock.rows - sum(entry.waiting for entry in behind)
        turns = -(-(ahead + rows) // QUANTUM) * QUANTUM
        return ahead + sum(min(turns, clock.rows) for other, clock in self._clocks.items() if other != client)


def _finish(entry: Entry) -> float:
    return entry.virtual_finish


def _turns(clients: Clients, room: int, budget: int) -> tuple[dict[Entry, int], int]:
    """Entry → its rows of the next batch, and what the then first client has left of its turn.

    ``clients`` is left with what remains, in the order of the next turns; ``budget`` is what its first has left now.
    """
    given: dict[Entry, int] = {}
    while room and clients:
        client, entries = next(iter(clients.items()))
        entry = entries[0]
        taken = given.get(entry, 0)
        rows = min(budget, room, entry.waiting - taken)
        given[entry] = taken + rows
        room, budget = room - rows, budget - rows
        if taken + rows == entry.waiting:
            del entries[0]
        if not entries:
            del clients[client]
        elif budget == 0:
            clients.move_to_end(client)
        if not entries or budget == 0:
            budget = QUANTUM
    return given, budget
