#!/usr/bin/env bash
# skl2onnx 1.20.0 drops the indicator columns of SimpleImputer(add_indicator=True), without a word.
# Expected: the exported graph has the imputer's columns and the indicators, or the export is refused.
# Seen: 6 columns become 3; behind a logistic regression 172 of 400 predicted classes differ.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check skl2onnx==1.20.0 scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.32.0 protobuf==6.33.6 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import numpy as np, onnxruntime, skl2onnx, warnings
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from skl2onnx import to_onnx

def onnx_outputs(model, rows):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})

warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
rows = rng.normal(size=(400, 3)).astype(np.float32)
rows[rng.random(rows.shape) < 0.3] = np.nan
labels = np.isnan(rows[:, 0]).astype(int)
imputer = SimpleImputer(add_indicator=True).fit(rows)
columns = imputer.transform(rows).shape[1], onnx_outputs(to_onnx(imputer, rows[:1]), rows)[0].shape[1]
model = make_pipeline(SimpleImputer(add_indicator=True), LogisticRegression()).fit(rows, labels)
exported = onnx_outputs(to_onnx(model, rows[:1], options={"zipmap": False}), rows)[0]
wrong = int((exported != model.predict(rows)).sum())
print(f"skl2onnx {skl2onnx.__version__}: columns scikit-learn, exported: {columns}; {wrong} of 400 classes differ")
assert columns == (6, 3) and wrong > 50
PYTHON
