#!/usr/bin/env bash
# skl2onnx 1.20.0: words with accents vanish from an exported TfidfVectorizer.
# Expected: the default token pattern (word characters of any script) is kept.
# Seen: for "café naïve ship" scikit-learn gives weight to all three words, the graph to "ship" alone.
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

vectorizer = TfidfVectorizer(lowercase=False).fit(["café naïve ship", "one ship"])
text = np.array([["café naïve ship"]])
theirs = vectorizer.transform(text[:, 0]).toarray()[0]
exported = onnx_outputs(to_onnx(vectorizer, initial_types=[("x", StringTensorType([None, 1]))]), text)[0][0]
words = vectorizer.get_feature_names_out()
kept = [[str(word) for word, weight in zip(words, row) if weight] for row in (theirs, exported)]
print(f"skl2onnx {skl2onnx.__version__}: scikit-learn weighs {kept[0]}, the graph {kept[1]}")
assert kept == [["café", "naïve", "ship"], ["ship"]]
PYTHON
