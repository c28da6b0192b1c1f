"""The store's tables in SQL that both databases understand, and how those of the format before become them."""

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from models.schema import read_packaged

FORMAT = 2
TABLES = """
CREATE TABLE IF NOT EXISTS evenkeel_predictions (
    id TEXT{collation} NOT NULL PRIMARY KEY,
    time_ms BIGINT NOT NULL,
    version TEXT NOT NULL,
    inputs TEXT,
    uncalibrated_probability DOUBLE PRECISION NOT NULL,
    probability DOUBLE PRECISION NOT NULL,
    outcome TEXT,
    labelled_ms BIGINT
);
CREATE TABLE IF NOT EXISTS evenkeel_versions (
    version TEXT NOT NULL PRIMARY KEY,
    last_ms BIGINT NOT NULL,
    description TEXT NOT NULL
);
"""
"""``id`` is a UUIDv7, so its order is time's. ``inputs`` is what is kept of the row, ``outcome`` the name of a class,
or null while there is none, ``description`` the version's schema.json."""
VECTORS = ("probabilities", "uncalibrated_probabilities")
"""Columns that predictions have from the first version on that has more than two classes: JSON arrays of all classes'
probabilities, in order. `probability` is then that of the outcome, and `uncalibrated_probability` of the same class;
of two classes it is that of the positive one, and the arrays are null."""


BUNDLE_PROBABILITY = "bundle_probability"
"""A column that predictions have once a service recalibrated its probabilities online: `probability` is what was
served, this is what the bundle alone gave, which outcomes are compared with; null where the two are one."""


class Change(Protocol):
    """`Database.change`."""

    def __call__(self, sql: str, parameters: Sequence[Any] = ()) -> int: ...


def make_tables(change: Change, collation: str = "") -> None:
    """Make the tables, where there are none; to be called in a transaction."""
    for statement in filter(str.strip, TABLES.format(collation=collation).split(";")):
        change(statement)


def upgrade(change: Change, collation: str = "") -> None:
    """Tables of format 1 → those of `FORMAT`, with all that they hold; to be called in a transaction.

    Format 1 had the same columns in the same order, with the label's value in place of the class's name, and knew one
    table only: that which came with the program.
    """
    schema = read_packaged()
    for table in ("predictions", "versions"):
        change(f"ALTER TABLE evenkeel_{table} RENAME TO evenkeel_{table}_1")
    make_tables(change, collation)
    change("INSERT INTO evenkeel_predictions SELECT * FROM evenkeel_predictions_1")
    for each in schema.label.classes:
        change("UPDATE evenkeel_predictions SET outcome = ? WHERE outcome = ?", (each.name, each.value))
    change(
        "INSERT INTO evenkeel_versions (version, last_ms, description) "
        "SELECT version, last_ms, CAST(? AS TEXT) FROM evenkeel_versions_1",
        (msgspec.json.encode(schema).decode(),),
    )
    for table in ("predictions", "versions"):
        change(f"DROP TABLE evenkeel_{table}_1")
