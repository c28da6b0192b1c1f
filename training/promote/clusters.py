"""Which rows depend on each other, and so count as one."""

import msgspec
import numpy as np

from models.features.registry import find_feature
from training.data.table import Table


def row_clusters(table: Table) -> np.ndarray:
    """Cluster number (n,) int64 from 0 on, without gaps.

    Rows share one where they are of one group, if the schema has groups; else where its feature says so (passengers on
    one ticket), or where they are equal: an export has a row as often as it was asked for. In a table so coarse that
    different rows are often equal this counts too few, which promotes too little and never too much; a ``group``
    says better what belongs together.
    """
    if table.groups is not None:
        return np.unique(table.groups, return_inverse=True)[1].astype(np.int64)
    feature = find_feature(table.schema)
    keys = [
        (feature is not None and feature.cluster(row)) or msgspec.json.encode(row).decode() for row in table.rows
    ]  # fmt: skip
    return np.unique(keys, return_inverse=True)[1].astype(np.int64)
