"""scikit-learn's fitted models as a bundle keeps them, compared with the originals before they are used."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from models.schema import Schema
from models.second.inputs import RowInputs, RowReader
from models.second.linear import CategoryTerm, LinearModel, NumberTerm
from models.second.model import SecondModel
from models.second.trees import Trees, TreesModel

TOLERANCE = 1e-9
"""Largest accepted difference of a score, as a share of it where that is above 1."""
PERTURBED_ROWS = 2000
LARGEST = np.finfo(np.float64).max


class ExportError(ValueError):
    """A second model that does not compute what scikit-learn's computes."""


def linear_model(
    coefficients: np.ndarray, intercept: np.ndarray, knots: Sequence[np.ndarray], sizes: Sequence[int], schema: Schema
) -> LinearModel:
    """Coefficients (C, columns) of `training.second.inputs.linear_columns` → each field's part of the score.

    The coefficient of a range between knots is what the spline rises by over it.
    """
    reader, at = RowReader(schema, None), 0
    weights = coefficients.T.astype(np.float64)

    def take(count: int) -> np.ndarray:
        nonlocal at
        at += count
        return weights[at - count : at]

    numbers = []
    for name, places in zip(reader.numbers, knots, strict=True):
        rises = take(len(places) - 1)
        values = np.concatenate([np.zeros((1, weights.shape[1])), np.cumsum(rises, axis=0)])
        (unknown,) = take(1)
        numbers.append(
            NumberTerm(
                field=name, knots=tuple(places.tolist()), at_knots=_rows(values), unknown=tuple(unknown.tolist())
            )
        )
    categories = [
        CategoryTerm(field=name, values=_rows(take(size))) for name, size in zip(reader.categories, sizes, strict=True)
    ]
    return LinearModel(
        intercept=tuple(np.atleast_1d(intercept).tolist()), numbers=tuple(numbers), categories=tuple(categories)
    )


def _rows(values: np.ndarray) -> tuple[tuple[float, ...], ...]:
    return tuple(map(tuple, values.tolist()))


def tree_arrays(model: Any, columns: np.ndarray, schema: Schema) -> SecondModel:
    """A fitted HistGradientBoostingClassifier; ``columns`` (F,) are the numbers of the columns that it was given.

    scikit-learn has no public way to its nodes: its own ``_predictors`` is read, and what comes out is compared.
    """
    reader = RowReader(schema, None)
    nodes = [tree.nodes for round_ in model._predictors for tree in round_]
    roots = np.cumsum([0, *map(len, nodes)])[:-1]
    joined = np.concatenate(nodes)
    own, shift = np.arange(len(joined)), np.repeat(roots, list(map(len, nodes)))
    leaf = joined["is_leaf"].astype(bool)

    def children(name: str) -> np.ndarray:
        return np.where(leaf, own, joined[name].astype(np.int64) + shift)

    trees = Trees(
        roots=roots.astype(np.int64), column=np.where(leaf, 0, columns[joined["feature_idx"]]).astype(np.int64),
        # Without a bound: what is known goes left, and only what is unknown goes right.
        threshold=np.where(leaf, 0.0, np.minimum(joined["num_threshold"], LARGEST)),
        missing_left=joined["missing_go_to_left"].astype(bool) & ~leaf, left=children("left"),
        right=children("right"), value=np.where(leaf, joined["value"], 0.0),
    )  # fmt: skip
    intercept = tuple(np.asarray(model._baseline_prediction, np.float64).ravel().tolist())
    description = TreesModel(intercept=intercept, numbers=reader.numbers, categories=reader.categories)
    return SecondModel(model=description, arrays=trees)


def check_export(
    score: Callable[[Sequence[RowInputs]], np.ndarray], original: Callable[[Sequence[RowInputs]], np.ndarray],
    inputs: Sequence[RowInputs], sizes: Sequence[int], edges: Sequence[Sequence[float]], rng: np.random.Generator,
) -> None:  # fmt: skip
    """Raise ExportError unless ``score`` gives what ``original`` gives, scikit-learn's in float64, for the rows' inputs
    and for perturbed ones: values unknown, at ``edges`` of each number and just beside them, far outside, and other
    categories."""
    rows = [*inputs, *_perturbed(inputs, sizes, edges, rng)]
    found, wanted = score(rows), original(rows)
    scale = np.maximum(1.0, np.abs(wanted))
    worst = float((np.abs(found - wanted) / scale).max()) if len(rows) else 0.0
    if not worst <= TOLERANCE:
        raise ExportError(f"a score differs from scikit-learn's by {worst:.2g} of it, more than {TOLERANCE:g}")


def _perturbed(
    inputs: Sequence[RowInputs], sizes: Sequence[int], edges: Sequence[Sequence[float]], rng: np.random.Generator
) -> list[RowInputs]:
    """Rows of which each value may be another one."""
    choices: list[list[float | None]] = []
    for at, own in enumerate(edges):
        known = [value for each in inputs if (value := each.numbers[at]) is not None]
        ends = [min(known) - 1e6, max(known) + 1e6] if known else [0.0]
        # Not towards infinity: `LARGEST` may be an edge, and what is beyond it is no number that a row may have.
        beside = [float(np.nextafter(edge, way)) for edge in own for way in (-LARGEST, LARGEST)]
        choices.append([None, *ends, *own, *beside])
    made = []
    for number in rng.integers(len(inputs), size=min(PERTURBED_ROWS, 4 * len(inputs))).tolist():
        row = inputs[number]
        numbers = tuple(
            choices[at][rng.integers(len(choices[at]))] if rng.random() < 0.5 else value
            for at, value in enumerate(row.numbers)
        )
        categories = tuple(
            int(rng.integers(size)) if rng.random() < 0.5 else value
            for size, value in zip(sizes, row.categories, strict=True)
        )
        made.append(RowInputs(numbers, categories, row.text))
    return made
