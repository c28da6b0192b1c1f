"""The seeds that a table is cross-fitted with, each with folds of its own: one seed's figures may be lucky ones."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from models.text import Renderer
from training.data.table import Table, fold_known
from training.evaluate.folds import MANY_ROWS, Units, make_folds

FEW_ROWS_SEEDS, MAX_SEEDS = 3, 20
"""Seeds of a table below `MANY_ROWS`, by default; of more rows one says as much, and takes as long."""


class SeedFolds(NamedTuple):
    """A seed, the fold (n,) of each row by it, and what the schema's feature knows for each fold's model."""

    seed: int
    folds: np.ndarray
    known: Sequence[Any]


def choose_seeds(rows: int, asked: int | None) -> int:
    """How many seeds: as ``asked``, or by the number of rows. Raises ValueError."""
    if asked is None:
        return FEW_ROWS_SEEDS if rows < MANY_ROWS else 1
    if not 1 <= asked <= MAX_SEEDS:
        raise ValueError(f"seeds is {asked}; it must be from 1 to {MAX_SEEDS}")
    return asked


def seed_folds(
    table: Table, renderer: Renderer, units: Units, *, first: int, seeds: int, folds: int, feature: bool
) -> list[SeedFolds]:
    """``seeds`` ways to divide the table into ``folds``, of the seeds ``first``, ``first`` + 1, …"""
    divided = [make_folds(table.labels, folds, seed, units) for seed in range(first, first + seeds)]
    return [
        SeedFolds(seed, each, fold_known(renderer, table.rows, table.labels, each, feature))
        for seed, each in enumerate(divided, first)
    ]
