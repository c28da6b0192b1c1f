#!/usr/bin/env bash
# ONNX Runtime 1.32.0, Cast of a text to a number: it reads as much of the text as is a number and drops the rest.
# Expected: an error, as for "many" and for the empty text, and as ONNX's reference evaluator gives for all of them.
# Seen: to int64 "3.7" is 3, "1e3" is 1 and "12 345" is 12; to float32 "12 345" and "12,5" are 12.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check onnx==1.23.2 onnxruntime==1.32.0 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
import numpy as np, onnx, onnxruntime
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

onnxruntime.set_default_logger_severity(4)


def read(text, kind):
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=kind)], "cast",
        [helper.make_tensor_value_info("x", TensorProto.STRING, ["n"])],
        [helper.make_tensor_value_info("y", kind, ["n"])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=9)
    runtime = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answers = []
    for engine in (runtime, ReferenceEvaluator(model)):
        try:
            answers.append(engine.run(None, {"x": np.array([text], dtype=object)})[0].item())
        except Exception:
            answers.append("error")
    return tuple(answers)


texts = {TensorProto.INT64: ("3.7", "1e3", "12 345", "many", ""), TensorProto.FLOAT: ("12 345", "12,5", "many", "")}
seen = {kind: [read(text, kind) for text in texts[kind]] for kind in texts}
for kind in texts:
    print(f"onnxruntime {onnxruntime.__version__} and reference: {dict(zip(texts[kind], seen[kind]))}")
assert [runtime for runtime, _ in seen[TensorProto.INT64]] == [3, 1, 12, "error", "error"]
assert [runtime for runtime, _ in seen[TensorProto.FLOAT]] == [12, 12, "error", "error"]
assert all(reference == "error" for kind in texts for _, reference in seen[kind])
PYTHON
