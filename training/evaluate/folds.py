"""Which rows are held out: folds, or one part of a large table. Equal rows and rows of one group stay together."""

import heapq
from collections import Counter
from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from sklearn.model_selection import StratifiedKFold

from models.rows import Row
from training.data.labels import MIN_PER_CLASS
from training.evaluate.clusters.errors import numbered

FOLDS, FEW_FOLDS, ONE_PART = 5, 3, 1
MANY_ROWS, VERY_MANY_ROWS = 2500, 20_000
"""Rows from which on there are `FEW_FOLDS`, and one held-out part: figures from fewer held-out rows are then as sharp
as anybody needs, and training is shorter (docs/decisions/budget.md)."""
HELD_OUT_PARTS, MAX_HELD_OUT = 5, 10_000
"""One part is held out of so many, or as many as leave at most so many rows in it."""
TRAINED_ON = -1
"""The fold number of rows that are never held out."""
SHOWN_CLASSES = 10
MIN_DISTINCT_ROWS = 50
"""Below, and where more than a tenth of all rows are equal, rows are equal because little is said of each, not because
one was written twice: they are divided like others."""


class Units(Struct, frozen=True, kw_only=True):
    """Rows that stay together: ``of_row`` (n,) the number of each row's unit, ``note`` a clause about rows that repeat
    others, "" where none does."""

    of_row: np.ndarray
    note: str = ""

    @property
    def single(self) -> bool:
        """Whether every row is a unit of its own."""
        return len(self.of_row) == int(self.of_row.max()) + 1


def find_units(rows: Sequence[Row], groups: np.ndarray | None) -> Units:
    """Rows with equal fields, and rows of one of the ``groups`` (n,), are one unit."""
    numbers: dict[Row, int] = {}
    equal = np.array([numbers.setdefault(row, len(numbers)) for row in rows])
    sizes = np.bincount(equal)
    repeating = int(sizes[sizes > 1].sum())
    if not repeating:
        return Units(of_row=equal if groups is None else numbered(groups))
    if groups is None and little_is_said(equal):
        note = f"there are only {len(sizes)} different rows, too few to keep equal ones together"
        return Units(of_row=np.arange(len(rows)), note=note)
    who = "every row is" if repeating == len(rows) else f"{repeating} of {len(rows)} rows are"
    note = f"{who} there twice or more, and equal rows are held out together"
    return Units(of_row=equal if groups is None else joined(equal, groups), note=note)


def little_is_said(numbers: np.ndarray) -> bool:
    """Whether rows have one number (n,) because there is little that they could differ in."""
    sizes = np.bincount(numbers)
    return len(sizes) < MIN_DISTINCT_ROWS and sizes.max() > len(numbers) / 10


def choose_folds(labels: np.ndarray, units: Units, asked: int | None, classes: Sequence[str]) -> int:
    """How many folds: as ``asked``, or by the number of rows and of those of the rarest class.

    Raises ValueError naming the classes with too few rows to train on and check with, or for the folds that were asked
    for.
    """
    counts = _units_of_classes(labels, units, len(classes))
    rarest = min(counts)
    if rarest < MIN_PER_CLASS:
        few = [f"{count} of {name!r}" for name, count in zip(classes, counts, strict=True) if count < MIN_PER_CLASS]
        shown = ", ".join(few[:SHOWN_CLASSES]) + (f" and {len(few) - SHOWN_CLASSES} more" * (len(few) > SHOWN_CLASSES))
        raise ValueError(
            f"there are too few different rows to train on and to check with: {shown}; at least {MIN_PER_CLASS} of "
            "each class are needed: add some, or join the class with another in the table, or leave it out of both "
            "the table and its description"
        )
    if asked is None:
        rows = len(labels)
        wanted = FOLDS if rows < MANY_ROWS else FEW_FOLDS if rows < VERY_MANY_ROWS else ONE_PART
        if wanted == ONE_PART and rarest < 2 * HELD_OUT_PARTS:
            # One part would hold out a row or two of it.
            wanted = FEW_FOLDS
        return min(wanted, max(2, rarest // 2))
    if not ONE_PART <= asked <= rarest:
        raise ValueError(
            f"folds is {asked}; it must be at least 1, which is one held-out part, and at most {rarest}, the rows of "
            "the rarest class"
        )
    return asked


def make_folds(labels: np.ndarray, folds: int, seed: int, units: Units | None = None) -> np.ndarray:
    """Fold number (n,) of each row, 0 … folds − 1, stratified by label; with one fold, 0 for the rows of a held-out
    part and `TRAINED_ON` for the others.

    Raises ValueError when a class has fewer units than there are folds, so that one would be without it.
    """
    if folds == ONE_PART:
        parts = max(HELD_OUT_PARTS, -(-len(labels) // MAX_HELD_OUT))
        parts = max(2, min(parts, min(_units_of_classes(labels, units)) // 2))
        return np.where(make_folds(labels, parts, seed, units) == 0, 0, TRAINED_ON)
    smallest = min(_units_of_classes(labels, units))
    if not 2 <= folds <= smallest:
        raise ValueError(f"folds is {folds}; it must be at least 2 and at most {smallest}, the rows of the rarer class")
    if units is not None and not units.single:
        return _stratified_units(labels, units.of_row, folds, np.random.default_rng(seed))
    assigned = np.empty(len(labels), np.int64)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        assigned[held_out] = fold
    return assigned


def _stratified_units(labels: np.ndarray, units: np.ndarray, folds: int, rng: np.random.Generator) -> np.ndarray:
    """Units of several rows first, the largest foremost, each to the fold where it makes the classes' shares least
    uneven; then the single rows of each class to the fold that has the fewest of it."""
    counts = np.zeros((int(units.max()) + 1, int(labels.max()) + 1))
    np.add.at(counts, (units, labels), 1)
    sizes, weight = counts.sum(axis=1), 1 / counts.sum(axis=0) ** 2
    have, fold_of = np.zeros((folds, counts.shape[1])), np.empty(len(counts), np.int64)
    order = rng.permutation(len(counts))
    for unit in order[np.argsort(-sizes[order], kind="stable")].tolist():
        if sizes[unit] == 1:
            break
        # What the sum over folds of the squared shares of each class grows by.
        fold_of[unit] = int(np.argmin((counts[unit] * (2 * have + counts[unit]) * weight).sum(axis=1)))
        have[fold_of[unit]] += counts[unit]
    for k in range(counts.shape[1]):
        heap = [(float(count), fold) for fold, count in enumerate(have[:, k])]
        heapq.heapify(heap)
        for unit in order[(sizes[order] == 1) & (counts[order, k] == 1)].tolist():
            count, fold_of[unit] = heap[0]
            heapq.heapreplace(heap, (count + 1, int(fold_of[unit])))
    assigned = np.asarray(fold_of[units])
    if any(len(np.unique(assigned[labels == k])) < folds for k in range(counts.shape[1])):
        raise ValueError(f"{folds} folds cannot all have rows of each class while equal rows and groups stay together")
    return assigned


def _units_of_classes(labels: np.ndarray, units: Units | None, classes: int = 0) -> list[int]:
    """Of each class, the units with a row of it; ``classes`` where the last may have none."""
    of_row = np.arange(len(labels)) if units is None else units.of_row
    pairs = set(zip(labels.tolist(), of_row.tolist(), strict=True))
    counts = Counter(label for label, _ in pairs)
    return [counts[label] for label in range(max(classes, int(labels.max()) + 1))]


def joined(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Rows with one number in either are one unit: the connected components of a graph of rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    groups = numbered(second) + first.max() + 1
    size = int(groups.max()) + 1
    graph = coo_array((np.ones(len(first), bool), (first, groups)), shape=(size, size))
    return numbered(connected_components(graph, directed=False)[1][first])
