#!/usr/bin/env bash
# probmetrics 1.3.0: its calibrator "platt-logits" refuses every valid input, because the logarithms that it makes of the probabilities
# are checked to be probabilities. (Its calibrators import numba, which it does not ask for.)
# Expected: a fitted map, as of the calibrators "platt" and "logistic" on the same rows.
# Seen: ValueError, "All probability values must be within the [0, 1] range".
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check torch==2.13.0 probmetrics==1.3.0 numpy==2.4.6 numba==0.68.1
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from probmetrics.calibrators import get_calibrator

rng = np.random.default_rng(0)
p = rng.uniform(0.01, 0.99, 500)
x, y = np.column_stack([1 - p, p]), (rng.random(500) < p).astype(int)
print(f"probmetrics {version('probmetrics')}, numpy {np.__version__}")
fitted = get_calibrator("platt").fit(x, y)
assert fitted.predict_proba(x).shape == (500, 2)
try:
    get_calibrator("platt-logits").fit(x, y)
except ValueError as error:
    print(f"platt-logits: ValueError: {error}")
else:
    raise SystemExit("platt-logits fits now")
PYTHON
