"""Fit a second model on rows: its scores of others, and the same as a bundle keeps it.

Settings were fixed beforehand, scikit-learn's defaults but for what small data call for; none is tuned on the rows.
"""

from collections.abc import Callable, Sequence
from math import log
from typing import Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, hstack
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from models.bert.tokenizer import Tokenizer
from models.schema import Schema
from models.second.linear import MAX_TERMS, Words, WordsModel, terms_of
from models.second.model import SecondModel
from training.second.export import linear_model, tree_arrays
from training.second.inputs import Inputs, PiecewiseLinear, linear_columns

MANY_ROWS = 2000
"""From here on there are as many trees as a tenth of the rows asks for, held out."""
MAX_ROUNDS, MIN_ROUNDS, MAX_TREES = 500, 60, 1500
"""Of boosting: rounds, and trees of all classes together, as far as the least number of rounds lets."""
WORDS_PENALTY = 5.0
"""C of the logistic regression of words, scikit-learn's inverse strength of the penalty (docs/decisions/stack.md)."""

Raw = Callable[[Inputs], np.ndarray]


class Fitted(NamedTuple):
    """``raw``: inputs → scores before they are centred and bounded, (n, 1) of two classes or (n, K); ``second`` is the
    same model as a bundle keeps it."""

    raw: Raw
    second: Callable[[], SecondModel]


def fit_linear(inputs: Inputs, labels: np.ndarray, schema: Schema) -> Fitted:
    """Logistic regression on categories and on splines of numbers."""
    basis = PiecewiseLinear(inputs.numbers, schema)
    model = LogisticRegression(max_iter=1000).fit(linear_columns(inputs, basis), labels)
    return Fitted(
        lambda others: _raw(model, linear_columns(others, basis), schema),
        lambda: SecondModel(model=linear_model(model.coef_, model.intercept_, basis.knots, inputs.sizes, schema)),
    )


def fit_trees(inputs: Inputs, labels: np.ndarray, schema: Schema, seed: int) -> Fitted:
    """Gradient-boosted trees; categories are ordered as the schema lists them, and what is unknown has a side."""
    # Each round grows a tree for every class, of two a single one.
    classes = len(schema.classes)
    most = MAX_ROUNDS if classes == 2 else max(MIN_ROUNDS, min(MAX_ROUNDS, MAX_TREES // classes))
    stop: dict[str, Any] = {"max_iter": min(120, most), "early_stopping": False}
    # A class of a single row cannot be on both sides of the part that says when to stop.
    if len(labels) >= MANY_ROWS and np.unique(labels, return_counts=True)[1].min() > 1:
        stop = {"max_iter": most, "early_stopping": True, "n_iter_no_change": 20}
    model = HistGradientBoostingClassifier(
        learning_rate=0.05, max_leaf_nodes=8, l2_regularization=1.0, random_state=seed, **stop
    )
    # scikit-learn 1.9 fails on a column of nothing but NaN.
    some = np.flatnonzero([*~np.isnan(inputs.numbers).all(axis=0), *([True] * inputs.categories.shape[1])])

    def columns(of: Inputs) -> np.ndarray:
        return np.column_stack([of.numbers, of.categories])[:, some]

    model.fit(columns(inputs), labels)
    return Fitted(
        lambda others: _raw(model, columns(others), schema),
        lambda: tree_arrays(model, some, schema),
    )


class Vocabulary(NamedTuple):
    """Terms rising (V,) and their rarity (V,)."""

    terms: np.ndarray
    rarity: np.ndarray

    @classmethod
    def of(cls, texts: Sequence[Sequence[int]]) -> "Vocabulary":
        """The terms of at least two texts, the commonest `MAX_TERMS` of them; rarity is ln((1 + n)/(1 + df)) + 1."""
        found = [np.unique(np.array(terms_of(pieces), np.int64)) for pieces in texts]
        terms, counts = np.unique(np.concatenate([*found, np.zeros(0, np.int64)]), return_counts=True)
        kept = np.flatnonzero(counts >= 2)
        kept = np.sort(kept[np.argsort(-counts[kept], kind="stable")[:MAX_TERMS]])
        return cls(terms[kept], np.log((1 + len(texts)) / (1 + counts[kept])) + 1)

    def columns(self, texts: Sequence[Sequence[int]]) -> csr_matrix:
        """(1 + ln count) · rarity of each text's terms, of length 1 together, (n, V)."""
        rows, places, weights = list[int](), list[int](), list[float]()
        number_of = {term: number for number, term in enumerate(self.terms.tolist())}
        for row, pieces in enumerate(texts):
            counts: dict[int, int] = {}
            for term in terms_of(pieces):
                if (number := number_of.get(term)) is not None:
                    counts[number] = counts.get(number, 0) + 1
            rows += [row] * len(counts)
            places += counts
            weights += [1 + log(count) for count in counts.values()]
        matrix = csr_matrix((weights, (rows, places)), (len(texts), len(self.terms)))
        matrix = matrix.multiply(self.rarity).tocsr() if len(self.terms) else matrix
        lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
        lengths[lengths == 0] = 1.0
        matrix.data /= np.repeat(lengths, np.diff(matrix.indptr))
        return matrix


def fit_words(
    inputs: Inputs, labels: np.ndarray, schema: Schema, tokenizer: Tokenizer, penalty: float = WORDS_PENALTY
) -> Fitted:
    """Logistic regression on categories, splines of numbers, and the word pieces of free text with their neighbours."""
    basis = PiecewiseLinear(inputs.numbers, schema)
    pieces = tokenizer.token_ids(inputs.texts.tolist())
    vocabulary = Vocabulary.of(pieces)

    def columns(of: Inputs, ids: Sequence[Sequence[int]]) -> Any:
        return hstack([linear_columns(of, basis), vocabulary.columns(ids)], "csr")

    found = columns(inputs, pieces)
    if not found.shape[1]:
        # Texts that share no term, and nothing else: the shares of the classes are left.
        found = csr_matrix(np.zeros((len(labels), 1)))
    model = LogisticRegression(max_iter=1000, C=penalty).fit(found, labels)

    def raw(others: Inputs) -> np.ndarray:
        matrix = columns(others, tokenizer.token_ids(others.texts.tolist()))
        return _raw(model, matrix if matrix.shape[1] else csr_matrix(np.zeros((len(others.texts), 1))), schema)

    def second() -> SecondModel:
        split = model.coef_.shape[1] - len(vocabulary.terms)
        fields = linear_model(model.coef_[:, :split], model.intercept_, basis.knots, inputs.sizes, schema)
        words = Words(
            terms=vocabulary.terms, rarity=vocabulary.rarity,
            coefficients=np.ascontiguousarray(model.coef_[:, split:].T, np.float64),
        )  # fmt: skip
        return SecondModel(model=WordsModel(fields=fields), arrays=words)

    return Fitted(raw, second)


def _raw(model: Any, columns: Any, schema: Schema) -> np.ndarray:
    """Decision function, (n, 1) of two classes or (n, K); a class that the model did not see is 30 below the least."""
    found = np.asarray(model.decision_function(columns))
    if len(schema.classes) == 2:
        return found.reshape(-1, 1)
    if len(model.classes_) == 2:
        found = np.stack([-found / 2, found / 2], axis=1)
    scores = np.repeat(found.min(axis=1, keepdims=True) - 30.0, len(schema.classes), axis=1)
    scores[:, model.classes_] = found
    return scores
