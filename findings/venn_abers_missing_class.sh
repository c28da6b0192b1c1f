#!/usr/bin/env bash
# venn-abers 1.5.4: a class without a calibration row loses its column, and the columns after it move up.
# Expected: K columns for K classes, or a refusal.
# Seen: scores of three classes, calibration rows of classes 0 and 2 only: the answer has two columns, so argmax 1 now means class 2.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check venn-abers==1.5.4 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from venn_abers import VennAbersCalibrator

rng = np.random.default_rng(0)
scores, labels = rng.dirichlet([1, 1, 1], 200), rng.integers(0, 2, 200) * 2
answers = np.asarray(VennAbersCalibrator().predict_proba(p_cal=scores, y_cal=labels, p_test=scores[:5]))
print(f"venn-abers {version('venn-abers')}: scores {scores[:5].shape}, answers {answers.shape}")
assert answers.shape == (5, 2)
PYTHON
