"""Rows that depend on each other share a cluster: a group's, a ticket's, or a row's that is there twice."""

import dataclasses

import numpy as np

from tests import churn
from tests.titanic import SCHEMA, Passenger
from training.data.table import Table
from training.promote.clusters import row_clusters


def test_passengers_share_their_tickets_and_equal_ones_are_one() -> None:
    tickets = ["A 1", None, "B", "a1", None, None]
    rows = [Passenger(pclass=1, sex="male", age=at % 5, ticket=ticket) for at, ticket in enumerate(tickets)]
    rows.append(rows[1])
    found = row_clusters(Table(SCHEMA, tuple(rows), np.zeros(7, np.int64), "")).tolist()
    assert found[0] == found[3]
    assert found[1] == found[6]
    assert sorted(set(found)) == list(range(5))


def test_a_group_says_more_than_what_is_equal() -> None:
    table = churn.table(4)
    twice = dataclasses.replace(table, rows=table.rows + table.rows, labels=np.tile(table.labels, 2))
    assert row_clusters(twice).tolist()[:4] == row_clusters(twice).tolist()[4:]
    assert len(set(row_clusters(twice).tolist())) == 4
    grouped = dataclasses.replace(twice, groups=np.array([7, 7, 7, 7, 3, 3, 3, 9]))
    assert row_clusters(grouped).tolist() == [1, 1, 1, 1, 0, 0, 0, 2]
