"""Second models: equal to scikit-learn's, round trip through a bundle's files, tampered files refused."""

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer

from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import STACKED, STACKED_WEIGHTS
from models.rows import Row
from models.schema import Schema
from models.second.inputs import RowInputs
from models.second.linear import LinearScorer, terms_of
from models.second.model import (
    SecondScorers,
    StackedFile,
    StackedFileError,
    check_seconds,
    second_scores,
    stacked_files,
)
from models.second.trees import Trees, TreesModel, TreesScorer
from tests import churn, penguins
from tests.titanic import SCHEMA
from training.data.table import Table
from training.evaluate.folds import make_folds
from training.fit.pretrained import find_base
from training.second.export import ExportError, check_export
from training.second.fits import Vocabulary, fit_linear, fit_trees, fit_words
from training.second.held_out import fit_seconds, held_out_scores, possible, wanted
from training.second.inputs import Inputs

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(find_base(None)[1])


def noted(count: int) -> tuple[list[Row], np.ndarray]:
    """Customers with notes, and labels that follow the notes, the plan and the bill."""
    rng = np.random.default_rng(1)
    notes = rng.choice(["angry about the bill", "pays and is happy", "", "angry, angry at us"], count)
    rows = [
        churn.Customer(**{name: getattr(row, name) for name in row.__struct_fields__} | {"note": str(note) or None})
        for row, note in zip(churn.customers(count), notes, strict=True)
    ]
    z = np.array([2.0 * ("angry" in (row.note or "")) + (row.plan == 5) - 1 for row in rows])
    return rows, (rng.random(count) < 1 / (1 + np.exp(-z))).astype(np.int64)


@pytest.mark.parametrize("name", ["linear", "trees", "words"])
def test_a_bundles_files_give_scikit_learns_scores(name: str, tokenizer: Tokenizer) -> None:
    rows, labels = noted(400)
    inputs = Inputs.of(rows, churn.SCHEMA, None)
    fit: dict[str, Callable[[], Any]] = {
        "linear": lambda: fit_linear(inputs, labels, churn.SCHEMA),
        "trees": lambda: fit_trees(inputs, labels, churn.SCHEMA, 0),
        "words": lambda: fit_words(inputs, labels, churn.SCHEMA, tokenizer),
    }
    fitted = fit[name]()
    files = stacked_files([fitted.second()])
    file = msgspec.json.decode(files[STACKED], type=StackedFile)
    scorers = SecondScorers(
        check_seconds(file, files.get(STACKED_WEIGHTS), churn.SCHEMA), churn.SCHEMA, None, tokenizer
    )
    found = scorers(rows)[name]
    assert np.allclose(found, second_scores(fitted.raw(inputs)), rtol=0, atol=1e-9)
    assert len(np.unique(found)) > 10
    # A row's score is its own, to the bit, whatever is asked for beside it.
    assert np.array_equal(np.concatenate([scorers([row])[name] for row in rows[:40]]), found[:40])


def test_scores_of_three_classes_are_scikit_learns(tokenizer: Tokenizer) -> None:
    table = penguins.table()
    for second in fit_seconds(("linear", "trees"), table.rows, table.labels, table.schema, None, 0, tokenizer):
        scores = SecondScorers([second], table.schema, None)(table.rows)[second.name]
        assert scores.shape == (len(table), 3)
        assert np.allclose(scores.sum(axis=1), 0, atol=1e-6) or np.abs(scores).max() == 30
        assert (scores.argmax(axis=1) == table.labels).mean() > 0.5


def test_trees_walk_as_scikit_learns_with_what_is_unknown_on_either_side() -> None:
    """Straight from a fitted model: its own decision function on rows with NaN, at thresholds and beyond them."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 3)).round(1)
    X[rng.random(X.shape) < 0.2] = np.nan
    y = (np.nan_to_num(X[:, 0], nan=2.0) + np.nan_to_num(X[:, 1], nan=-1.0) > 0).astype(int)
    model = HistGradientBoostingClassifier(max_iter=40, max_leaf_nodes=8, random_state=0).fit(X, y)
    nodes = [tree.nodes for (tree,) in model._predictors]
    roots = np.cumsum([0, *map(len, nodes)])[:-1]
    joined, own = np.concatenate(nodes), np.arange(sum(map(len, nodes)))
    shift, leaf = np.repeat(roots, list(map(len, nodes))), joined["is_leaf"].astype(bool)
    trees = Trees(
        roots=roots, column=joined["feature_idx"].astype(np.int64),
        threshold=np.minimum(joined["num_threshold"], 1e300), missing_left=joined["missing_go_to_left"].astype(bool),
        left=np.where(leaf, own, joined["left"] + shift), right=np.where(leaf, own, joined["right"] + shift),
        value=joined["value"],
    )  # fmt: skip
    described = TreesModel(intercept=(float(model._baseline_prediction[0, 0]),), numbers=("a", "b", "c"), categories=())
    thresholds = joined["num_threshold"][~leaf]
    X = np.concatenate([X, rng.choice(thresholds[np.isfinite(thresholds)], (200, 3)), np.full((1, 3), np.nan),
                        np.full((1, 3), 1e9), np.full((1, 3), -1e9)])  # fmt: skip
    inputs = [RowInputs(tuple(None if np.isnan(v) else v for v in row), (), "") for row in X.tolist()]
    assert np.abs(TreesScorer(described, trees)(inputs)[:, 0] - model.decision_function(X)).max() < 1e-12


def test_trees_that_ask_only_whether_a_number_is_known(tokenizer: Tokenizer) -> None:
    """scikit-learn's threshold is infinite there."""
    rows = [msgspec.structs.replace(row, bill=None) if at % 3 else row for at, row in enumerate(churn.customers(400))]
    labels = np.array([row.bill is not None for row in rows], np.int64)
    (second,) = fit_seconds(("trees",), rows, labels, churn.SCHEMA, None, 0, tokenizer)
    assert isinstance(second.arrays, Trees)
    assert np.isfinite(second.arrays.threshold).all()
    assert (second.arrays.threshold == np.finfo(np.float64).max).any()
    assert ((SecondScorers([second], churn.SCHEMA, None)(rows)["trees"] > 0) == labels).all()


def test_terms_are_weighed_as_scikit_learn_weighs_them(tokenizer: Tokenizer) -> None:
    texts = ["angry about the bill", "pays the bill, pays the bill", "the bill the bill", "happy", "happy bill"]
    ids = tokenizer.token_ids(texts)
    oracle = TfidfVectorizer(analyzer=terms_of, min_df=2, sublinear_tf=True).fit(ids)
    vocabulary = Vocabulary.of(ids)
    assert vocabulary.terms.tolist() == sorted(oracle.vocabulary_)
    wanted_columns = oracle.transform(ids).toarray()[
        :, [oracle.vocabulary_[term] for term in vocabulary.terms.tolist()]
    ]
    assert np.allclose(vocabulary.columns(ids).toarray(), wanted_columns)


def test_an_export_that_differs_is_refused() -> None:
    inputs = [RowInputs((float(at), None), (at % 3,), "") for at in range(20)]
    rng = np.random.default_rng(0)

    def score(of: Any) -> np.ndarray:
        return np.array([(each.numbers[0] or -5.0) + each.categories[0] for each in of])

    check_export(score, score, inputs, (3,), [[4.0], []], rng)
    with pytest.raises(ExportError, match="differs from scikit-learn's"):
        # At an edge alone: such as a threshold that goes the other way.
        check_export(score, lambda of: score(of) + 1e-6 * np.array([each.numbers[0] == 4.0 for each in of]),
                     inputs[:3], (3,), [[4.0], []], rng)  # fmt: skip


def test_no_label_of_a_fold_reaches_its_scores(table: Table, tokenizer: Tokenizer) -> None:
    rows, labels = table.rows[:300], table.labels[:300]
    folds = make_folds(labels, 3, 0)
    changed = np.where(folds == 1, 1 - labels, labels)

    def scores(y: np.ndarray) -> dict[str, np.ndarray]:
        return held_out_scores(("linear", "trees"), rows, y, folds, SCHEMA, [None] * 3, 0, tokenizer)

    found, again = scores(labels), scores(changed)
    for name, each in found.items():
        assert np.array_equal(each[folds == 1], again[name][folds == 1])
        assert not np.array_equal(each[folds != 1], again[name][folds != 1])


def test_what_a_table_has_columns_for() -> None:
    assert possible(SCHEMA) == ("linear", "trees")
    assert possible(churn.SCHEMA) == ("linear", "trees", "words")
    assert wanted("none", SCHEMA) == ()
    assert wanted("auto", churn.SCHEMA) == ("linear", "trees", "words")
    assert wanted("words+trees", churn.SCHEMA) == ("trees", "words")
    for wrong in ("words", "forest", "linear+linear", ""):
        with pytest.raises(ValueError, match=r"--second is '.*'; of this table it must be auto, none, linear, trees"):
            wanted(wrong, SCHEMA)


def spoilt(files: dict[str, bytes], change: Callable[[Arrays], Any]) -> bytes:
    arrays = dict(load(files[STACKED_WEIGHTS]))
    change(arrays)
    return save(arrays)


@pytest.fixture(scope="module")
def files(tokenizer: Tokenizer) -> dict[str, bytes]:
    rows, labels = noted(200)
    return stacked_files(fit_seconds(("trees", "words"), rows, labels, churn.SCHEMA, None, 0, tokenizer))


def refused(content: bytes, weights: bytes | None, schema: Schema = churn.SCHEMA) -> str:
    with pytest.raises(StackedFileError) as caught:
        check_seconds(msgspec.json.decode(content, type=StackedFile), weights, schema)
    return str(caught.value)


WRONG_ARRAYS: list[tuple[Callable[[Arrays], Any], str]] = [
    (lambda a: a.pop("trees.value"), "its tensors must be"),
    (lambda a: a.update(more=np.zeros(2)), "its tensors must be"),
    (lambda a: a.update({"trees.value": a["trees.value"].astype(np.float32)}), "trees.value is of the type float32"),
    (lambda a: a.update({"trees.value": a["trees.value"] * np.nan}), "values within"),
    (lambda a: a.update({"trees.left": a["trees.left"] * 0}), "children must come after"),
    (lambda a: a.update({"trees.column": a["trees.column"] + 99}), "a column that there is not"),
    (lambda a: a.update({"trees.roots": a["trees.roots"] + 10**6}), "a root is no node"),
    (lambda a: a.update({"trees.right": a["trees.right"][:-1]}), "of one length"),
    (lambda a: a.update({"words.terms": a["words.terms"][::-1].copy()}), "terms must rise"),
    (lambda a: a.update({"words.coefficients": a["words.coefficients"] + np.inf}), "coefficients must be within"),
    (lambda a: a.update({"words.coefficients": np.repeat(a["words.coefficients"], 2, axis=1)}), "must be 1 for each"),
]


@pytest.mark.parametrize(("change", "reason"), WRONG_ARRAYS)
def test_changed_arrays_are_refused_by_name(
    files: dict[str, bytes], change: Callable[[Arrays], Any], reason: str
) -> None:
    said = refused(files[STACKED], spoilt(files, change))
    assert said.startswith(f"{STACKED_WEIGHTS}: ")
    assert reason in said


def test_files_that_are_no_such_thing_or_of_another_table_are_refused(files: dict[str, bytes]) -> None:
    assert refused(files[STACKED], b"no tensors").startswith(f"{STACKED_WEIGHTS}: it is no safetensors file")
    assert refused(files[STACKED], None).startswith(f"{STACKED_WEIGHTS}: it is missing")
    assert refused(files[STACKED], files[STACKED_WEIGHTS], SCHEMA).startswith(f"{STACKED}: ")
    assert "each kind once" in refused(b'{"models": []}', None)


def test_one_row_and_one_class_of_words(files: dict[str, bytes], tokenizer: Tokenizer) -> None:
    """A text without a known word has the score of its other fields alone."""
    file = msgspec.json.decode(files[STACKED], type=StackedFile)
    (_, words) = check_seconds(file, files[STACKED_WEIGHTS], churn.SCHEMA)
    inputs = RowInputs((None,) * len(words.model.fields.numbers), (0,) * len(words.model.fields.categories), "zzzqqq")  # type: ignore[union-attr]
    with_words = LinearScorer(words.model.fields, words.arrays, tokenizer)([inputs._replace(text="")])  # type: ignore[union-attr, arg-type]
    without = LinearScorer(words.model.fields)([inputs])  # type: ignore[union-attr]
    known = set(words.arrays.terms.tolist()) & set(terms_of(tokenizer.token_ids([""])[0]))  # type: ignore[union-attr]
    assert (abs(with_words - without).max() > 0) == bool(known)
