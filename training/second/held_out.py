"""Second models of a table: their held-out scores on the folds of the cross-fit, and the ones that a bundle keeps."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from models.bert.tokenizer import Tokenizer
from models.rows import Row
from models.schema import Schema
from models.second.inputs import RowInputs, RowReader, free_texts
from models.second.linear import LinearModel, WordsModel
from models.second.model import SecondModel, SecondScorers, second_scores
from models.second.trees import Trees
from training.second.export import check_export
from training.second.fits import Fitted, fit_linear, fit_trees, fit_words
from training.second.inputs import Inputs

MAX_FIT_ROWS = 50_000
"""Rows that a model is fitted on, a random sample of more: it bounds time, and more would hardly change a score."""
CHECKED_ROWS = 5000
AUTO, NONE = "auto", "none"
NAMES = ("linear", "trees", "words")

Fit = Callable[[Inputs, np.ndarray], Callable[[Inputs], np.ndarray]]
"""Inputs and labels → what gives other inputs' scores or probabilities, (n,) or (n, K)."""


def possible(schema: Schema) -> tuple[str, ...]:
    """The second models that a table has columns for; of nothing but texts, words alone."""
    reader, free = RowReader(schema, None), bool(free_texts(schema))
    columns = bool(reader.numbers or reader.categories)
    return tuple(name for name in NAMES if (free if name == "words" else columns))


def wanted(second: str, schema: Schema) -> tuple[str, ...]:
    """The second models that ``--second`` names: all for auto, none, or names joined by +. Raises ValueError."""
    there = possible(schema)
    if second in (AUTO, NONE):
        return there if second == AUTO else ()
    names = tuple(second.split("+"))
    if len(set(names)) != len(names) or not set(names) <= set(there) or {"linear", "words"} <= set(names):
        accepted = ", ".join((AUTO, NONE, *there))
        raise ValueError(
            f"--second is {second!r}; of this table it must be {accepted}, or trees joined with another by +"
        )
    return tuple(name for name in NAMES if name in names)


def held_out(
    fits: Mapping[str, Fit], rows: Sequence[Row], labels: np.ndarray, folds: np.ndarray, schema: Schema,
    known: Sequence[Any], seed: int,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Name → what each fit gives the rows of each fold that was fitted on the others; NaN where a row is in no fold.

    ``known`` is what the schema's feature may know for each fold.
    """
    rng, classes = np.random.default_rng(seed), len(schema.classes)
    found = {name: np.full((len(labels),) if classes == 2 else (len(labels), classes), np.nan) for name in fits}
    inputs = Inputs.of(rows, schema, None)
    # Where rows are few, threads cost more than they give, a hundredfold when other work keeps the cores busy.
    with threadpool_limits(1):
        for fold in range(int(folds.max()) + 1):
            if known[fold] is not None:
                inputs = Inputs.of(rows, schema, known[fold])
            seen, here = sample(np.flatnonzero(folds != fold), rng), np.flatnonzero(folds == fold)
            for name, fit in fits.items():
                found[name][here] = fit(inputs[seen], labels[seen])(inputs[here])
    return found


def held_out_scores(
    names: Sequence[str], rows: Sequence[Row], labels: np.ndarray, folds: np.ndarray, schema: Schema,
    known: Sequence[Any], seed: int, tokenizer: Tokenizer,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Name → scores in the form of `calibration_scores`, (n,) or (n, K)."""

    def scored(name: str) -> Fit:
        def fit(inputs: Inputs, y: np.ndarray) -> Callable[[Inputs], np.ndarray]:
            raw = fit_named(name, inputs, y, schema, seed, tokenizer).raw
            return lambda others: second_scores(raw(others))

        return fit

    return held_out({name: scored(name) for name in names}, rows, labels, folds, schema, known, seed)


def fit_named(name: str, inputs: Inputs, labels: np.ndarray, schema: Schema, seed: int, tokenizer: Tokenizer) -> Fitted:
    """The second model of that name."""
    if name == "linear":
        return fit_linear(inputs, labels, schema)
    return fit_trees(inputs, labels, schema, seed) if name == "trees" else fit_words(inputs, labels, schema, tokenizer)


def fit_seconds(
    names: Sequence[str], rows: Sequence[Row], labels: np.ndarray, schema: Schema, known: Any, seed: int,
    tokenizer: Tokenizer,
) -> tuple[SecondModel, ...]:  # fmt: skip
    """The second models fitted on all these rows, each compared with scikit-learn's. Raises ExportError."""
    with threadpool_limits(1):
        return tuple(_fit_checked(names, rows, labels, schema, known, seed, tokenizer))


def _fit_checked(
    names: Sequence[str], rows: Sequence[Row], labels: np.ndarray, schema: Schema, known: Any, seed: int,
    tokenizer: Tokenizer,
) -> Iterator[SecondModel]:  # fmt: skip
    inputs, rng = Inputs.of(rows, schema, known), np.random.default_rng(seed)
    seen, reader = sample(np.arange(len(labels)), rng), RowReader(schema, known)
    checked = [reader(rows[at]) for at in seen[:CHECKED_ROWS].tolist()]
    for name in names:
        fitted = fit_named(name, inputs[seen], labels[seen], schema, seed, tokenizer)
        second = fitted.second()
        edges = _edges(second, len(reader.numbers))
        ours = _ours(second, schema, known, tokenizer)
        check_export(ours, _original(fitted, inputs.sizes), checked, reader.sizes, edges, rng)
        yield second


def _ours(
    second: SecondModel, schema: Schema, known: Any, tokenizer: Tokenizer
) -> Callable[[Sequence[RowInputs]], np.ndarray]:
    scorers = SecondScorers([second], schema, known, tokenizer)
    return lambda of: scorers.of(of)[second.name]


def _original(fitted: Fitted, sizes: tuple[int, ...]) -> Callable[[Sequence[RowInputs]], np.ndarray]:
    def score(of: Sequence[RowInputs]) -> np.ndarray:
        inputs = Inputs(
            np.array([each.numbers for each in of], np.float64).reshape(len(of), -1),
            np.array([each.categories for each in of], np.int64).reshape(len(of), -1), sizes,
            np.array([each.text for each in of], object),
        )  # fmt: skip
        return second_scores(fitted.raw(inputs))

    return score


def _edges(second: SecondModel, numbers: int) -> list[list[float]]:
    """Of each number, where a second model's score may bend or jump."""
    if isinstance(second.arrays, Trees):
        inner = second.arrays.left != np.arange(len(second.arrays.left))
        column, threshold = second.arrays.column[inner], second.arrays.threshold[inner]
        return [np.unique(threshold[column == at]).tolist() for at in range(numbers)]
    model = second.model.fields if isinstance(second.model, WordsModel) else second.model
    return [list(term.knots) for term in model.numbers] if isinstance(model, LinearModel) else []


def sample(places: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """At most `MAX_FIT_ROWS` of the places, in order."""
    return places if len(places) <= MAX_FIT_ROWS else np.sort(rng.choice(places, MAX_FIT_ROWS, replace=False))
