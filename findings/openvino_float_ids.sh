#!/usr/bin/env bash
# OpenVINO 2026.4.1 takes floating-point numbers for int64 token ids and cuts their fractions off.
# Expected: a type error, as ONNX Runtime raises for the same graph.
# Seen: id 2.9 gives row 2 of the embedding.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check openvino==2026.4.1 onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import os

import numpy as np, onnx, onnxruntime, openvino
from onnx import TensorProto, helper, numpy_helper

table = np.arange(40, dtype=np.float32).reshape(5, 8)
graph = helper.make_graph(
    [helper.make_node("Gather", ["table", "ids"], ["rows"])], "embedding",
    [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n"])],
    [helper.make_tensor_value_info("rows", TensorProto.FLOAT, ["n", 8])], [numpy_helper.from_array(table, "table")],
)
path = os.environ["WORK"] + "/embedding.onnx"
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
ids = np.array([2.9])
compiled = openvino.Core().compile_model(path, "CPU")
row = list(compiled({"ids": ids}).values())[0][0]
try:
    onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"ids": ids})
    refused = False
except Exception:
    refused = True
print(f"openvino {openvino.__version__}: id 2.9 gives row {int(row[0] // 8)}; ONNX Runtime refuses it: {refused}")
assert np.array_equal(row, table[2]) and refused
PYTHON
