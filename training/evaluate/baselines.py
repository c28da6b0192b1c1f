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
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from models.calibration.logit import score_probabilities, sigmoid
from models.rows import Row
from models.schema import Schema
from models.second.inputs import free_texts
from models.second.model import second_scores
from training.calibrate.maps import log_losses
from training.evaluate.clusters.errors import picked
from training.evaluate.estimates import Estimate, mean, roc_auc
from training.evaluate.groups import Members, group_title
from training.evaluate.several_classes.scores import brier_losses
from training.second.fits import Fitted, fit_linear, fit_trees
from training.second.held_out import Fit, held_out
from training.second.inputs import Inputs, PiecewiseLinear, linear_columns

MAX_TERMS = 50_000

LINEAR, TREES, WORDS = "spline_logistic_regression", "gradient_boosting", "words_logistic_regression"
BASELINES = {
    LINEAR: "logistic regression on categories and on splines of numbers",
    TREES: "gradient-boosted trees on numbers and categories",
    WORDS: "logistic regression on numbers, categories and words",
}
"""Name → what it is."""
SECONDS = {LINEAR: "linear", TREES: "trees"}
"""Baseline → the second model that it is."""


class Baseline(Struct, frozen=True, kw_only=True):
    """A baseline's held-out scores and the paired difference: this model's log loss minus the baseline's, row by row.

    Below 0 this model is better. Standard errors are over rows; the folds' training sets overlap, so the spread that
    another training sample would add is not in them (Bengio & Grandvalet, 2004). ``auc`` is of the positive of two
    classes, of more of each against all others; ``brier`` of more than two is the sum over classes.
    """

    what: str
    log_loss: Estimate
    brier: Estimate
    auc: Estimate | dict[str, Estimate]
    log_loss_difference: Estimate
    log_loss_difference_by_subgroup: dict[str, Estimate]


def held_out_probabilities(
    rows: Sequence[Row], labels: np.ndarray, folds: np.ndarray, schema: Schema, known: Sequence[Any], seed: int,
    seconds: Mapping[str, np.ndarray] = {},
) -> dict[str, np.ndarray]:  # fmt: skip
    """Baseline's name → probabilities in (0, 1) of each row from a baseline trained on the other folds, (n,) of the
    positive of two classes or (n, K); NaN where a row is in no fold.

    ``known`` is what the schema's feature may know for each fold: the baselines read what the model reads of it.
    ``seconds`` are held-out scores of second models, which need not be fitted twice.
    """
    fits = _fits(schema, seed)
    # Rows in no fold have NaN for a score.
    with np.errstate(invalid="ignore"):
        taken = {name: score_probabilities(seconds[SECONDS[name]]) for name in fits if SECONDS.get(name) in seconds}
    fitted = {name: fit for name, fit in fits.items() if name not in taken}
    found = taken | held_out(fitted, rows, labels, folds, schema, known, seed)
    return {name: _bounded(found[name]) for name in fits}


def _bounded(p: np.ndarray) -> np.ndarray:
    """Probabilities inside (0, 1), where a baseline may say 0 or 1; of several classes they sum to 1 again."""
    p = np.clip(p, *sigmoid(np.array([-30.0, 30.0])))
    return p if p.ndim == 1 else np.asarray(p / p.sum(axis=1, keepdims=True))


def compare_baselines(
    ours: np.ndarray, probabilities: Mapping[str, np.ndarray], labels: np.ndarray, groups: Members,
    classes: Sequence[str], clusters: np.ndarray | None = None,
) -> dict[str, Baseline]:  # fmt: skip
    """Baselines' probabilities beside ours for the same rows, all (n,) of the positive of two classes, or (n, K);
    ``clusters`` (n,) as of `mean`."""
    own, compared = log_losses(ours, labels), {}
    for name, p in probabilities.items():
        difference = own - log_losses(p, labels)
        compared[name] = Baseline(
            what=BASELINES[name], log_loss=mean(log_losses(p, labels), clusters),
            brier=mean((p - labels) ** 2 if p.ndim == 1 else brier_losses(p, labels), clusters),
            auc=roc_auc(p, labels, clusters) if p.ndim == 1 else {
                each: roc_auc(p[:, k], labels == k, clusters) for k, each in enumerate(classes)
            },
            log_loss_difference=mean(difference, clusters),
            log_loss_difference_by_subgroup={
                group_title(*key): mean(difference[held], picked(clusters, held))
                for key, held in groups.items()
            },
        )  # fmt: skip
    return compared


def _fits(schema: Schema, seed: int) -> dict[str, Fit]:
    """The baselines that a table has columns for: of nothing but texts, words alone."""
    fits: dict[str, Fit] = {
        LINEAR: lambda inputs, labels: _predict(fit_linear(inputs, labels, schema)),
        TREES: lambda inputs, labels: _predict(fit_trees(inputs, labels, schema, seed)),
        WORDS: lambda inputs, labels: _fit_words(inputs, labels, schema),
    }
    if schema.feature is None and all(field.type == "text" for field in schema.fields):
        return {WORDS: fits[WORDS]}
    return fits


def _predict(fitted: Fitted) -> Callable[[Inputs], np.ndarray]:
    return lambda others: score_probabilities(second_scores(fitted.raw(others)))


def _fit_words(inputs: Inputs, labels: np.ndarray, schema: Schema) -> Callable[[Inputs], np.ndarray]:
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
        # Texts that share no word: nothing is left but the shares of the classes.
        shares = np.bincount(labels, minlength=len(schema.classes)) / len(labels)
        share = shares[1] if len(shares) == 2 else shares
        return lambda others: np.full((len(others.texts), *share.shape), share)
    model = LogisticRegression(max_iter=1000).fit(found, labels)
    return lambda others: _probabilities(model, columns(others), schema)


def _probabilities(model: Any, columns: Any, schema: Schema) -> np.ndarray:
    """What a model gives rows; a class that it did not see, as a sample may be without a rare one, gets 0."""
    found = model.predict_proba(columns)
    if len(schema.classes) == 2:
        return np.asarray(found[:, 1])
    probabilities = np.zeros((len(found), len(schema.classes)))
    probabilities[:, model.classes_] = found
    return probabilities
