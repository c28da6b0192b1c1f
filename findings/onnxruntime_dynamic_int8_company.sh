#!/usr/bin/env bash
# ONNX Runtime 1.32.0, quantize_dynamic: what a row is answered depends on the other rows of its batch.
# Expected: rows of a batch are independent, as in float32.
# Seen: one scale for the activations of the whole batch; here an output moves by .85 when a row of ten times the size joins, in float32 by 0.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import logging, os, tempfile

import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

logging.disable(logging.WARNING)
rng = np.random.default_rng(0)
weights = numpy_helper.from_array(rng.normal(size=(64, 8)).astype(np.float32), "W")
graph = helper.make_graph(
    [helper.make_node("MatMul", ["x", "W"], ["y"])], "product",
    [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", 64])],
    [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["rows", 8])], [weights],
)
folder = tempfile.mkdtemp(dir=os.environ["WORK"])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), f"{folder}/float.onnx")
quantize_dynamic(f"{folder}/float.onnx", f"{folder}/int8.onnx", weight_type=QuantType.QInt8, per_channel=True)
row = rng.normal(size=(1, 64)).astype(np.float32)
larger = 10 * rng.normal(size=(1, 64)).astype(np.float32)
moved = {}
for name in ("float", "int8"):
    session = onnxruntime.InferenceSession(f"{folder}/{name}.onnx", providers=["CPUExecutionProvider"])
    alone, beside = (session.run(None, {"x": rows})[0][0] for rows in (row, np.vstack([row, larger])))
    moved[name] = float(abs(alone - beside).max())
print(f"onnxruntime {onnxruntime.__version__}: largest change of a row's output by its company: {moved}")
assert moved["float"] < 1e-4 and moved["int8"] > 0.1
PYTHON
