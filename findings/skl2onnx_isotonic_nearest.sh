#!/usr/bin/env bash
# skl2onnx 1.20.0 exports isotonic calibration as a step to the nearest knot; scikit-learn interpolates between knots.
# Expected: the calibrated probabilities of CalibratedClassifierCV(method="isotonic"), as for method="sigmoid" (1e-6).
# Seen: up to .09 off where knots are far apart, and fewer different probabilities.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    skl2onnx==1.20.0 scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.32.0 protobuf==6.33.6 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import numpy as np, onnxruntime, skl2onnx
from sklearn.calibration import CalibratedClassifierCV
from sklearn.linear_model import LogisticRegression
from skl2onnx import to_onnx

rng = np.random.default_rng(0)
rows = rng.normal(size=(400, 3)).astype(np.float32)
labels = (rows[:, 0] + rng.normal(size=400) > 0).astype(int)
far, values = {}, {}
for method in ("sigmoid", "isotonic"):
    model = CalibratedClassifierCV(LogisticRegression(), method=method, ensemble=False).fit(rows, labels)
    graph = to_onnx(model, rows[:1], options={"zipmap": False})
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    exported, theirs = session.run(None, {"X": rows})[1][:, 1], model.predict_proba(rows)[:, 1]
    far[method] = float(abs(exported - theirs).max())
    values[method] = len(np.unique(theirs.round(6))), len(np.unique(exported.round(6)))
print(f"skl2onnx {skl2onnx.__version__}: greatest difference {far}, different values (theirs, exported) {values}")
inside, knots = model.calibrated_classifiers_[0].estimator, model.calibrated_classifiers_[0].calibrators[0]
nearest = abs(inside.decision_function(rows)[:, None] - knots.X_thresholds_).argmin(1)
assert np.isclose(exported, knots.y_thresholds_[nearest], atol=1e-4).mean() > 0.99
assert far["sigmoid"] < 1e-5 and far["isotonic"] > 0.02 and values["isotonic"][0] > values["isotonic"][1]
PYTHON
