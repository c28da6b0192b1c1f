"""A store of the format before is brought up to date where it is, whole or not at all."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from service.store import databases
from service.store.databases import SqliteFile, StoreError, database
from service.store.prediction_log import PredictionLog
from tests.service.store.test_store import rows, running, where
from tests.titanic import SCHEMA

__all__ = ["where"]
FORMAT_1 = """
CREATE TABLE evenkeel_predictions (
    id TEXT{collation} NOT NULL PRIMARY KEY,
    time_ms BIGINT NOT NULL,
    version TEXT NOT NULL,
    passenger TEXT,
    uncalibrated_probability DOUBLE PRECISION NOT NULL,
    probability DOUBLE PRECISION NOT NULL,
    survived SMALLINT,
    labelled_ms BIGINT
);
CREATE TABLE evenkeel_versions (
    version TEXT NOT NULL PRIMARY KEY,
    last_ms BIGINT NOT NULL
);
"""
IDS = [f"0199c1f2-0000-7000-8000-{n:012}" for n in range(4)]
NOW = 1_800_000_000_000
HELD = [
    (IDS[0], NOW, "abc", '{"pclass":3,"sex":"male"}', 0.5, 0.25, 1, NOW),
    (IDS[1], NOW, "abc", None, 0.1, 1 / 3, 0, NOW),
    (IDS[2], NOW, "abc", "sha256:00", 0.5, 0.75, None, None), (IDS[3], NOW, "gone", None, 0.5, 0.75, None, None),
]  # fmt: skip


def write_format_1(where: str) -> None:
    """What the version before wrote, by the SQL that it had."""
    held: Any
    if where.startswith("postgresql"):
        held = databases.Postgres(where)
        held._make_tables = lambda: None
        held.open()
        collation = ' COLLATE "C"'
    else:
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(where)
        connection.execute(f"PRAGMA application_id = {databases.APPLICATION_ID}")
        connection.execute("PRAGMA user_version = 1")
        connection.close()
        held = SqliteFile(Path(where))
        held._upgrade = lambda: None
        held._check_origin = lambda: None
        collation = ""
    held.close()
    held.open()
    with held.transaction(durable=True):
        for table in ("predictions", "versions"):
            held.change(f"DROP TABLE IF EXISTS evenkeel_{table}")
        for statement in filter(str.strip, FORMAT_1.format(collation=collation).split(";")):
            held.change(statement)
        for row in HELD:
            held.change(f"INSERT INTO evenkeel_predictions VALUES ({', '.join('?' * len(row))})", row)
        held.change("INSERT INTO evenkeel_versions VALUES (?, ?)", ("abc", NOW))
        if not collation:
            held.change("PRAGMA user_version = 1")
    held.close()


def test_what_the_version_before_kept_is_there(where: str) -> None:
    write_format_1(where)
    # Twice: what is up to date already is left as it is.
    for _ in range(2):
        kept = rows(where)
        assert [prediction[:6] for prediction, _ in kept] == [row[:6] for row in HELD]
        assert [outcome for _, outcome in kept] == ["survived", "died", None, None]
    held = database(where)
    held.open()
    log = PredictionLog(held)
    assert log.schemas() == {"abc": SCHEMA}
    assert held.query("SELECT labelled_ms FROM evenkeel_predictions ORDER BY id") == [(NOW,), (NOW,), (None,), (None,)]
    statuses, counted = log.label([(IDS[0], "survived"), (IDS[1], "survived"), (IDS[2], "survived"), (IDS[3], "died")])
    held.close()
    assert statuses == ["repeated", "conflicting", "counted", "unknown"]
    # What a bundle said before it was recalibrated was not kept then.
    assert [tuple(each) for each in counted] == [("abc", (0.25, 0.75), 1, None, IDS[2])]


def test_a_service_goes_on_with_it(where: str) -> None:
    write_format_1(where)
    with running(where, max_days=36_500) as one:
        (id,) = one.log()
        assert one.label((IDS[2], "died"), (id, "survived")) == ["counted", "counted"]
        assert one.value("outcomes_total", version="abc", bin="0.7-0.8", outcome="died") == 1


def test_a_stop_in_between_leaves_what_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "s.sqlite")
    write_format_1(path)

    def stopped(change: Any, collation: str = "") -> None:
        change("ALTER TABLE evenkeel_predictions RENAME TO evenkeel_predictions_1")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(databases, "upgrade", stopped)
        with pytest.raises(KeyboardInterrupt):
            rows(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM evenkeel_predictions").fetchone() == (4,)
    connection.close()
    assert len(rows(path)) == 4


def test_a_damaged_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    write_format_1(str(path))
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE evenkeel_versions")
    connection.close()
    with pytest.raises(StoreError, match="no such table"):
        rows(str(path))
