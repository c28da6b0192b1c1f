"""What else would predict the same rows: baselines by field type, trained and scored on the same folds.

Their settings were fixed beforehand, scikit-learn's defaults but for what small data call for; none is tuned on the
rows. They minimise log loss themselves, so they are scored without further calibration.
"""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from msgspec import Struct
from scipy.sparse import csr_matrix, hstack
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from models.calibration.logit import sigmoid
from models.rows import Row
from models.schema import Schema
from training.calibrate.maps import log_losses
from training.evaluate.estimates import Estimate, mean, roc_auc
from training.evaluate.groups import Members, group_title
from training.evaluate.inputs import Inputs, PiecewiseLinear, free_texts, linear_columns

MAX_FIT_ROWS = 50_000
"""Rows that a baseline is trained on, a random sample of more: it bounds time, and more would hardly change a score."""
MANY_ROWS = 2000
"""From here on there are as many trees as a tenth of the rows asks for, held out."""
MAX_TERMS = 50_000

LINEAR, TREES, WORDS = "spline_logistic_regression", "gradient_boosting", "words_logistic_regression"
BASELINES = {
    LINEAR: "logistic regression on categories and on splines of numbers",
    TREES: "gradient-boosted trees on numbers and categories",
    WORDS: "logistic regression on numbers, categories and words",
}
"""Name → what it is."""


class Baseline(Struct, frozen=True, kw_only=True):
    """A baseline's held-out scores and the paired difference: this model's log loss minus the baseline's, row by row.

    Below 0 this model is better. Standard errors are over rows; the folds' training sets overlap, so the spread that
    another training sample would add is not in them (Bengio & Grandvalet, 2004).
    """

    what: str
    log_loss: Estimate
    brier: Estimate
    auc: Estimate
    log_loss_difference: Estimate
    log_loss_difference_by_subgroup: dict[str, Estimate]


def held_out_probabilities(
    rows: Sequence[Row], labels: np.ndarray, folds: np.ndarray, schema: Schema, known: Sequence[Any], seed: int
) -> dict[str, np.ndarray]:
    """Baseline's name → probabilities (n,) in (0, 1) of each row from a baseline trained on the other folds; NaN where
    a row is in no fold.

    ``known`` is what the schema's feature may know for each fold: the baselines read what the model reads of it.
    """
    rng = np.random.default_rng(seed)
    fits = _fits(schema, seed)
    probabilities = {name: np.full(len(labels), np.nan) for name in fits}
    inputs = Inputs.of(rows, schema, None)
    # Where rows are few, threads cost more than they give, a hundredfold when other work keeps the cores busy.
    with threadpool_limits(1):
        for fold in range(int(folds.max()) + 1):
            if known[fold] is not None:
                inputs = Inputs.of(rows, schema, known[fold])
            seen, here = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            if len(seen) > MAX_FIT_ROWS:
                seen = np.sort(rng.choice(seen, MAX_FIT_ROWS, replace=False))
            for name, fit in fits.items():
                probabilities[name][here] = fit(inputs[seen], labels[seen])(inputs[here])
    return {name: np.clip(p, *sigmoid(np.array([-30.0, 30.0]))) for name, p in probabilities.items()}


def compare_baselines(
    ours: np.ndarray, probabilities: Mapping[str, np.ndarray], labels: np.ndarray, groups: Members
) -> dict[str, Baseline]:
    """Baselines' probabilities (n,) beside ours (n,) for the same rows."""
    own, compared = log_losses(ours, labels), {}
    for name, p in probabilities.items():
        difference = own - log_losses(p, labels)
        compared[name] = Baseline(
            what=BASELINES[name], log_loss=mean(log_losses(p, labels)), brier=mean((p - labels) ** 2),
            auc=roc_auc(p, labels), log_loss_difference=mean(difference),
            log_loss_difference_by_subgroup={group_title(*key): mean(difference[held]) for key, held in groups.items()},
        )  # fmt: skip
    return compared


Predict = Callable[[Inputs], np.ndarray]
"""Rows → probabilities (n,) of the positive class."""
Fit = Callable[[Inputs, np.ndarray], Predict]


def _fits(schema: Schema, seed: int) -> dict[str, Fit]:
    """The baselines that a table has columns for: of nothing but texts, words alone."""
    fits: dict[str, Fit] = {
        LINEAR: lambda inputs, labels: _fit_linear(inputs, labels, schema),
        TREES: lambda inputs, labels: _fit_trees(inputs, labels, seed),
        WORDS: lambda inputs, labels: _fit_words(inputs, labels, schema),
    }
    if schema.feature is None and all(field.type == "text" for field in schema.fields):
        return {WORDS: fits[WORDS]}
    return fits


def _fit_linear(inputs: Inputs, labels: np.ndarray, schema: Schema) -> Predict:
    basis = PiecewiseLinear(inputs.numbers, schema)
    model = LogisticRegression(max_iter=1000).fit(linear_columns(inputs, basis), labels)
    return lambda others: _positive(model, linear_columns(others, basis))


def _fit_trees(inputs: Inputs, labels: np.ndarray, seed: int) -> Predict:
    """Categories are ordered as the schema lists them; a tree gives what is unknown a side of its own."""
    stop: dict[str, Any] = {"max_iter": 120, "early_stopping": False}
    if len(labels) >= MANY_ROWS:
        stop = {"max_iter": 500, "early_stopping": True, "n_iter_no_change": 20}
    model = HistGradientBoostingClassifier(
        learning_rate=0.05, max_leaf_nodes=8, l2_regularization=1.0, random_state=seed, **stop
    )
    # scikit-learn 1.9 fails on a column of nothing but NaN.
    some = ~np.isnan(inputs.numbers).all(axis=0)

    def columns(of: Inputs) -> np.ndarray:
        return np.column_stack([of.numbers[:, some], of.categories])

    model.fit(columns(inputs), labels)
    return lambda others: _positive(model, columns(others))


def _fit_words(inputs: Inputs, labels: np.ndarray, schema: Schema) -> Predict:
    """Words of free text and pairs of them, weighed by how rare they are; without free text the model's phrases."""
    basis, free = PiecewiseLinear(inputs.numbers, schema), bool(free_texts(schema))
    counter: CountVectorizer = CountVectorizer(analyzer=lambda text: text.split(", "))
    if free:
        counter = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=MAX_TERMS)
    # Where no word is there twice, a vocabulary cannot be made.
    with contextlib.suppress(ValueError):
        counter.fit(inputs.texts)

    def columns(of: Inputs) -> Any:
        rest = linear_columns(of, basis) if free else csr_matrix(basis(of.numbers))
        return hstack([rest, counter.transform(of.texts)], "csr") if hasattr(counter, "vocabulary_") else rest

    found = columns(inputs)
    if not found.shape[1]:
        # Texts that share no word: nothing is left but the share of the class.
        return lambda others: np.full(len(others.texts), labels.mean())
    model = LogisticRegression(max_iter=1000).fit(found, labels)
    return lambda others: _positive(model, columns(others))


def _positive(model: Any, columns: Any) -> np.ndarray:
    return np.asarray(model.predict_proba(columns)[:, 1])
