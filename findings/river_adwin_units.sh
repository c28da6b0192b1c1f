#!/usr/bin/env bash
# river 0.26.1, drift.ADWIN: whether a stream has changed depends on the unit in which it is written.
# Expected: seconds or milliseconds, shares or per cent: the same answer. Its docstring does not ask for values from 0
# to 1, and the example there has values up to 7.
# Seen: values whose mean doubles after 2,000 rows: found at row 2,079 as they are, at 2,015 if they are a thousand
# times as large, and never in 4,000 rows if they are a thousandth; a term of its bound is for values that spread over
# 0 to 1.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check river==0.26.1 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
from river import drift

rng = np.random.default_rng(0)
values = rng.gamma(4, 0.05, 6000) * np.repeat([1, 2], [2000, 4000])
found = {}
for unit in (0.001, 1, 1000):
    test = drift.ADWIN()
    found[unit] = []
    for row, value in enumerate(values):
        test.update(float(value * unit))
        if test.drift_detected:
            found[unit].append(row)
print(f"river {version('river')}: rows of alarms by factor: {found}")
assert found[0.001] == [] and found[1] and found[1000] and min(found[1000]) >= 2000
assert found[1000][0] < found[1][0]
PYTHON
