"""How well one column alone tells the label: one that does so almost perfectly was most likely written after it."""

import numpy as np
from scipy.stats import rankdata

GIVEAWAY_AUC = 0.995
LEAST_OF_CLASS = 5
"""Rows of a class without which a column may order them rightly by chance."""
FOLDS, QUANTILES = 5, 50
MOSTLY = 0.9
"""Share of numbers from which a column is one of numbers."""


def auc_alone(texts: list[str], numbers: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> float:
    """The area under the ROC curve of the label by one column, averaged over the classes, each against the others.

    By the order of its ``numbers`` (n,) float64, NaN where there are none, or by the share of a class among equal
    cells of other rows, whichever is better. ``labels`` (n,) are numbers of classes. A value that no other row has says
    nothing, so ids score ½. Classes of too few rows are among the others only; with fewer than two that have enough
    it is ½ as well.
    """
    classes, counts = np.unique(labels, return_counts=True)
    classes = classes[counts >= LEAST_OF_CLASS]
    if len(classes) < 2:
        return 0.5
    codes, folds = _codes(texts, numbers), _folds(labels, rng)
    return float(np.mean([_one_against_others(numbers, codes, labels == each, folds) for each in classes]))


def _one_against_others(numbers: np.ndarray, codes: np.ndarray, positive: np.ndarray, folds: np.ndarray) -> float:
    found = auc(_shares(codes, positive, folds), positive)
    known = np.isfinite(numbers)
    if known.mean() > MOSTLY and min(positive[known].sum(), (~positive[known]).sum()) >= LEAST_OF_CLASS:
        by_order = auc(numbers[known], positive[known])
        return max(found, by_order, 1 - by_order)
    return found


def _codes(texts: list[str], numbers: np.ndarray) -> np.ndarray:
    """Cells as numbers from 0 on, equal ones the same: texts as they are, many different numbers by quantiles."""
    known = np.isfinite(numbers)
    if known.mean() > MOSTLY and len(np.unique(numbers[known])) > QUANTILES:
        edges = np.unique(np.quantile(numbers[known], np.arange(1, QUANTILES) / QUANTILES))
        return np.where(known, np.searchsorted(edges, numbers, side="right") + 1, 0)
    return np.unique(np.array(texts), return_inverse=True)[1]


def _folds(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Folds (n,) with the same share of each class."""
    folds = np.empty(len(labels), dtype=np.int64)
    for each in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == each))
        folds[rows] = np.arange(len(rows)) % FOLDS
    return folds


def _shares(codes: np.ndarray, positive: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """Of each row, the share of positives among the rows of its code in the other folds, drawn to the base rate."""
    size, prior = int(codes.max()) + 1, float(positive.mean())
    shares = np.empty(len(codes))
    for fold in range(FOLDS):
        others, own = folds != fold, folds == fold
        count = np.bincount(codes[others], minlength=size)
        hits = np.bincount(codes[others], weights=positive[others], minlength=size)
        shares[own] = ((hits + prior) / (count + 1))[codes[own]]
    return shares


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """P(a positive's score is higher than a negative's), ties half: Mann and Whitney 1947."""
    count = int(positive.sum())
    ranks = float(rankdata(scores)[positive].sum())
    return (ranks - count * (count + 1) / 2) / (count * (len(positive) - count))
