"""Were rows that a bundle is to be judged on among those that it was trained or calibrated on?"""

import math

import numpy as np
from msgspec import Struct

from models.bundle.read import Bundle
from models.features.registry import find_feature
from training.data.table import Table

ERRORS = 3
"""Standard errors above chance from which on equal rows are taken for the same ones."""


class SeenRows(Struct, frozen=True, kw_only=True):
    """Of ``rows`` rows, ``seen`` equal training rows of a bundle, where ``by_chance`` new ones would; ``file``: it was
    made from their very file. ``checkable``: the bundle keeps its rows, one by one."""

    rows: int
    seen: int
    by_chance: float
    file: bool
    checkable: bool

    @property
    def trained(self) -> bool:
        """Whether rows trained the bundle: more are equal than chance makes so."""
        spread = math.sqrt(self.by_chance * max(0.0, 1 - self.by_chance / self.rows))
        return self.file or self.seen > self.by_chance + ERRORS * spread

    def __str__(self) -> str:
        chance = f" (of new ones about {self.by_chance:.0f} would)" if self.by_chance >= 0.5 else ""
        return f"{self.seen} of {self.rows} rows equal training rows{chance}"


def find_seen(table: Table, bundle: Bundle) -> SeenRows:
    """Which rows the bundle was trained or calibrated on, as far as it knows: by the file's sha256, by hashes of its
    training rows, and by what its feature knows."""
    kept, feature, origin = bundle.training_rows, find_feature(bundle.schema), bundle.manifest.origin
    seen = np.zeros(len(table), bool) if kept is None else kept.among(table.rows)
    if feature is not None:
        seen |= np.array([feature.knows(row, bundle.known) for row in table.rows], bool)
    return SeenRows(
        rows=len(table), seen=int(seen.sum()), by_chance=0.0 if kept is None else kept.chance * len(table),
        file=table.sha256 in (origin.data.sha256, origin.calibrated_on.sha256), checkable=kept is not None,
    )  # fmt: skip
