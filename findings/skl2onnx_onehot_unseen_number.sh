#!/usr/bin/env bash
# skl2onnx 1.20.0: a OneHotEncoder over numbers takes an unseen 2.5 for the category 2.
# Expected: handle_unknown="ignore" gives zeros, as in scikit-learn.
# Seen: scikit-learn [0 0 0], the exported graph [0 1 0].
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check skl2onnx==1.20.0 scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.32.0 protobuf==6.33.6 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import numpy as np, onnxruntime, skl2onnx
from sklearn.preprocessing import OneHotEncoder
from skl2onnx import to_onnx

def onnx_outputs(model, rows):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})

rows = np.array([[1.0], [2.0], [3.0]], np.float32)
encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False).fit(rows)
unseen = np.array([[2.5]], np.float32)
theirs, exported = encoder.transform(unseen)[0].tolist(), onnx_outputs(to_onnx(encoder, rows), unseen)[0][0].tolist()
print(f"skl2onnx {skl2onnx.__version__}: scikit-learn {theirs}, exported {exported}")
assert theirs == [0, 0, 0] and exported == [0, 1, 0]
PYTHON
