"""The logged predictions and their outcomes as rows of a database: insert, label, trim, read."""

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from models.schema import Schema, SchemaError, schema_of
from service.store.databases import Database, StoreError
from service.store.tables import BUNDLE_PROBABILITY, VECTORS

INSERTED_ROWS = 124
"""Rows of one INSERT. Each statement waits for Python's lock once, and SQLite took at most 999 parameters for long."""
ASKED_IDS = 500
READ_ROWS = 4096
DELETED_ROWS = 1000
"""Rows of one DELETE: a transaction of a few milliseconds, so that nobody waits for it."""

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
UNUSABLE = "the store has a table's description that cannot be used"
LAST = "g"
"""Above every id."""

T = TypeVar("T")
OutcomeStatus = Literal["counted", "repeated", "conflicting", "unknown"]


class LoggedPrediction(NamedTuple):
    """One answered prediction. ``inputs`` is the row as JSON, "sha256:" and its hash, or None.

    Of two classes the probabilities are of the positive one; of more of the outcome, and all classes' (K,) beside them.
    ``bundle_probability`` is that of the bundle alone, where another one was served.
    """

    id: str
    time_ms: int
    version: str
    inputs: str | None
    uncalibrated_probability: float
    probability: float
    probabilities: tuple[float, ...] | None = None
    uncalibrated_probabilities: tuple[float, ...] | None = None
    bundle_probability: float | None = None


COLUMNS = LoggedPrediction._fields[:6]
"""Those that every table has."""
WITH_VECTORS, RECALIBRATED = (*COLUMNS, *VECTORS), (*COLUMNS, BUNDLE_PROBABILITY)


class LabelledPrediction(NamedTuple):
    """A logged prediction with its outcome, the name of a class, if it has one."""

    prediction: LoggedPrediction
    outcome: str | None


class CountedOutcome(NamedTuple):
    """An outcome that became durable, and what had been predicted for it: ``probabilities`` (K,) of the classes.
    ``label`` is the number of its class; ``own`` are the probabilities by the bundle alone, where others
    were served; ``id`` is the prediction's."""

    version: str
    probabilities: tuple[float, ...]
    label: int
    own: tuple[float, ...] | None = None
    id: str = ""

    @property
    def bundle_probabilities(self) -> tuple[float, ...]:
        """Those (K,) of the bundle alone."""
        return self.probabilities if self.own is None else self.own


class _Class(Struct):
    name: str


class _Label(Struct):
    classes: tuple[_Class, ...]


class _Classes(Struct):
    """What is read of a schema that a version may have written which knows more of schemas than this one."""

    label: _Label


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
        self._classes: dict[str, tuple[str, ...]] = {}

    def insert(self, rows: Sequence[LoggedPrediction]) -> None:
        """Keep predictions; one whose id is there already is left as it is."""
        with self._database.transaction(durable=False):
            of_two = [row for row in rows if row.probabilities is None]
            of_more = [row for row in rows if row.probabilities is not None]
            recalibrated = [row for row in of_two if row.bundle_probability is not None]
            if recalibrated:  # Before a row is written: two replicas at once would wait for each other.
                self._add_column(BUNDLE_PROBABILITY, "DOUBLE PRECISION")
            self._insert(COLUMNS, [row[: len(COLUMNS)] for row in of_two if row.bundle_probability is None])
            self._insert(WITH_VECTORS, [(*row[: len(COLUMNS)], *map(_json, row[6:8])) for row in of_more])
            self._insert(RECALIBRATED, [(*row[: len(COLUMNS)], row.bundle_probability) for row in recalibrated])

    def _insert(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        place = f"({', '.join('?' * len(columns))})"
        for part in _parts(rows, INSERTED_ROWS):
            self._database.change(
                f"INSERT INTO evenkeel_predictions ({', '.join(columns)}) VALUES {', '.join([place] * len(part))} "
                "ON CONFLICT (id) DO NOTHING",
                [value for row in part for value in row],
            )

    def label(self, outcomes: Sequence[tuple[str, str]]) -> tuple[list[OutcomeStatus], list[CountedOutcome]]:
        """Keep (id, class name) durably; returns what became of each, in order, and those that are new.

        "repeated": the same was known. "conflicting": another was known, and stays. "unknown": no such prediction of
        a version that has the class.
        """
        with self._database.transaction(durable=True):
            logged = self._lock({id for id, _ in outcomes if UUID.fullmatch(id)})
            statuses: list[OutcomeStatus] = []
            classes = self.classes({version for version, _, _ in logged.values()})
            new: dict[str, str] = {}
            for id, outcome in outcomes:
                known = new.get(id, logged[id][2]) if id in logged else None
                if id not in logged or outcome not in classes.get(logged[id][0], ()):
                    statuses.append("unknown")
                elif known is None:
                    new[id] = outcome
                    statuses.append("counted")
                else:
                    statuses.append("repeated" if known == outcome else "conflicting")
            self._set(new)
            vectors = self._probabilities(id for id in new if len(classes[logged[id][0]]) > 2)
            own = self._bundle_probabilities(new)
        counted = ((*logged[id][:2], id, outcome) for id, outcome in new.items())
        return statuses, [
            CountedOutcome(version, vectors.get(id, (1 - p, p)), classes[version].index(outcome), own.get(id), id)
            for version, p, id, outcome in counted
        ]

    def _probabilities(self, ids: Iterable[str]) -> dict[str, tuple[float, ...]]:
        """Of all classes, of predictions of more than two."""
        found: dict[str, tuple[float, ...]] = {}
        for part in _parts(ids, ASKED_IDS):
            sql = f"SELECT id, {VECTORS[0]} FROM evenkeel_predictions WHERE id IN ({_places(part)})"
            found |= {id: _vector(text) for id, text in self._database.query(sql, part)}
        return found

    def _bundle_probabilities(self, ids: Iterable[str]) -> dict[str, tuple[float, ...]]:
        """Of the two classes by the bundle alone, of those predictions where others were served."""
        found: dict[str, tuple[float, ...]] = {}
        for part in _parts(ids if self._has(BUNDLE_PROBABILITY) else (), ASKED_IDS):
            sql = f"SELECT id, {BUNDLE_PROBABILITY} FROM evenkeel_predictions WHERE id IN ({_places(part)})"
            found |= {id: (1 - p, p) for id, p in self._database.query(sql, part) if p is not None}
        return found

    def _lock(self, ids: Iterable[str]) -> dict[str, tuple[str, float, str | None]]:
        """Version, probability and outcome of those of these ids that are there, locked until the transaction ends."""
        found: dict[str, tuple[str, float, str | None]] = {}
        # In order, so that two replicas never wait for each other's rows.
        for part in _parts(sorted(ids), ASKED_IDS):
            rows = self._database.query(
                f"SELECT id, version, probability, outcome FROM evenkeel_predictions WHERE id IN ({_places(part)})"
                + self._database.locks_rows,
                part,
            )
            found |= {id: (version, probability, outcome) for id, version, probability, outcome in rows}
        return found

    def _set(self, outcomes: dict[str, str]) -> None:
        for name in sorted(set(outcomes.values())):
            for part in _parts([id for id, outcome in outcomes.items() if outcome == name], ASKED_IDS):
                self._database.change(
                    f"UPDATE evenkeel_predictions SET outcome = ?, labelled_ms = ? WHERE id IN ({_places(part)})",
                    [name, now_ms(), *part],
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

    def see_versions(self, schemas: Mapping[str, Schema], forget_before_ms: int) -> dict[str, tuple[str, ...]]:
        """Note that versions with these schemas are in use, forget those not seen since; the classes of all known."""
        with self._database.transaction(durable=False):
            # Before the version is known, so that whoever knows it finds the columns.
            if any(len(schema.classes) > 2 for schema in schemas.values()):
                self._add_vectors()
            for version, schema in sorted(schemas.items()):
                self._database.change(
                    "INSERT INTO evenkeel_versions (version, last_ms, description) VALUES (?, ?, ?) "
                    "ON CONFLICT (version) DO UPDATE SET last_ms = excluded.last_ms",
                    (version, now_ms(), msgspec.json.encode(schema).decode()),
                )
            self._database.change("DELETE FROM evenkeel_versions WHERE last_ms < ?", (forget_before_ms,))
            return self.classes(version for (version,) in self._database.query("SELECT version FROM evenkeel_versions"))

    def _add_vectors(self) -> None:
        for name in VECTORS:
            self._add_column(name, "TEXT")

    def _add_column(self, name: str, kind: str) -> None:
        if not self._has(name):
            self._database.change(f"ALTER TABLE evenkeel_predictions ADD COLUMN {self._database.if_new}{name} {kind}")

    def _has(self, name: str) -> bool:
        """Whether predictions have a column."""
        return name in self._database.columns("evenkeel_predictions")

    def classes(self, versions: Iterable[str]) -> dict[str, tuple[str, ...]]:
        """The class names of those of these versions that are known; asked for once, a version never changes."""
        versions = set(versions)
        for part in _parts(sorted(versions - set(self._classes)), ASKED_IDS):
            for version, description in self._database.query(
                f"SELECT version, description FROM evenkeel_versions WHERE version IN ({_places(part)})", part
            ):
                self._classes[version] = _class_names(description)
        return {version: self._classes[version] for version in versions & set(self._classes)}

    def schemas(self) -> dict[str, Schema]:
        """The schema of each known version, those in use last at the end."""
        found = self._database.query("SELECT version, description FROM evenkeel_versions ORDER BY last_ms, version")
        try:
            return {version: schema_of(msgspec.json.decode(description)) for version, description in found}
        except (SchemaError, msgspec.DecodeError) as error:
            raise StoreError(f"{UNUSABLE}: {error}") from error

    def versions(self, ids: Iterable[str]) -> dict[str, str]:
        """The version that predicted each of those of these ids that are there."""
        found: dict[str, str] = {}
        for part in _parts(sorted({id for id in ids if UUID.fullmatch(id)}), ASKED_IDS):
            sql = f"SELECT id, version FROM evenkeel_predictions WHERE id IN ({_places(part)})"
            found |= dict(self._database.query(sql, part))
        return found

    def read(
        self, since_ms: int = 0, labelled_only: bool = False, with_rows: bool = False,
        versions: Collection[str] | None = None,
    ) -> Iterator[LabelledPrediction]:  # fmt: skip
        """Predictions in the order of time, in constant memory; of these ``versions``, or all."""
        condition = "AND outcome IS NOT NULL " if labelled_only else ""
        last, there = first_id(since_ms), self._database.columns("evenkeel_predictions")
        names = [name for name in LoggedPrediction._fields if name in there]
        while True:
            rows = self._database.query(
                f"SELECT outcome, {', '.join(names)} FROM evenkeel_predictions WHERE id > ? {condition}"
                "ORDER BY id LIMIT ?",
                (last, READ_ROWS),
            )
            for outcome, *values in rows:
                prediction = _logged(dict(zip(names, values, strict=True)))
                wanted = versions is None or prediction.version in versions
                if wanted and (not with_rows or holds_row(prediction)):
                    yield LabelledPrediction(prediction, outcome)
            if len(rows) < READ_ROWS:
                return
            last = rows[-1][1]


def _class_names(description: str) -> tuple[str, ...]:
    try:
        return tuple(each.name for each in msgspec.json.decode(description, type=_Classes).label.classes)
    except msgspec.DecodeError as error:
        raise StoreError(f"{UNUSABLE}: {error}") from error


def _json(probabilities: Sequence[float] | None) -> str:
    return msgspec.json.encode(probabilities).decode()


def _vector(text: str) -> tuple[float, ...]:
    try:
        return msgspec.json.decode(text, type=tuple[float, ...])
    except msgspec.DecodeError as error:
        raise StoreError(f"the store has probabilities that cannot be used: {error}") from error


def _logged(values: dict[str, Any]) -> LoggedPrediction:
    """Values by column → the prediction."""
    vectors = {name: _vector(values[name]) for name in VECTORS if values.get(name) is not None}
    return LoggedPrediction(**(values | vectors))


def holds_row(prediction: LoggedPrediction) -> bool:
    """Whether the row's fields were kept, and not their hash or nothing."""
    return (prediction.inputs or "").startswith("{")


def _parts(values: Iterable[T], size: int) -> Iterator[list[T]]:
    rest = iter(values)
    while part := list(islice(rest, size)):
        yield part


def _places(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))
