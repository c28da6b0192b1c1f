"""How often prediction sets hold the outcome of each class within each group of rows, and what that costs."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from training.evaluate.clusters.errors import picked
from training.evaluate.estimates import Estimate, exact_proportion
from training.evaluate.groups import MIN_GROUP_ROWS, Members, group_title
from training.evaluate.selective_risk import SetCoverage


class SetCell(Struct, frozen=True, kw_only=True):
    """The rows of one class in one group: how many of their sets hold it, with the exact binomial interval."""

    attribute: str
    group: str
    outcome: str
    rows: int
    coverage: Estimate

    @property
    def title(self) -> str:
        """The cell as it stands alone: sex: female, of the class died."""
        return f"{group_title(self.attribute, self.group)}, of the class {self.outcome}"


class SetCells(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Coverage of the sets of a bundle's nominal coverage by class and group.

    ``worst`` is the cell of least coverage among the ``compared`` ones, those of at least `MIN_GROUP_ROWS` rows; None
    where there is none. Of many cells the least is low by chance too, which its interval, of one cell by itself, does
    not tell.
    """

    cells: tuple[SetCell, ...]
    compared: int
    worst: SetCell | None = None


class ConditionalSets(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a fold's sets are by a field: which one, None where they are not, and what sets of the class alone would
    have been on the same rows."""

    chosen: tuple[str | None, ...]
    plain: SetCoverage
    plain_worst: SetCell | None = None


def set_cells(
    member: np.ndarray, labels: np.ndarray, groups: Members, classes: Sequence[str], clusters: np.ndarray | None = None
) -> SetCells:
    """Coverage of sets (n, K) bool against labels (n,), for each class in each of the groups that has rows of it;
    ``clusters`` (n,) as of `exact_proportion`."""
    held = member[np.arange(len(labels)), labels]
    cells = tuple(
        _cell(key, outcome, held[of_class], picked(clusters, of_class))
        for key, rows in groups.items() for k, outcome in enumerate(classes)
        if len(of_class := rows[labels[rows] == k])
    )  # fmt: skip
    compared = [cell for cell in cells if cell.rows >= MIN_GROUP_ROWS]
    worst = min(compared, key=lambda cell: cell.coverage.value, default=None)
    return SetCells(cells=cells, compared=len(compared), worst=worst)


def _cell(key: tuple[str, str], outcome: str, held: np.ndarray, clusters: np.ndarray | None) -> SetCell:
    return SetCell(
        attribute=key[0], group=key[1], outcome=outcome, rows=len(held),
        coverage=exact_proportion(held, clusters),
    )  # fmt: skip
