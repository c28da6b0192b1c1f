"""What must hold before two bundles are compared: one question, and rows that neither was trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from models.bundle.read import Bundle
from training.bundle.seen import find_seen
from training.data.labels import check_classes
from training.data.source import DataError
from training.data.table import Table, read_table


def read_for_both(path: Path, candidate: Bundle, current: Bundle) -> tuple[Table, Table]:
    """The rows as the candidate's schema reads them, and as the current bundle's does.

    Raises DataError where the two have other classes, or read other labels.
    """
    ours, theirs = candidate.schema, current.schema
    if ours.classes != theirs.classes:
        raise DataError(
            f"the candidate, {ours.name}, has the classes {', '.join(ours.classes)}, and the current bundle, "
            f"{theirs.name}, has {', '.join(theirs.classes)}, in this order: there is nothing to compare"
        )
    table = read_table(path, ours, fitting=False)
    check_classes(path, table.labels, ours.classes, 0)
    other = table if ours == theirs else read_table(path, theirs, fitting=False)
    if not np.array_equal(table.labels, other.labels):
        raise DataError(f"{path}: the two bundles read other labels in it: their schemas spell the classes differently")
    return table, other


def refuse_seen_rows(tables: Sequence[Table], bundles: Mapping[str, Bundle]) -> tuple[str, ...]:
    """Raises DataError where rows are training rows of a bundle; returns what cannot be known of that."""
    caveats = [note for note in (tables[0].note,) if note]
    for table, (name, bundle) in zip(tables, bundles.items(), strict=True):
        seen = find_seen(table, bundle)
        if seen.file:
            raise DataError(f"the rows are those that the {name} bundle was trained on; give others")
        if seen.trained:
            raise DataError(f"{seen} of the {name} bundle: leave them out")
        if not seen.checkable:
            caveats.append(f"the {name} bundle does not say what was in its training table: see to it that no row was")
        elif seen.seen:
            caveats.append(f"{seen} of the {name} bundle: they are so alike that nobody can say whether they are new")
    return tuple(caveats)
