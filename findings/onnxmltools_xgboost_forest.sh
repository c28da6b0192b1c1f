#!/usr/bin/env bash
# onnxmltools 1.16.0 mixes up the classes of an XGBoost random forest of three classes: tree i goes to class i mod 3,
# but XGBoost writes all trees of a class one after the other within a round (num_parallel_tree).
# Expected: the same probabilities, as for boosted trees and for a forest of two classes, or a refusal.
# Seen: XGBRFClassifier of 10 trees: 371 of 1,000 predicted classes differ, and probabilities by up to .53.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnxmltools==1.16.0 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 protobuf==6.33.6 numpy==2.4.6 \
    xgboost-cpu==3.2.0 scikit-learn==1.9.1
"$WORK/venv/bin/python" - <<'PYTHON'
import numpy as np, onnxmltools, onnxruntime, warnings
from onnxmltools.convert.common.data_types import FloatTensorType
from xgboost import XGBClassifier, XGBRFClassifier


def onnx_probabilities(model, rows):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})[1]


warnings.simplefilter("ignore")
onnxruntime.set_default_logger_severity(3)
rng = np.random.default_rng(0)
rows = rng.normal(size=(1000, 3)).astype(np.float32)
score = rows[:, 0] + 0.2 * rng.normal(size=1000)
seen = {}
for name, model, edges in (("boosting, 3 classes", XGBClassifier, [-0.5, 0.5]), ("forest, 2", XGBRFClassifier, [0]),
                           ("forest, 3", XGBRFClassifier, [-0.5, 0.5])):
    fitted = model(n_estimators=10, n_jobs=1, random_state=0).fit(rows, np.digitize(score, edges))
    graph = onnxmltools.convert_xgboost(fitted, initial_types=[("x", FloatTensorType([None, 3]))])
    exported, theirs = onnx_probabilities(graph, rows), fitted.predict_proba(rows)
    seen[name] = int((exported.argmax(1) != theirs.argmax(1)).sum()), round(float(abs(exported - theirs).max()), 4)
print(f"onnxmltools {onnxmltools.__version__}: classes of 1,000 that differ, greatest difference: {seen}")
assert seen["boosting, 3 classes"][1] < 1e-4 and seen["forest, 2"][1] < 1e-4
assert seen["forest, 3"][0] > 200 and seen["forest, 3"][1] > 0.3
PYTHON
