#!/usr/bin/env bash
# onnxmltools 1.16.0 drops two maps from LightGBM's scores to probabilities: the factor `sigmoid` of the logistic
# function, and the one-against-all of objective "multiclassova", in whose place it writes a softmax.
# Expected: the same probabilities, as for the default sigmoid=1 and objective "multiclass", or a refusal.
# Seen: the classes agree, which is what a test looks at; probabilities are up to .15 off (sigmoid 0.5 or 2) and up to
# .27 off (one against all).
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    onnxmltools==1.16.0 skl2onnx==1.20.0 onnx==1.23.2 onnxruntime==1.32.0 protobuf==6.33.6 numpy==2.4.6 \
    lightgbm==4.7.0 scikit-learn==1.9.1
"$WORK/venv/bin/python" - <<'PYTHON'
import numpy as np, onnxmltools, onnxruntime, warnings
from lightgbm import LGBMClassifier
from onnxmltools.convert.common.data_types import FloatTensorType


def onnx_probabilities(model, rows):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})[1]


warnings.simplefilter("ignore")
onnxruntime.set_default_logger_severity(3)
rng = np.random.default_rng(0)
rows = rng.normal(size=(1000, 3)).astype(np.float32)
score = rows[:, 0] + rng.normal(size=1000)
far = {}
for settings in ({"sigmoid": 1.0}, {"sigmoid": 0.5}, {"sigmoid": 2.0}, {"objective": "multiclass"},
                 {"objective": "multiclassova"}):
    labels = np.digitize(score, [0] if "sigmoid" in settings else [-1, 1])
    model = LGBMClassifier(n_estimators=30, verbose=-1, n_jobs=1, **settings).fit(rows, labels)
    graph = onnxmltools.convert_lightgbm(model, initial_types=[("x", FloatTensorType([None, 3]))], zipmap=False)
    exported, theirs = onnx_probabilities(graph, rows), model.predict_proba(rows)
    assert (exported.argmax(1) == theirs.argmax(1)).mean() > 0.99
    far[" ".join(map(str, *settings.items()))] = round(float(abs(exported - theirs).max()), 6)
print(f"onnxmltools {onnxmltools.__version__}: probabilities differ by up to {far}")
assert far["sigmoid 1.0"] < 1e-5 and far["objective multiclass"] < 1e-5
assert min(far["sigmoid 0.5"], far["sigmoid 2.0"], far["objective multiclassova"]) > 0.05
PYTHON
