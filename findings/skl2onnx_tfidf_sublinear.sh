#!/usr/bin/env bash
# skl2onnx 1.20.0 exports TfidfVectorizer(sublinear_tf=True) with ln(1 + n) in place of 1 + ln n.
# Expected: the same weights, or a refusal.
# Seen: a word that stands three times weighs 2.702 in scikit-learn and 1.785 in the graph; one that stands once 1.288 and 0.893.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check skl2onnx==1.20.0 scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.32.0 protobuf==6.33.6 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import numpy as np, onnxruntime, skl2onnx
from sklearn.feature_extraction.text import TfidfVectorizer
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType

def onnx_outputs(model, rows):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: rows})

texts = np.array([["good good good ship"], ["bad ship"], ["good day"]])
vectorizer = TfidfVectorizer(sublinear_tf=True, norm=None, lowercase=False).fit(texts[:, 0])
theirs = vectorizer.transform(texts[:, 0]).toarray()[0]
exported = onnx_outputs(to_onnx(vectorizer, initial_types=[("x", StringTensorType([None, 1]))]), texts)[0][0]
print(f"skl2onnx {skl2onnx.__version__}: scikit-learn {theirs.round(3)}, exported {exported.round(3)}")
inverse_frequency = vectorizer.idf_[2:]
assert np.allclose(theirs[2:], inverse_frequency * (1 + np.log([3, 1])))
assert np.allclose(exported[2:], inverse_frequency * np.log(1 + np.array([3, 1])), atol=1e-5)
PYTHON
