"""The bundle as a scikit-learn classifier: in scikit-learn's own tools, with the predictor's own probabilities."""

import copy
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from sklearn.base import clone, is_classifier
from sklearn.calibration import CalibrationDisplay
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.utils import get_tags
from sklearn.utils.validation import check_is_fitted

from models.bundle.manifest import BundleError
from models.estimator import BundleClassifier
from models.predictor import Predictor
from models.rows import RowError
from tests.conftest import TITANIC
from training.data.table import Table

FRAME = pd.read_csv(TITANIC).iloc[240:480]
X, Y = FRAME.drop(columns="Survived"), FRAME["Survived"]


@pytest.fixture(scope="module")
def frozen(bundle_folder: Path) -> Any:
    return FrozenEstimator(BundleClassifier(bundle_folder))


@pytest.fixture(scope="module")
def probabilities(bundle_folder: Path, table: Table) -> np.ndarray:
    """Of the same rows, by the predictor."""
    return np.array([one.probability for one in Predictor.load(bundle_folder).predict(table.rows[240:480])])


def test_probabilities_are_the_predictors(frozen: Any, probabilities: np.ndarray, table: Table) -> None:
    found = frozen.predict_proba(X)
    assert found.shape == (240, 2)
    assert found.sum(axis=1) == pytest.approx(1)
    assert found[:, 1] == pytest.approx(probabilities, abs=1e-5)
    assert frozen.predict(X).tolist() == (found[:, 1] >= 0.5).astype(int).tolist()
    assert frozen.classes_.tolist() == [0, 1]
    rows = table.rows[240:480]
    assert frozen.predict_proba(rows).tolist() == found.tolist()
    assert frozen.predict_proba([msgspec.structs.asdict(one) for one in rows]).tolist() == found.tolist()
    assert frozen.predict_proba(X.iloc[:0]).shape == (0, 2)


def test_in_cross_validation_every_fold_scores_the_same_model(frozen: Any, bundle_folder: Path) -> None:
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    scores = cross_val_score(frozen, X, Y, cv=folds, scoring="neg_log_loss")
    assert scores == pytest.approx(
        [-log_loss(Y.iloc[rows], frozen.predict_proba(X.iloc[rows])) for _, rows in folds.split(X, Y)]
    )
    assert 0.3 < -scores.mean() < 0.69
    cloned = cross_val_score(
        BundleClassifier(bundle_folder), X, Y, cv=folds, scoring="neg_log_loss", error_score="raise"
    )
    assert cloned == pytest.approx(scores, abs=1e-5)
    together = cross_val_predict(frozen, X, Y, cv=folds, method="predict_proba")
    assert together.tolist() == frozen.predict_proba(X).tolist()
    assert frozen.score(X, Y) == pytest.approx((frozen.predict(X) == Y).mean())


def test_in_a_calibration_display(frozen: Any) -> None:
    axes = Figure().subplots()
    display = CalibrationDisplay.from_estimator(frozen, X, Y, n_bins=5, ax=axes)
    assert display.y_prob.tolist() == frozen.predict_proba(X)[:, 1].tolist()
    drawn = axes.get_lines()[1].get_xydata()
    assert drawn[:, 0].tolist() == display.prob_pred.tolist()
    assert drawn[:, 1].tolist() == display.prob_true.tolist()
    assert len(drawn) >= 3


def test_it_keeps_to_scikit_learns_contract(bundle_folder: Path) -> None:
    one = BundleClassifier(bundle_folder, target_prevalence=0.2)
    assert one.get_params() == {"bundle": bundle_folder, "target_prevalence": 0.2}
    assert clone(one).get_params() == one.get_params()
    assert is_classifier(one)
    assert not get_tags(one).classifier_tags.multi_class
    check_is_fitted(one)
    assert one.fit(X, Y) is one
    shifted = one.predict_proba(X)
    assert one.set_params(target_prevalence=None) is one
    assert (one.predict_proba(X)[:, 1] > shifted[:, 1]).all()
    copied = copy.deepcopy(one)
    assert copied.get_params() == one.get_params()
    assert copied.predict_proba(X) == pytest.approx(one.predict_proba(X), abs=1e-5)
    assert "BundleClassifier" in repr(one)


def test_any_thread_may_use_it(frozen: Any) -> None:
    wanted, found = frozen.predict_proba(X.iloc[:20]), []
    thread = threading.Thread(target=lambda: found.append(frozen.predict_proba(X.iloc[:20])))
    thread.start()
    thread.join()
    assert found[0] == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize(
    ("y", "told"),
    [
        (Y.map({0: "no", 1: "yes"}), "y holds 'no'; it must be one of 0, 1"),
        (Y + 1, "y holds 2"),
        (Y.astype(float).where(Y == 1), "y holds nan"),
        (Y.iloc[1:], r"y has the shape \(239,\); X has 240 rows"),
    ],
)
def test_labels_that_mean_something_else_are_refused(frozen: Any, y: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        frozen.estimator.fit(X, y)


def test_rows_that_are_no_passengers_are_refused(frozen: Any, tmp_path: Path) -> None:
    assert frozen.estimator.fit(X, Y == 1) is frozen.estimator
    with pytest.raises(TypeError, match="an array has no names of fields"):
        frozen.predict_proba(X.to_numpy())
    with pytest.raises(RowError, match="row 0: Age is 999"):
        frozen.predict(X.assign(Age=999))
    with pytest.raises(BundleError, match="is not a readable folder"):
        BundleClassifier(tmp_path / "none").predict(X)
