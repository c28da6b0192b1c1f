"""The same scores given to other packages: the same numbers, or a difference that docs/decisions/peers.md explains."""

import warnings

import crepes
import numpy as np
import pytest
import relplot
from mapie.classification import SplitConformalClassifier
from sklearn.base import BaseEstimator, ClassifierMixin

from models.calibration.logit import sigmoid, softmax
from training.calibrate.sets import RowGroups, fit_sets, rows_needed
from training.evaluate.calibration_errors import murphy, smooth_error

COVERAGES = (0.8, 0.9, 0.95)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose inputs are the probabilities."""

    def __init__(self, classes: int):
        self.classes = classes
        self.classes_ = np.arange(classes)
        self.is_fitted_ = True

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
        return self

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(x).argmax(axis=1)


def drawn(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Log-odds and labels of a world that is a little less sure than they are."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 2, rows)
    return z, (rng.random(rows) < sigmoid(0.7 * z + 0.3)).astype(np.int64)


def drawn_classes(rows: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities (n, 4) and labels, the last class rare."""
    rng = np.random.default_rng(seed)
    p = softmax(rng.normal([0.5, 0.3, 0.0, -1.5], 1.2, (rows, 4)))
    return p, (p.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1)


@pytest.mark.filterwarnings("ignore:WARNING. your conformalization dataset has less labels")
@pytest.mark.parametrize("coverage", COVERAGES)
def test_sets_are_those_of_mapie_on_the_rows_of_each_class(coverage: float) -> None:
    p, y = drawn_classes(900, 2)
    asked, _ = drawn_classes(500, 3)
    theirs = np.empty(asked.shape, bool)
    for number in range(4):
        own = y == number
        conformal = SplitConformalClassifier(Given(4), confidence_level=coverage, conformity_score="lac", prefit=True)
        conformal.conformalize(p[own], y[own])
        theirs[:, number] = conformal.predict_set(asked)[1][:, number, 0]
    assert np.array_equal(fit_sets(p, y, coverage).sets(asked), theirs)


@pytest.mark.parametrize("coverage", COVERAGES)
def test_sets_are_those_of_crepes_by_its_p_values(coverage: float) -> None:
    """By the definition a class is in the set where p > ε (Vovk et al., 2005, section 4.5); crepes takes p ≥ ε."""
    p, y = drawn_classes(900, 4)
    asked, _ = drawn_classes(500, 5)
    theirs = crepes.ConformalClassifier()
    theirs.fit(1 - p[range(len(y)), y], bins=y)
    p_values = np.stack(
        [theirs.predict_p(1 - asked[:, [k]], bins=np.full(len(asked), k), smoothing=False)[:, 0] for k in range(4)],
        axis=1,
    )
    ours = fit_sets(p, y, coverage).sets(asked)
    epsilon = 1 - coverage
    assert np.array_equal(ours, p_values > epsilon + 1e-12)
    assert not (ours & (p_values < epsilon - 1e-12)).any()


@pytest.mark.parametrize("coverage", COVERAGES)
def test_sets_by_a_field_are_those_of_crepes_with_a_bin_for_each_class_and_group(coverage: float) -> None:
    p, y = drawn_classes(900, 6)
    asked, _ = drawn_classes(500, 7)
    rng = np.random.default_rng(8)
    groups, new = rng.integers(0, 3, len(y)), rng.integers(0, 3, len(asked))
    theirs = crepes.ConformalClassifier()
    theirs.fit(1 - p[range(len(y)), y], bins=3 * y + groups)
    p_values = np.stack(
        [theirs.predict_p(1 - asked[:, [k]], bins=3 * k + new, smoothing=False)[:, 0] for k in range(4)], axis=1
    )
    ours = fit_sets(p, y, coverage, RowGroups("field", ("a", "b", "c"), groups)).sets(asked, new)
    enough = np.bincount(3 * y + groups, minlength=12).reshape(4, 3).T[new] >= rows_needed(coverage)
    assert enough.mean() > 0.9
    assert np.array_equal(ours[enough], p_values[enough] > 1 - coverage + 1e-12)


@pytest.mark.parametrize("rows", [60, 400, 3000])
def test_calibration_errors_are_those_of_relplot(rows: int) -> None:
    """Its smooth error rounds the scores to a grid and searches the width to a thousandth; ours does neither."""
    z, y = drawn(rows, 6)
    p, y = np.sort(sigmoid(z)), y[np.argsort(sigmoid(z), kind="stable")]
    labels, weights = y[None].astype(float), np.ones((1, rows))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        binned, smooth = relplot.metrics.binnedECE(p, y, 10), relplot.smECE(p, y)
    assert murphy(p, labels, weights)["ece"][0] == pytest.approx(binned, abs=1e-9)
    assert smooth_error(p, labels, weights)[0] == pytest.approx(smooth, abs=1e-3)
