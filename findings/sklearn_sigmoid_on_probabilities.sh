#!/usr/bin/env bash
# scikit-learn 1.9.1: sigmoid calibration of a classifier that has probabilities and no decision function is fitted to the probability
# itself and not to its log-odds. Such a map has a least and a greatest value (here .04 and .95), and cannot leave alone what is
# calibrated already.
# Expected: Platt's map of the log-odds, of which the identity is one.
# Seen: 20,000 labels drawn from the very probabilities: log loss .332 becomes .342, a probability moves by up to .08. With a
# decision_function that gives the log-odds of the same probabilities, none moves by more than .005.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator


class Given(ClassifierMixin, BaseEstimator):
    """Its input is the probability of class 1."""

    def __init__(self):
        self.classes_, self.is_fitted_ = np.arange(2), True

    def fit(self, x, y):
        return self

    def predict(self, x):
        return (x[:, 0] > 0.5).astype(int)

    def predict_proba(self, x):
        return np.column_stack([1 - x[:, 0], x[:, 0]])


class WithLogOdds(Given):
    def decision_function(self, x):
        return np.log(x[:, 0]) - np.log1p(-x[:, 0])


rng = np.random.default_rng(0)
p = 1 / (1 + np.exp(-rng.normal(-2, 2.5, 20_000)))
y = (rng.random(len(p)) < p).astype(int)
print(f"scikit-learn {version('scikit-learn')}")
moved, worse = [], []
for estimator in (Given(), WithLogOdds()):
    calibrated = CalibratedClassifierCV(FrozenEstimator(estimator), method="sigmoid").fit(p[:, None], y)
    q = calibrated.predict_proba(p[:, None])[:, 1]
    losses = [-np.log(np.where(y == 1, each, 1 - each)).mean() for each in (p, q)]
    moved.append(np.abs(q - p).max())
    worse.append(losses[1] - losses[0])
    print(f"{type(estimator).__name__}: log loss {losses[0]:.4f} -> {losses[1]:.4f}, from {q.min():.3f} to {q.max():.3f}, moved by up to {moved[-1]:.3f}")
assert worse[0] > 0.01 and moved[0] > 0.05 and abs(worse[1]) < 0.001 and moved[1] < 0.02
PYTHON
