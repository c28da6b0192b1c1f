"""Gradient-boosted trees as flat arrays, evaluated level by level, all trees at once."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from models.calibration.logit import MAX_VALUE
from models.second.inputs import RowInputs, RowReader

MAX_NODES = 200_000
MAX_DEPTH = 64
CHUNK = 256
"""Rows that walk the trees together: it bounds memory."""


class TreesModel(Struct, frozen=True, kw_only=True, tag_field="model", tag="trees", forbid_unknown_fields=True):
    """``numbers`` and ``categories`` are the columns' names, in this order; ``intercept`` is what all trees add to, one
    number for two classes or one for each of more. The trees are in the file beside."""

    intercept: tuple[float, ...]
    numbers: tuple[str, ...]
    categories: tuple[str, ...]

    def check(self, reader: RowReader, columns: int) -> None:
        """Raise ValueError unless it is of the reader's columns, with so many intercepts, all of them bounded."""
        if self.numbers != reader.numbers or self.categories != reader.categories:
            raise ValueError("numbers and categories must be the schema's, in order")
        if len(self.intercept) != columns or not (np.abs(self.intercept) <= MAX_VALUE).all():
            raise ValueError(f"intercept must be {columns} numbers within ±{MAX_VALUE:g}")


class Trees(Struct, frozen=True, kw_only=True):
    """``roots`` (T,) int64, the first nodes of the trees, which take turns among the classes; of each node (M,):
    ``column`` int64, ``threshold`` float64 (a value up to it goes left), ``missing_left`` bool, ``left`` and ``right``
    int64, a leaf's its own number, and ``value`` float64 of a leaf."""

    roots: np.ndarray
    column: np.ndarray
    threshold: np.ndarray
    missing_left: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray

    def check(self, features: int, columns: int) -> None:
        """Raise ValueError for a number that leads nowhere, or is not finite; children come after their parents, so
        every walk ends."""
        nodes = np.arange(len(self.column))
        if not len(self.roots) or len(self.roots) % columns:
            raise ValueError("trees must be as many for each class, at least one")
        if (self.roots < 0).any() or (self.roots >= len(nodes)).any():
            raise ValueError("a root is no node")
        if (self.column < 0).any() or (self.column >= max(features, 1)).any():
            raise ValueError("a node asks for a column that there is not")
        leaf = (self.left == nodes) & (self.right == nodes)
        ahead = (self.left > nodes) & (self.right > nodes) & (self.left < len(nodes)) & (self.right < len(nodes))
        if not (leaf | ahead).all():
            raise ValueError("a node's children must come after it")
        if not np.isfinite(self.threshold).all() or not (np.abs(self.value) <= MAX_VALUE).all():
            raise ValueError(f"thresholds must be finite, and values within ±{MAX_VALUE:g}")
        self.depth()

    def depth(self) -> int:
        """Steps from the roots to the deepest leaf. Raises ValueError beyond `MAX_DEPTH`."""
        here = np.unique(self.roots)
        for depth in range(MAX_DEPTH + 1):
            inner = here[self.left[here] != here]
            if not len(inner):
                return depth
            here = np.unique(np.concatenate([self.left[inner], self.right[inner]]))
        raise ValueError(f"a tree is deeper than {MAX_DEPTH}")


class TreesScorer:
    """Rows' inputs → the score of each, (n, 1) for two classes or (n, K)."""

    def __init__(self, model: TreesModel, trees: Trees):
        self._intercept, self._trees, self._depth = np.array(model.intercept), trees, trees.depth()
        # Left and right beside each other: one look-up by where a row goes.
        self._children = np.stack([trees.right, trees.left], axis=1).ravel()
        self._missing = trees.missing_left.astype(bool)
        self._any_missing_left = bool(self._missing.any())

    def __call__(self, inputs: Sequence[RowInputs]) -> np.ndarray:
        columns = np.array([(*each.numbers, *each.categories) for each in inputs], np.float64)
        return np.concatenate([self.of(columns[first : first + CHUNK]) for first in range(0, len(inputs), CHUNK)])

    def of(self, columns: np.ndarray) -> np.ndarray:
        """Columns (n, F) float64, NaN where unknown → scores."""
        trees = self._trees
        if len(columns) == 1:
            leaves = self._walk_one(columns[0])[None]
        else:
            node = np.broadcast_to(trees.roots, (len(columns), len(trees.roots)))
            rows = np.arange(len(columns))[:, None]
            for _ in range(self._depth):
                node = self._next(node, columns[rows, trees.column[node]])
            leaves = trees.value[node]
        classes = len(self._intercept)
        sums = leaves.reshape(len(columns), -1, classes)
        # Summed in one order, whatever the batch.
        return np.asarray(np.add.accumulate(sums, axis=1)[:, -1] + self._intercept)

    def _walk_one(self, row: np.ndarray) -> np.ndarray:
        # All nodes at once are faster than those on the way, one level after the other.
        after = self._next(np.arange(len(self._trees.column)), row[self._trees.column])
        node = self._trees.roots
        for _ in range(self._depth):
            node = after[node]
        return np.asarray(self._trees.value[node])

    def _next(self, node: np.ndarray, values: np.ndarray) -> np.ndarray:
        left = values <= self._trees.threshold[node]
        if self._any_missing_left:
            left |= np.isnan(values) & self._missing[node]
        return np.asarray(self._children[2 * node + left])
