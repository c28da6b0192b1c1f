"""The logged predictions and their outcomes as rows of a database: insert, label, trim, read."""

import re
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Literal, NamedTuple, TypeVar

from service.store.databases import Database

INSERTED_ROWS = 128
"""Rows of one INSERT. Each statement waits for Python's lock once, and SQLite took at most 999 parameters for long."""
ASKED_IDS = 500
READ_ROWS = 4096
DELETED_ROWS = 1000
"""Rows of one DELETE: a transaction of a few milliseconds, so that nobody waits for it."""

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
LAST = "g"
"""Above every id."""

T = TypeVar("T")
OutcomeStatus = Literal["counted", "repeated", "conflicting", "unknown"]


class LoggedPrediction(NamedTuple):
    """One answered prediction, probabilities of survival. ``passenger`` is JSON, "sha256:" and its hash, or None."""

    id: str
    time_ms: int
    version: str
    passenger: str | None
    uncalibrated_probability: float
    probability: float


class LabelledPrediction(NamedTuple):
    """A logged prediction with its outcome, if it has one."""

    prediction: LoggedPrediction
    survived: bool | None


class CountedOutcome(NamedTuple):
    """An outcome that became durable, and what had been predicted for it. ``label`` is the number of its class."""

    version: str
    probability: float
    label: int


def time_ms_of(id: str) -> int:
    """Milliseconds since 1970 from a UUIDv7 (RFC 9562, section 5.7)."""
    return int(id[:8] + id[9:13], 16)


def first_id(time_ms: int) -> str:
    """Below every UUIDv7 of this millisecond and after, above all before it."""
    digits = f"{max(0, time_ms):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class PredictionLog:
    """Every method raises `StoreError`; what it does is done as a whole or not at all."""

    def __init__(self, database: Database):
        self._database = database

    def insert(self, rows: Sequence[LoggedPrediction]) -> None:
        """Keep predictions; one whose id is there already is left as it is."""
        with self._database.transaction(durable=False):
            for part in _parts(rows, INSERTED_ROWS):
                places = ", ".join(["(?, ?, ?, ?, ?, ?)"] * len(part))
                self._database.change(
                    f"INSERT INTO evenkeel_predictions ({', '.join(LoggedPrediction._fields)}) VALUES {places} "
                    "ON CONFLICT (id) DO NOTHING",
                    [value for row in part for value in row],
                )

    def label(self, outcomes: Sequence[tuple[str, bool]]) -> tuple[list[OutcomeStatus], list[CountedOutcome]]:
        """Keep (id, survived) durably; returns what became of each, in order, and those that are new.

        "repeated": the same was known. "conflicting": the opposite was known, and stays. "unknown": no such prediction.
        """
        with self._database.transaction(durable=True):
            logged = self._lock({id for id, _ in outcomes if UUID.fullmatch(id)})
            statuses: list[OutcomeStatus] = []
            new: dict[str, bool] = {}
            for id, survived in outcomes:
                known = new.get(id, logged[id][2]) if id in logged else None
                if id not in logged:
                    statuses.append("unknown")
                elif known is None:
                    new[id] = survived
                    statuses.append("counted")
                else:
                    statuses.append("repeated" if bool(known) == survived else "conflicting")
            self._set(new)
        return statuses, [CountedOutcome(logged[id][0], logged[id][1], survived) for id, survived in new.items()]

    def _lock(self, ids: Iterable[str]) -> dict[str, tuple[str, float, int | None]]:
        """Version, probability and outcome of those of these ids that are there, locked until the transaction ends."""
        found: dict[str, tuple[str, float, int | None]] = {}
        # In order, so that two replicas never wait for each other's rows.
        for part in _parts(sorted(ids), ASKED_IDS):
            rows = self._database.query(
                f"SELECT id, version, probability, survived FROM evenkeel_predictions WHERE id IN ({_places(part)})"
                + self._database.locks_rows,
                part,
            )
            found |= {id: (version, probability, survived) for id, version, probability, survived in rows}
        return found

    def _set(self, outcomes: dict[str, bool]) -> None:
        for survived in (False, True):
            for part in _parts([id for id, value in outcomes.items() if value == survived], ASKED_IDS):
                self._database.change(
                    f"UPDATE evenkeel_predictions SET survived = ?, labelled_ms = ? WHERE id IN ({_places(part)})",
                    [int(survived), now_ms(), *part],
                )

    def count(self) -> int:
        """How many predictions are held."""
        return int(self._database.query("SELECT count(*) FROM evenkeel_predictions")[0][0])

    def bound(self, max_rows: int, first_ms: int) -> str:
        """What is below this id is beyond ``max_rows`` or before ``first_ms``."""
        found = self._database.query(
            "SELECT id FROM evenkeel_predictions ORDER BY id DESC LIMIT 1 OFFSET ?", (max_rows - 1,)
        )
        return max(first_id(first_ms), found[0][0] if found else "")

    def delete_below(self, id: str) -> int:
        """Delete the oldest `DELETED_ROWS` below an id; returns how many those were."""
        with self._database.transaction(durable=False):
            return self._database.change(
                "DELETE FROM evenkeel_predictions WHERE id IN "
                "(SELECT id FROM evenkeel_predictions WHERE id < ? ORDER BY id LIMIT ?)",
                (id, DELETED_ROWS),
            )

    def see_versions(self, versions: Iterable[str], forget_before_ms: int) -> list[str]:
        """Note that these versions are in use, forget those not seen since; returns all that are known."""
        with self._database.transaction(durable=False):
            for version in sorted(versions):
                self._database.change(
                    "INSERT INTO evenkeel_versions (version, last_ms) VALUES (?, ?) "
                    "ON CONFLICT (version) DO UPDATE SET last_ms = excluded.last_ms",
                    (version, now_ms()),
                )
            self._database.change("DELETE FROM evenkeel_versions WHERE last_ms < ?", (forget_before_ms,))
            return [version for (version,) in self._database.query("SELECT version FROM evenkeel_versions")]

    def read(
        self, since_ms: int = 0, labelled_only: bool = False, with_passengers: bool = False
    ) -> Iterator[LabelledPrediction]:
        """Predictions in the order of time, in constant memory."""
        condition = "AND survived IS NOT NULL " if labelled_only else ""
        last = first_id(since_ms)
        while True:
            rows = self._database.query(
                f"SELECT {', '.join(LoggedPrediction._fields)}, survived FROM evenkeel_predictions WHERE id > ? "
                f"{condition}ORDER BY id LIMIT ?",
                (last, READ_ROWS),
            )
            for *values, survived in rows:
                prediction = LoggedPrediction(*values)
                if not with_passengers or holds_passenger(prediction):
                    yield LabelledPrediction(prediction, None if survived is None else bool(survived))
            if len(rows) < READ_ROWS:
                return
            last = rows[-1][0]


def holds_passenger(prediction: LoggedPrediction) -> bool:
    """Whether the passenger's fields were kept, and not their hash or nothing."""
    return (prediction.passenger or "").startswith("{")


def _parts(values: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
