#!/usr/bin/env bash
# datasets 5.2.0, class_encode_column: integer labels get their class ids in the order of their spelling, so ten or more
# classes change places.
# Expected: whole numbers from 0 on keep their values; those who have such labels see no reason to look.
# Seen: 0 to 10 become 0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2. Up to ten classes (0 to 9) all stay as they are.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check datasets==5.2.0
"$WORK/venv/bin/python" - <<'PYTHON'
import os
from importlib.metadata import version

os.environ["HF_HOME"] = os.environ["WORK"]
import datasets

datasets.disable_progress_bars()


def encoded(count):
    table = datasets.Dataset.from_dict({"label": list(range(count))}).class_encode_column("label")
    return table["label"][:], table.features["label"].names


(ten, _), (eleven, names) = encoded(10), encoded(11)
print(f"datasets {version('datasets')}: 0 to 10 become {eleven}, names {names}")
assert ten == list(range(10)) and eleven == [0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 2]
PYTHON
