#!/usr/bin/env bash
# skl2onnx 1.20.0 exports TunedThresholdClassifierCV without its threshold: labels are the inner estimator's.
# Expected: labels by the threshold that was tuned, which is all that this class adds, or a refusal, as for
# FixedThresholdClassifier.
# Seen: scikit-learn finds 31 of 1,000 rows positive at the threshold .22, the graph 4 (those over one half).
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    skl2onnx==1.20.0 scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.32.0 protobuf==6.33.6 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import numpy as np, onnxruntime, skl2onnx
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import TunedThresholdClassifierCV
from skl2onnx import to_onnx

rng = np.random.default_rng(0)
rows = rng.normal(size=(1000, 3)).astype(np.float32)
labels = (rng.random(1000) < 1 / (1 + np.exp(4 - 1.5 * rows[:, 0]))).astype(int)
model = TunedThresholdClassifierCV(LogisticRegression(), scoring="f1").fit(rows, labels)
graph = to_onnx(model, rows[:1], options={"zipmap": False})
session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
exported, probabilities = session.run(None, {"X": rows})
theirs = model.predict(rows)
print(f"skl2onnx {skl2onnx.__version__}: threshold {model.best_threshold_:.2f}, positive of 1,000: "
      f"scikit-learn {theirs.sum()}, exported {exported.sum()}")
assert np.allclose(probabilities, model.predict_proba(rows), atol=1e-5)
assert np.array_equal(exported, model.estimator_.predict(rows)) and theirs.sum() > 2 * exported.sum()
PYTHON
