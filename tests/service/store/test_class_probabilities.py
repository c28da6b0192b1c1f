"""Predictions of more than two classes in the store, beside those of two, which are kept as ever."""

import csv
from pathlib import Path

import pytest

from service.store.databases import database
from service.store.export import export
from service.store.prediction_log import CountedOutcome
from service.store.tables import VECTORS
from service.uuid7 import uuid7
from tests import churn, penguins
from tests.service.predictions import prediction, prediction_of
from tests.service.store.test_store import Running, rows, running, wait_until, where

__all__ = ["where"]
P = [(0.2, 0.7, 0.1), (0.5, 0.25, 0.25), (0.05, 0.15, 0.8)]
PENGUINS = penguins.table(3).rows


def log_penguins(one: Running, version: str = "p1") -> list[str]:
    """Log a prediction of each of `P`."""
    one.serve(version, penguins.SCHEMA)
    # In the order of time, which those of one millisecond need not have.
    ids = sorted(uuid7() for _ in P)
    answers = [prediction_of(p, row, penguins.SCHEMA) for p, row in zip(P, PENGUINS, strict=True)]
    one.store.log(version, ids, PENGUINS, answers)
    return ids


def columns(where: str) -> set[str]:
    held = database(where, create=False)
    held.open()
    try:
        return held.columns("evenkeel_predictions")
    finally:
        held.close()


def test_all_probabilities_are_kept_and_counted(where: str) -> None:
    with running(where, inputs="row") as one:
        ids = log_penguins(one)
        assert one.label((ids[0], "Adelie"), (ids[1], "Chinstrap"), (ids[2], "survived")) == [
            "counted", "counted", "unknown",
        ]  # fmt: skip
        assert one.told == [CountedOutcome("p1", P[0], 1), CountedOutcome("p1", P[1], 2)]
        assert one.value("outcomes_total", version="p1", bin="Adelie 0.7-0.8", outcome="Adelie") == 1
        assert one.value("outcomes_total", version="p1", bin="Gentoo 0.5-0.6", outcome="Chinstrap") == 1
        assert one.value("outcome_probability_sum_total", version="p1", bin="Gentoo 0.5-0.6") == 0.5
    kept = rows(where)
    assert [each.prediction.probabilities for each in kept] == P
    assert [each.prediction.probability for each in kept] == [0.7, 0.5, 0.8]
    assert all(each.prediction.uncalibrated_probabilities == (1 / 3,) * 3 for each in kept)
    assert [each.outcome for each in kept] == ["Adelie", "Chinstrap", None]


def test_a_store_of_two_classes_is_as_it_was_until_there_are_more(where: str) -> None:
    with running(where) as one:
        one.log(2)
        one.flushed()
        before = columns(where)
        assert not before & set(VECTORS)
        log_penguins(one)
        one.flushed()
        one.log(1, probability=0.75)
        one.flushed()
        row = churn.customers(1)[0]
        one.serve("c1", churn.SCHEMA)
        one.store.log("c1", [uuid7()], [row], [prediction(0.4, row, schema=churn.SCHEMA)])
    assert columns(where) == before | set(VECTORS)
    kept = [each.prediction for each in rows(where)]
    assert [each.probability for each in kept] == [0.25, 0.25, 0.7, 0.5, 0.8, 0.75, 0.4]
    assert [each.probabilities for each in kept] == [None, None, *P, None, None]


def test_another_replica_counts_them_too(where: str) -> None:
    with running(where) as one, running(where) as other:
        one.log()
        one.flushed()
        ids = log_penguins(other)
        wait_until(lambda: len(rows(where)) == 4)
        assert one.label((ids[2], "Gentoo")) == ["counted"]
        assert one.told == [CountedOutcome("p1", P[2], 0)]
        assert one.value("outcome_brier_sum_total", version="p1") == pytest.approx(0.95**2 + 0.15**2 + 0.8**2)


def test_an_export_has_a_column_for_each_class(tmp_path: Path) -> None:
    store, out = str(tmp_path / "s.sqlite"), tmp_path / "out.csv"
    with running(store, inputs="row") as one:
        ids = log_penguins(one)
        one.label((ids[0], "Adelie"))
    done = export(store, out)
    assert (done.rows, done.labelled, done.bare) == (3, 1, 0)
    found = list(csv.DictReader(out.read_text().splitlines()))
    assert list(found[0])[5:] == [
        "id", "time", "version", "probability_Gentoo", "probability_Adelie", "probability_Chinstrap",
        "uncalibrated_probability_Gentoo", "uncalibrated_probability_Adelie", "uncalibrated_probability_Chinstrap",
        "row_sha256",
    ]  # fmt: skip
    assert [tuple(float(row[f"probability_{name}"]) for name in penguins.SPECIES) for row in found] == P
    assert [row["species"] for row in found] == ["Adelie", "", ""]
    assert penguins.ROWS.find_columns(list(found[0]))
