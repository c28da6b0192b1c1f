#!/usr/bin/env bash
# scikit-learn 1.9.1: HistGradientBoostingClassifier, which takes NaN as "unknown", does not fit a column of NaN alone.
# Expected: such a column has nothing to split on and is passed over, as RandomForestClassifier does.
# Seen: ValueError of a NumPy window that names no column. A fold of a small table easily has such a column.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check scikit-learn==1.9.1 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

rows = np.random.default_rng(0).normal(size=(200, 2))
labels = (rows[:, 0] > 0).astype(int)
rows[:, 1] = np.nan
forest = RandomForestClassifier(random_state=0).fit(rows, labels).score(rows, labels)
try:
    boosting = str(HistGradientBoostingClassifier().fit(rows, labels).score(rows, labels))
except ValueError as error:
    boosting = f"ValueError: {error}"
print(f"scikit-learn {version('scikit-learn')}: forest {forest}, boosting {boosting}")
assert forest == 1 and "window shape" in boosting
PYTHON
