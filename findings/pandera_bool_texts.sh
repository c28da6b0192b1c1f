#!/usr/bin/env bash
# pandera 0.35.0, coerce=True: a bool column takes every text for True, "False" and "0" among them.
# Expected: the values of the texts, or the refusal that "boolean", pandas' type with missing values, gives.
# Seen: ["True", "False", "0", "no"] is validated as four times True. A CSV read as texts (dtype=str) is such a frame.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check pandera[pandas]==0.35.0 pandas==3.1.1
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import pandas as pd
import pandera.pandas as pa

frame = pd.DataFrame({"alive": ["True", "False", "0", "no"]})


def validated(kind):
    try:
        return pa.DataFrameSchema({"alive": pa.Column(kind, coerce=True)}).validate(frame)["alive"].tolist()
    except (pa.errors.SchemaError, pa.errors.SchemaErrors) as error:
        return type(error).__name__


seen = {str(kind): validated(kind) for kind in (bool, "boolean")}
print(f"pandera {version('pandera')}, pandas {pd.__version__}: {frame['alive'].tolist()} becomes {seen}")
assert seen[str(bool)] == [True] * 4 and seen["boolean"].startswith("SchemaError")
PYTHON
