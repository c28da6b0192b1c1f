#!/usr/bin/env bash
# huggingface_hub 2.4.0 writes a metric that is a NumPy number as a Python object, which no safe YAML loader reads.
# Expected: the number, or a type error when the card is made.
# Seen: "!!python/object/apply:numpy..." in the card's head; yaml.safe_load raises ConstructorError.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0 pyyaml==6.0.3 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import yaml
from huggingface_hub import EvalResult, ModelCardData

result = EvalResult(task_type="t", dataset_type="d", dataset_name="d", metric_type="accuracy", metric_value=np.float64(0.9))
text = ModelCardData(model_name="m", eval_results=[result]).to_yaml()
try:
    yaml.safe_load(text)
    outcome = "loaded"
except yaml.YAMLError as error:
    outcome = type(error).__name__
print(f"huggingface_hub {version('huggingface_hub')}: {'!!python/object' in text=}, safe_load: {outcome}")
assert "!!python/object" in text and outcome == "ConstructorError"
PYTHON
