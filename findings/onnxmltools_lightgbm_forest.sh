#!/usr/bin/env bash
# onnxmltools 1.16.0 adds up the trees of a LightGBM random forest (boosting_type="rf"), where LightGBM has their
# mean, and divides the logistic function of the sum by 100, however many trees there are.
# Expected: LightGBM's probabilities, or a refusal.
# Seen: 20, 100 and 200 trees: the greatest probability is .88 in LightGBM and .01 in the graph, which predicts class 0
# for every row.
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

warnings.simplefilter("ignore")
onnxruntime.set_default_logger_severity(3)
rng = np.random.default_rng(0)
rows = rng.normal(size=(1000, 3)).astype(np.float32)
labels = (rows[:, 0] + rng.normal(size=1000) > 0).astype(int)
print(f"onnxmltools {onnxmltools.__version__}, greatest probability:")
for trees in (20, 100, 200):
    forest = {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.7}
    model = LGBMClassifier(n_estimators=trees, verbose=-1, n_jobs=1, **forest).fit(rows, labels)
    graph = onnxmltools.convert_lightgbm(model, initial_types=[("x", FloatTensorType([None, 3]))], zipmap=False)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    classes, exported = session.run(None, {"x": rows})
    theirs = model.predict_proba(rows)[:, 1].max()
    print(f"{trees} trees: LightGBM {theirs:.2f}, exported {exported[:, 1].max():.4f}, classes {set(classes.tolist())}")
    assert theirs > 0.6 and exported[:, 1].max() < 0.0101 and set(classes.tolist()) == {0}
PYTHON
