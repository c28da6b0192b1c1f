#!/usr/bin/env bash
# skl2onnx 1.20.0 exports HistGradientBoosting with categorical_features as if the categories were ordered numbers.
# Expected: the same classes, or a refusal.
# Seen: more than half of 2,000 predicted classes differ; without categorical_features none does.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check skl2onnx==1.20.0 scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.32.0 protobuf==6.33.6 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import numpy as np, onnxruntime, skl2onnx
from sklearn.ensemble import HistGradientBoostingClassifier
from skl2onnx import to_onnx

def onnx_outputs(model, rows):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})

rng = np.random.default_rng(0)
rows = rng.normal(size=(2000, 4))
rows[:, 0] = rng.integers(0, 6, 2000)
labels = (rows[:, 0].astype(int) % 2) ^ (rows[:, 1] > 0)
rows = rows.astype(np.float32).astype(np.float64)
wrong = {}
for name, settings in (("categories", {"categorical_features": [0]}), ("numbers", {})):
    model = HistGradientBoostingClassifier(random_state=0, max_iter=50, **settings).fit(rows, labels)
    graph = to_onnx(model, rows[:1].astype(np.float32), options={"zipmap": False})
    wrong[name] = int((onnx_outputs(graph, rows.astype(np.float32))[0] != model.predict(rows)).sum())
print(f"skl2onnx {skl2onnx.__version__}: classes of 2,000 that differ: {wrong}")
assert wrong["categories"] > 200 and wrong["numbers"] == 0
PYTHON
