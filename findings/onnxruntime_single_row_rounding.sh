#!/usr/bin/env bash
# ONNX Runtime 1.32.0, float32 MatMul by batches of weights on a CPU (x86-64): one row alone is rounded otherwise than beside another row.
# Expected: a row's sums are taken in one order, whatever the number of rows, as they are for 2, 3 and 20 rows.
# Seen: with a single row, and weights of three dimensions, another kernel adds in another order: last digits differ. Where a
# rounding to whole numbers follows (int8), such a digit decides now and then which one it is.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import os

import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper

rng = np.random.default_rng(0)
weights = numpy_helper.from_array(rng.normal(size=(12, 32, 384)).astype(np.float32), "W")
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "W"], ["y"])], "product",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, [12, "rows", 32])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, [12, "rows", 384])], [weights],
)
path = f"{os.environ['WORK']}/product.onnx"
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
rows = rng.normal(size=(12, 20, 32)).astype(np.float32)
first = {count: session.run(None, {"x": rows[:, :count]})[0][:, 0] for count in (1, 2, 3, 20)}
differ = {count: int((y != first[20]).sum()) for count, y in first.items()}
print(f"onnxruntime {onnxruntime.__version__}: of {first[20].size} outputs of the first row, those that differ from a batch of 20: {differ}")
assert differ[1] > 0 and differ[2] == differ[3] == differ[20] == 0
PYTHON
