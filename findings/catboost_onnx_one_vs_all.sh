#!/usr/bin/env bash
# CatBoost 1.2.10 writes a softmax into the ONNX file of a model with loss_function="MultiClassOneVsAll", whose own
# probabilities are a sigmoid for each class and need not add up to 1.
# Expected: what predict_proba answers, as for "MultiClass" (1e-7), or a refusal, as for unsymmetric trees.
# Seen: the same classes; probabilities are up to .15 off, and rows that add up to 1.29 in CatBoost add up to 1.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    catboost==1.2.10 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import os
from importlib.metadata import version

import numpy as np, onnxruntime
from catboost import CatBoostClassifier

rng = np.random.default_rng(0)
rows = rng.normal(size=(1000, 3)).astype(np.float32)
labels = np.digitize(rows[:, 0] + rng.normal(size=1000), [-0.7, 0.7])
path = os.environ["WORK"] + "/model.onnx"
far, sums = {}, {}
for loss in ("MultiClass", "MultiClassOneVsAll"):
    model = CatBoostClassifier(iterations=30, loss_function=loss, verbose=0, allow_writing_files=False, thread_count=1)
    model.fit(rows, labels)
    model.save_model(path, format="onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    answered = session.run(None, {"features": rows})[1]
    exported, theirs = np.array([[row[name] for name in range(3)] for row in answered]), model.predict_proba(rows)
    assert (exported.argmax(1) == theirs.argmax(1)).all()
    far[loss] = float(abs(exported - theirs).max())
    sums[loss] = round(float(theirs.sum(1).max()), 3), round(float(exported.sum(1).max()), 3)
print(f"catboost {version('catboost')}: greatest difference {far}, greatest sum of a row (CatBoost, exported) {sums}")
assert far["MultiClass"] < 1e-5 and far["MultiClassOneVsAll"] > 0.05 and sums["MultiClassOneVsAll"][0] > 1.1
PYTHON
