"""Which rows depend on each other, and so count as one."""

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from models.features.registry import find_feature
from training.data.table import Table


def row_clusters(table: Table) -> np.ndarray:
    """Cluster number (n,) int64 from 0 on, without gaps.

    Rows share one where they are of one group, where the schema's feature says so (passengers on one ticket), or where
    they are equal: an export has a row as often as it was asked for.
    """
    feature = find_feature(table.schema)
    keys: list[Sequence[Any]] = [list(map(msgspec.json.encode, table.rows))]
    if table.groups is not None:
        keys.append(table.groups.tolist())
    if feature is not None:
        keys.append([feature.cluster(row) or None for row in table.rows])
    return _join(len(table), keys)


def _join(rows: int, keys: Sequence[Sequence[Any]]) -> np.ndarray:
    """Rows that share a key other than None, directly or over others, get one number."""
    parent = list(range(rows))

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for of_rows in keys:
        first: dict[Any, int] = {}
        for row, key in enumerate(of_rows):
            if key is not None:
                parent[root(row)] = root(first.setdefault(key, row))
    return np.unique([root(row) for row in range(rows)], return_inverse=True)[1].astype(np.int64)
