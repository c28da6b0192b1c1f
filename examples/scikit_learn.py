"""The bundle as a classifier in scikit-learn's tools, without a service.

./run python examples/scikit_learn.py [LABELLED.csv [PICTURE.png]]
"""

import hashlib
import importlib.util
import json
import os
import sys
from pathlib import Path

import pandas as pd
from sklearn.calibration import CalibrationDisplay, calibration_curve
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss, roc_auc_score
from sklearn.model_selection import cross_val_score

from models.bundle.manifest import BundleError
from models.estimator import BundleClassifier
from models.rows import RowError

ROOT = Path(__file__).parents[1]
LABEL = "Survived"
BUNDLE = os.environ.get("EVENKEEL_BUNDLE", ROOT / "artifacts" / "titanic")


def main(arguments: list[str]) -> int:
    source, picture = [*arguments, *[None] * 2][:2]
    path = Path(source or ROOT / "data" / "titanic.csv")
    table = pd.read_csv(path)
    X, y = table.drop(columns=LABEL), table[LABEL]

    # Frozen: it is trained already, and each fold's clone would load the bundle again.
    model = FrozenEstimator(BundleClassifier(BUNDLE))
    scores = -cross_val_score(model, X, y, cv=5, scoring="neg_log_loss", error_score="raise")
    print(f"log loss {scores.mean():.4f}, from {scores.min():.4f} to {scores.max():.4f} over 5 folds of one model")

    trained_on = json.loads((Path(BUNDLE) / "manifest.json").read_text())["origin"]["data"]["sha256"]
    if hashlib.sha256(path.read_bytes()).hexdigest() == trained_on:
        print("these rows trained the bundle, so the scores flatter it; its held-out ones are in evaluation.json")

    probabilities = model.predict_proba(X)[:, 1]
    print(f"Brier score {brier_score_loss(y, probabilities):.4f}, ROC AUC {roc_auc_score(y, probabilities):.4f}")
    print("predicted  survived")
    for survived, predicted in zip(*calibration_curve(y, probabilities, n_bins=6, strategy="quantile"), strict=True):
        print(f"{predicted:9.3f}  {survived:8.3f}  {'#' * round(40 * survived)}")
    if picture and importlib.util.find_spec("matplotlib") is None:
        print("matplotlib is not installed, so no picture is drawn", file=sys.stderr)
        return 1
    if picture:
        import matplotlib as mpl

        mpl.use("Agg")
        CalibrationDisplay.from_estimator(model, X, y, n_bins=6, strategy="quantile").figure_.savefig(picture)
        print(f"drawn in {picture}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (BundleError, RowError, OSError) as error:
        sys.exit(f"scikit_learn.py: {error}")
