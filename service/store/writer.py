"""The store's database, as its one thread uses it: predictions in, outcomes in, old rows out."""

import hashlib
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from models.rows import Row
from models.schema import Schema
from service.store.databases import Database, ValueRefused
from service.store.prediction_log import CountedOutcome, LoggedPrediction, OutcomeStatus, PredictionLog, time_ms_of
from service.store.retention import Retention

LOGGER = logging.getLogger("evenkeel")


class Observer(Protocol):
    """Counts what becomes of the rows."""

    def store_up(self, up: bool) -> None: ...

    def store_rows(self, rows: int, queued: int) -> None: ...

    def store_wrote(self, rows: int, seconds: float) -> None: ...

    def store_dropped(self, reason: str, rows: int) -> None: ...

    def versions_known(self, classes: Mapping[str, Sequence[str]]) -> None: ...


class Queued(NamedTuple):
    """One prediction that waits to be written; ``row`` is None when nothing of it is kept.

    Numbers and strings, not the answer that they come from: what waits is small, and nothing for the collector.
    """

    id: str
    version: str
    row: Row | None
    uncalibrated_probability: float
    probability: float
    probabilities: tuple[float, ...] | None = None
    uncalibrated_probabilities: tuple[float, ...] | None = None
    bundle_probability: float | None = None


class Writer:
    """Every method but `close` raises StoreError; after one, `close` and `open` again."""

    def __init__(self, database: Database, observer: Observer, *, inputs: str, max_rows: int, max_days: float):
        """``inputs``: row, hash or none, what is kept of a row."""
        self._database, self._observer, self._inputs = database, observer, inputs
        self._log = PredictionLog(database)
        self._retention = Retention(self._log, max_rows, max_days)
        self._schemas: dict[str, Schema] = {}
        self._seen: set[str] = set()
        self._opened = False

    @property
    def rows(self) -> int:
        """Predictions that are held, about."""
        return self._retention.rows

    def open(self) -> None:
        """Connect, where it is not connected."""
        if not self._opened:
            self._database.open()
            self._opened = True
            self._retention.due_now()

    def close(self) -> None:
        """Disconnect."""
        self._database.close()
        self._opened = False

    def bundle_loaded(self, version: str, schema: Schema) -> None:
        """Of each version that predictions come of, before they do; may be called on any thread."""
        self._schemas[version] = schema

    def insert(self, queued: Sequence[Queued]) -> None:
        """Write predictions."""
        start = time.perf_counter()
        rows = [self._row(one) for one in queued]
        new = {row.version for row in rows} - self._seen
        if new:
            self._see(new)
        try:
            self._log.insert(rows)
        except ValueRefused:
            self._insert_singly(rows)
        self._observer.store_wrote(len(rows), time.perf_counter() - start)
        self._retention.rows += len(rows)

    def label(self, outcomes: Sequence[tuple[str, str]]) -> tuple[list[OutcomeStatus], list[CountedOutcome]]:
        """`PredictionLog.label`; the observer knows their versions, other replicas' too."""
        statuses, counted = self._log.label(outcomes)
        self._observer.versions_known(self._log.classes({outcome.version for outcome in counted}))
        return statuses, counted

    def trim(self, seconds: float) -> None:
        """Delete what is beyond the bounds, for no longer than so long."""
        if self._retention.due():
            self._see(self._seen)
            self._retention.count()
        self._retention.delete(seconds)

    def _row(self, queued: Queued) -> LoggedPrediction:
        kept = None if queued.row is None else self._kept(queued.row)
        return LoggedPrediction(queued.id, time_ms_of(queued.id), queued.version, kept, *queued[3:])

    def _kept(self, row: Row) -> str:
        content = msgspec.json.encode(row)
        return content.decode() if self._inputs == "row" else f"sha256:{hashlib.sha256(content).hexdigest()}"

    def _insert_singly(self, rows: Sequence[LoggedPrediction]) -> None:
        """A row that the database will never take must not hold up the others."""
        for row in rows:
            try:
                self._log.insert([row])
            except ValueRefused as error:
                LOGGER.warning("a prediction was not logged: %s", error)
                self._observer.store_dropped("refused", 1)

    def _see(self, versions: Iterable[str]) -> None:
        schemas = {version: self._schemas[version] for version in versions}
        self._observer.versions_known(self._log.see_versions(schemas, self._retention.oldest_ms()))
        self._seen |= set(schemas)
