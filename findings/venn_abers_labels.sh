#!/usr/bin/env bash
# venn-abers 1.5.4: with two classes that are not called 0 and 1 it answers wrong probabilities, without a word.
# Expected: classes in any numbers, as scikit-learn takes them (its estimators are what it wraps), or a refusal.
# Seen: the same rows, labels 0 and 1: .257, .625, .711; labels 1 and 2: 1.211, 2.437, 2.750; labels -1 and 1: -.889,
# .275, .609. The last two look like probabilities.
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
p = rng.random(300)
scores, labels = np.column_stack([1 - p, p]), (rng.random(300) < p).astype(int)
rows = np.array([[0.7, 0.3], [0.4, 0.6], [0.2, 0.8]])
seen = {}
for name, said in (("0, 1", labels), ("1, 2", labels + 1), ("-1, 1", 2 * labels - 1)):
    answered = VennAbersCalibrator().predict_proba(p_cal=scores, y_cal=said, p_test=rows)
    seen[name] = np.asarray(answered)[:, 1].round(3).tolist()
print(f"venn-abers {version('venn-abers')}: probability of the second class, scores .3, .6, .8: {seen}")
assert all(0 < q < 1 for q in seen["0, 1"]) and max(seen["1, 2"]) > 1
assert max(abs(a - b) for a, b in zip(seen["0, 1"], seen["-1, 1"])) > 0.1
PYTHON
