#!/usr/bin/env bash
# huggingface_hub 2.4.0: two results of one model card become one where they differ in dataset_name alone.
# Expected: an entry of model-index for each dataset name.
# Seen: one entry, named "first", that holds both metrics; a dataset_config keeps them apart.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check huggingface_hub==2.4.0
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from huggingface_hub import EvalResult, ModelCardData


def entries(**kinds):
    results = [
        EvalResult(task_type="text-classification", dataset_type="table", dataset_name=name, metric_type="accuracy",
                   metric_value=value, dataset_config=kinds.get(name))
        for name, value in (("first", 0.9), ("second", 0.8))
    ]
    return len(ModelCardData(model_name="m", eval_results=results).to_dict()["model-index"][0]["results"])


merged, apart = entries(), entries(first="first", second="second")
print(f"huggingface_hub {version('huggingface_hub')}: entries {merged}, with dataset_config {apart}")
assert (merged, apart) == (1, 2)
PYTHON
