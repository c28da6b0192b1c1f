#!/usr/bin/env bash
# river 0.26.1, metrics.CrossEntropy: a class to which a prediction gave no probability costs nothing.
# Expected: the loss of a probability of 0, which the same metric cuts off at 1e-15: 34.5.
# Seen: 0, the loss of a perfect prediction. Rows of a class that comes up for the first time are such: river's models
# answer the classes that they have seen. A model that answers {} for every row is a perfect one.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check river==0.26.1
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from river import metrics, naive_bayes


def loss(truth, probabilities):
    metric = metrics.CrossEntropy()
    metric.update(truth, probabilities)
    return round(metric.get(), 3)


seen = {
    "named, 0": loss("c", {"a": 0.5, "b": 0.5, "c": 0.0}),
    "not named": loss("c", {"a": 0.5, "b": 0.5}),
    "named, 1": loss("c", {"c": 1.0}),
    "nothing said": loss("c", {}),
}
model, metric = naive_bayes.GaussianNB(), metrics.CrossEntropy()
for number, truth in enumerate("abcdefgh"):
    metric.update(truth, model.predict_proba_one({"x": float(number)}))
    model.learn_one({"x": float(number)}, truth)
print(f"river {version('river')}: {seen}; eight rows, each of a new class: {metric.get():.3f}")
assert list(seen.values()) == [34.539, 0, 0, 0] and abs(metric.get()) < 1e-9
PYTHON
