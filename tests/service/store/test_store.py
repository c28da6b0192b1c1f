"""The log and the labels on both databases: what is acknowledged stays, nothing counts twice, and failures pass."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from models.schema import Schema
from service.inference.errors import DeadlinePassed, NotReady, QueueFull
from service.metrics import Metrics
from service.settings import Settings
from service.store.databases import Database, SqliteFile, StoreError, database
from service.store.errors import StoreUnavailable
from service.store.prediction_log import CountedOutcome, LabelledPrediction, LoggedPrediction, PredictionLog, time_ms_of
from service.store.store import WAITING_OUTCOMES, Store, make_store
from service.uuid7 import uuid7
from tests import churn
from tests.conftest import ROOT
from tests.postgres import PostgresServer
from tests.service.predictions import OWEN, prediction
from tests.titanic import LABELS, SCHEMA, Passenger


def wait_until(condition: Callable[[], bool]) -> None:
    """Patiently: a store tries again every second, after it has waited two for a lock."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.005)


@pytest.fixture(params=["sqlite", "postgres"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database of either kind."""
    if request.param == "postgres":
        server: PostgresServer = request.getfixturevalue("postgres_server")
        return server.new_database()
    return str(tmp_path / "state" / "predictions.sqlite")


class Running:
    """A store with its metrics, the outcomes it told of, and short ways to use it."""

    def __init__(self, held: Database, **options: Any):
        self.told: list[CountedOutcome] = []
        self.registry = CollectorRegistry()
        metrics = self._metrics = Metrics(self.registry)
        limits = {"inputs": "none", "max_rows": 10**6, "max_days": 90.0, "queue_rows": 10**5, **options}
        self.store = Store(held, metrics, on_outcomes=self._count, **limits)

    def serve(self, version: str, schema: Schema = SCHEMA) -> None:
        """Have a bundle of this version and schema loaded."""
        self.store.bundle_loaded(version, schema)

    def _count(self, outcomes: Sequence[CountedOutcome]) -> None:
        self.told += [each._replace(id="") for each in outcomes]
        self._metrics.outcomes_counted(outcomes)

    def log(self, count: int = 1, version: str = "v1", probability: float = 0.25, ids: Sequence[str] = ()) -> list[str]:
        self.serve(version)
        ids = ids or [uuid7() for _ in range(count)]
        predictions = [prediction(probability)] * len(ids)
        self.store.log(version, ids, [OWEN] * len(ids), predictions)
        return list(ids)

    def label(self, *outcomes: tuple[str, str]) -> list[Any]:
        return asyncio.run(self.store.label(outcomes, 30))

    def value(self, name: str, **labels: str) -> float:
        found = self.registry.get_sample_value(f"evenkeel_{name}", labels)
        assert found is not None, name
        return found

    def flushed(self) -> None:
        wait_until(lambda: not self.store._queue)


@contextmanager
def running(where: str | Database, **options: Any) -> Iterator[Running]:
    one = Running(database(where) if isinstance(where, str) else where, **options)
    one.store.start()
    yield one
    one.store.stop(30)


def rows(where: str, **filters: Any) -> list[LabelledPrediction]:
    held = database(where, create=False)
    held.open()
    try:
        return list(PredictionLog(held).read(**filters))
    finally:
        held.close()


@pytest.mark.parametrize("inputs", ["row", "hash", "none"])
def test_a_prediction_is_kept_with_what_the_setting_allows(where: str, inputs: str) -> None:
    before = time.time_ns() // 1_000_000
    with running(where, inputs=inputs) as one:
        (id,) = one.log(probability=0.1)
    ((kept, outcome),) = rows(where)
    assert outcome is None
    assert (kept.id, kept.version, kept.probability, kept.uncalibrated_probability) == (id, "v1", 0.1, 0.5)
    assert before <= kept.time_ms <= time.time_ns() // 1_000_000
    if inputs == "row":
        assert msgspec.json.decode(kept.inputs or "", type=Passenger) == OWEN
    elif inputs == "hash":
        assert (kept.inputs or "")[:7] == "sha256:"
        assert len(kept.inputs or "") == 7 + 64
    else:
        assert kept.inputs is None


def test_probabilities_come_back_to_the_last_bit(where: str) -> None:
    values = [1 / 3, 1e-300, 1 - 2**-53, 0.1 + 0.2]
    with running(where) as one:
        for value in values:
            one.log(probability=value)
    assert sorted(kept.probability for kept, _ in rows(where)) == sorted(values)


def test_an_outcome_may_follow_its_prediction_at_once(where: str) -> None:
    with running(where) as one:
        for _ in range(20):
            (id,) = one.log()
            assert one.label((id, "survived")) == ["counted"]
    assert [outcome for _, outcome in rows(where)] == ["survived"] * 20


def test_twice_counts_once_the_opposite_is_refused_and_the_unknown_named(where: str) -> None:
    with running(where) as one:
        first, second, third = one.log(3)
        strange = ["", "x", uuid7(), "\x00", "{" + first + "}", "ü" * 40]
        assert one.label((first, "survived"), (second, "died")) == ["counted", "counted"]
        again = [(first, "survived"), (first, "died"), (third, "survived"), (third, "survived"), (third, "died")]
        assert one.label(*again) == ["repeated", "conflicting", "counted", "repeated", "conflicting"]
        assert one.label(*((id, "survived") for id in strange)) == ["unknown"] * len(strange)
        assert one.label((first, "survived"), ("x", "survived"), (second, "survived")) == [
            "repeated",
            "unknown",
            "conflicting",
        ]
        assert one.told == [CountedOutcome("v1", (0.75, 0.25), label) for label in (1, 0, 1)]
    assert {kept.id: outcome for kept, outcome in rows(where)} == {first: "survived", second: "died", third: "survived"}


def test_a_large_request_is_one_commit(where: str) -> None:
    with running(where) as one:
        ids = one.log(3000)
        fates = one.label(*((id, LABELS[n % 3 == 0]) for n, id in enumerate(ids)))
        assert fates == ["counted"] * 3000
        assert sum(outcome.label for outcome in one.told) == 1000
    assert sum(outcome is not None for _, outcome in rows(where)) == 3000


def test_many_at_once_count_each_outcome_once(where: str) -> None:
    """Two replicas (on SQLite two processes would do the same), each asked for the same outcomes by many."""
    with running(where) as one, running(where) as other:
        ids = one.log(300)
        one.flushed()

        async def ask(store: Store) -> list[list[Any]]:
            parts = [ids[n % 290 : n % 290 + 10] for n in range(0, 600, 7)]
            return list(await asyncio.gather(*(store.label([(id, "survived") for id in part], 30) for part in parts)))

        found: list[Any] = []
        stores = (one.store, other.store)
        threads = [threading.Thread(target=lambda s=store: found.extend(asyncio.run(ask(s)))) for store in stores]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        fates = Counter(fate for part in found for fate in part)
        labelled = sum(outcome is not None for _, outcome in rows(where))
        assert fates["counted"] == labelled == len(one.told) + len(other.told)
        assert set(fates) == {"counted", "repeated"}


def test_a_stop_writes_what_waits_and_a_restart_finds_it(where: str) -> None:
    with running(where) as one:
        ids = one.log(100, version="old")
    with running(where) as one:
        wait_until(lambda: one.registry.get_sample_value("evenkeel_store_rows") == 100)
        assert one.value("outcomes_total", version="old", bin="0.2-0.3", outcome="survived") == 0
        assert one.label((ids[7], "survived")) == ["counted"]
        assert one.told == [CountedOutcome("old", (0.75, 0.25), 1)]
    with running(where) as one:
        assert one.label((ids[7], "survived")) == ["repeated"]
        assert one.told == []


def test_after_the_stop_nothing_is_taken(tmp_path: Path) -> None:
    with running(str(tmp_path / "s.sqlite")) as one:
        pass
    one.log(3)
    assert one.value("store_dropped_total", reason="stopped") == 3
    with pytest.raises(NotReady):
        one.label(("x", "survived"))


class Held(Database):
    """A database that does nothing until it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def open(self) -> None:
        self.free.wait(30)
        raise StoreError("held")

    def close(self) -> None: ...

    def transaction(self, durable: bool) -> Any: ...

    def query(self, sql: str, parameters: Sequence[Any] = ()) -> list[Any]:
        return []

    def change(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        return 0

    def columns(self, table: str) -> set[str]:
        return set()


def test_a_full_queue_drops_rows_at_once_and_tells_how_many() -> None:
    held = Held()
    with running(held, queue_rows=1024) as one:
        start = time.perf_counter()
        for _ in range(30):
            one.log(50)
        assert time.perf_counter() - start < 5
        assert one.value("store_dropped_total", reason="queue_full") == 30 * 50 - 1000
        held.free.set()
        wait_until(lambda: one.store.failure is not None)
    assert one.value("store_dropped_total", reason="stopped") == 1000


def test_waiting_outcomes_are_bounded() -> None:
    held = Held()

    async def fill(store: Store) -> list[Any]:
        asks = [store.label([("x", "survived")] * 1024, 30) for _ in range(WAITING_OUTCOMES // 1024 + 1)]
        waiting = [asyncio.ensure_future(ask) for ask in asks]
        await asyncio.sleep(0.1)
        held.free.set()
        return list(await asyncio.gather(*waiting, return_exceptions=True))

    with running(held) as one:
        *first, last = asyncio.run(fill(one.store))
    assert {type(error) for error in first} == {StoreUnavailable}
    assert type(last) is QueueFull


class Slow(SqliteFile):
    """Its durable commits take a while."""

    @contextmanager
    def transaction(self, durable: bool) -> Iterator[None]:
        with super().transaction(durable):
            yield
            time.sleep(0.5 * durable)


def test_an_outcome_whose_deadline_passed_meanwhile_counts_once(tmp_path: Path) -> None:
    with running(Slow(tmp_path / "s.sqlite")) as one:
        (id,) = one.log()
        one.flushed()

        async def impatient() -> list[Any]:
            with pytest.raises(DeadlinePassed):
                await one.store.label([(id, "survived")], 0.1)
            return await one.store.label([(id, "survived")], 30)

        assert asyncio.run(impatient()) == ["repeated"]
        assert len(one.told) == 1


def test_the_oldest_go_when_there_are_too_many(where: str) -> None:
    with running(where, max_rows=2500) as one:
        ids = [id for _ in range(8) for id in one.log(1000)]
        wait_until(lambda: one.value("store_rows") == 2500)
        assert one.label((ids[0], "survived")) == ["unknown"]
    assert [kept.id for kept, _ in rows(where)] == sorted(ids)[-2500:]


def days_ago(days: float, count: int) -> list[str]:
    """Ids a millisecond apart."""
    start = time.time_ns() // 1_000_000 - int(days * 86_400_000)
    digits = [f"{start + n:012x}" for n in range(count)]
    return [f"{one[:8]}-{one[8:]}-7000-8000-{n:012x}" for n, one in enumerate(digits)]


def test_the_old_go_by_age(where: str) -> None:
    ids = days_ago(3, 2500)
    assert time_ms_of(ids[1]) == time_ms_of(ids[0]) + 1
    with running(where) as one:
        one.log(ids=ids, version="gone")
        one.log(5)
    with running(where, max_days=2) as one:
        wait_until(lambda: one.registry.get_sample_value("evenkeel_store_rows") == 5)
    assert len(rows(where)) == 5


def test_export_starts_at_a_time(where: str) -> None:
    with running(where) as one:
        ids = one.log(ids=days_ago(1, 20))
    assert [kept.id for kept, _ in rows(where, since_ms=time_ms_of(ids[12]))] == ids[12:]


def refused(one: Running) -> bool:
    """Whether an outcome is refused because of the store, as soon as the store knows."""
    wait_until(lambda: one.store.failure is not None)
    with pytest.raises(StoreUnavailable):
        one.label(("x", "survived"))
    return one.value("store_up") == 0


def test_a_server_that_goes_away_is_waited_for(postgres_server: PostgresServer) -> None:
    # A server of its own: the others' must stay.
    with PostgresServer() as server:
        where = server.new_database()
        with running(where) as one:
            one.log(10)
            one.flushed()
            server.stop()
            one.log(10)
            assert refused(one)
            assert str(one.store.failure).startswith("PostgreSQL: ")
            server.start()
            wait_until(lambda: one.store.failure is None)
            ids = one.log(1)
            assert one.label((ids[0], "survived")) == ["counted"]
            assert one.value("store_up") == 1
        assert len(rows(where)) == 21


def test_a_locked_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with running(str(path)) as one:
        one.log(10)
        one.flushed()
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        one.log(10)
        assert refused(one)
        assert "locked" in str(one.store.failure)
        other.execute("ROLLBACK")
        other.close()
        wait_until(lambda: one.store.failure is None)
        assert one.label((one.log()[0], "survived")) == ["counted"]
    assert len(rows(str(path))) == 21


def test_a_folder_in_the_files_place_is_told_and_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.mkdir()
    with running(str(path)) as one:
        ids = one.log(3)
        assert refused(one)
        assert str(path) in str(one.store.failure)
        path.rmdir()
        wait_until(lambda: one.store.failure is None)
        assert one.label((ids[0], "survived")) == ["counted"]
    assert len(rows(str(path))) == 3


def test_a_file_in_the_folders_place_is_told(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with running(str(tmp_path / "state" / "s.sqlite")) as one:
        assert refused(one)
        assert "File exists" in str(one.store.failure) or "Not a directory" in str(one.store.failure)


def damaged(path: Path) -> None:
    with running(str(path)) as one:
        one.log(5000)
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE bills (amount)")
    connection.close()


def newer(path: Path) -> None:
    with running(str(path)) as one:
        one.log()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: path.write_bytes(b"not a database, and somebody's" * 1000), "not a database"),
        (damaged, "malformed"),
        (foreign, "of another program"),
        (newer, "has format 3, this version reads format 2"),
    ],
    ids=["text", "damaged", "foreign", "newer"],
)
def test_a_file_that_cannot_be_used_is_left_as_it_is(tmp_path: Path, make: Any, reason: str) -> None:
    path = tmp_path / "s.sqlite"
    make(path)
    content = path.read_bytes()
    with running(str(path)) as one:
        ids = one.log(3)
        assert refused(one)
        assert reason in str(one.store.failure)
        assert path.read_bytes() == content
        path.rename(tmp_path / "set-aside")
        wait_until(lambda: one.store.failure is None)
        assert one.label((ids[0], "survived")) == ["counted"]
    assert (tmp_path / "set-aside").read_bytes() == content


def test_a_file_that_is_removed_meanwhile_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    with running(str(path)) as one:
        one.log(3)
        one.flushed()
        for file in tmp_path.iterdir():
            file.unlink()
        ids = one.log(1)
        wait_until(lambda: path.exists() and one.store.failure is None)
        one.flushed()
        assert one.label((ids[0], "survived")) == ["counted"]
    assert [kept.id for kept, _ in rows(str(path))] == ids


FULL_DISK = """
import resource, signal, sys, time
from tests.service.store.test_store import refused, rows, running, wait_until
path = sys.argv[1]
with running(path) as one:
    ids = one.log(100)
    assert one.label((ids[0], "survived")) == ["counted"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
    ids += one.log(3000)
    assert refused(one)
    assert "disk" in one.store.failure, one.store.failure
    ids += one.log(100)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    wait_until(lambda: one.store.failure is None)
    assert one.label((ids[0], "survived"), (ids[-1], "died")) == ["repeated", "counted"]
assert sorted(kept.id for kept, _ in rows(path)) == sorted(ids)
"""


def test_a_full_disk_is_waited_for_and_nothing_is_lost(tmp_path: Path) -> None:
    # A limit on the size of files: to SQLite what a full disk is, and no privilege is needed to make one.
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "s.sqlite")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_a_row_that_is_never_taken_does_not_hold_up_the_others(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sqlite")
    with running(path) as one:
        one.log(3)
        one.log(1, probability=float("nan"))
        ids = one.log(3)
        assert one.label((ids[0], "survived")) == ["counted"]
        assert one.value("store_dropped_total", reason="refused") == 1
    assert len(rows(path)) == 6


def test_only_the_owner_may_read_it(tmp_path: Path) -> None:
    with running(str(tmp_path / "s.sqlite")) as one:
        one.log()
        one.flushed()
        assert {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()} == {0o600}


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError, match=r"needs psycopg: ./run setup postgres installs it"):
        database("postgresql://nowhere/x").open()


def test_a_password_is_in_no_message(caplog: pytest.LogCaptureFixture) -> None:
    with running("postgresql://somebody:secret-word@127.0.0.1:9/x") as one:
        assert refused(one)
        assert one.store.failure == "PostgreSQL: cannot be reached"
    assert "secret-word" not in caplog.text


def test_none_is_no_store() -> None:
    assert make_store(Settings(store="none"), Metrics(CollectorRegistry()), lambda _: None) is None


def test_reading_never_makes_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no file"):
        rows(str(tmp_path / "s.sqlite"))
    assert list(tmp_path.iterdir()) == []


def test_an_id_tells_its_time() -> None:
    now = time.time_ns() // 1_000_000
    assert 0 <= time_ms_of(uuid7()) - now < 1000
    assert LoggedPrediction._fields[0] == "id"


def test_an_outcome_is_a_class_of_the_table_that_was_predicted(where: str) -> None:
    with running(where) as one:
        one.serve("c1", churn.SCHEMA)
        passenger, customer = one.log()[0], uuid7()
        row = churn.customers(1)[0]
        one.store.log("c1", [customer], [row], [prediction(0.25, row, schema=churn.SCHEMA)])
        assert one.label((passenger, "leaves"), (customer, "survived"), (customer, "")) == ["unknown"] * 3
        assert one.label((customer, "stays"), (passenger, "died")) == ["counted"] * 2
        assert one.told == [CountedOutcome("c1", (0.75, 0.25), 0), CountedOutcome("v1", (0.75, 0.25), 0)]
        assert one.value("outcomes_total", version="c1", bin="0.2-0.3", outcome="stays") == 1
        assert one.value("outcomes_total", version="c1", bin="0.2-0.3", outcome="leaves") == 0
        assert one.value("outcomes_total", version="v1", bin="0.2-0.3", outcome="died") == 1
    # Another replica, or this one after a restart, knows the classes of what it has not served itself.
    with running(where) as one:
        assert one.label((customer, "leaves"), (customer, "stays")) == ["conflicting", "repeated"]
        wait_until(lambda: one.registry.get_sample_value("evenkeel_store_rows") == 2)
        assert one.value("outcomes_total", version="c1", bin="0.2-0.3", outcome="stays") == 0


def test_another_replicas_version_is_counted_under_its_classes(where: str) -> None:
    with running(where) as one, running(where) as other:
        one.flushed()
        other.serve("c1", churn.SCHEMA)
        row, id = churn.customers(1)[0], uuid7()
        other.store.log("c1", [id], [row], [prediction(0.75, row, schema=churn.SCHEMA)])
        other.flushed()
        assert one.label((id, "leaves")) == ["counted"]
        assert one.value("outcomes_total", version="c1", bin="0.7-0.8", outcome="leaves") == 1
