#!/usr/bin/env bash
# MLX 0.32.4 (CPU): the mean of int32 numbers is the sum in int32 divided by their count, and the sum wraps round.
# Expected: a mean between the least and the greatest number; its type is float32, and that of int8 is right.
# Seen: two Unix times of 2023 have a mean of -447,483,648. A list of such numbers is int32 without being asked.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check mlx[cpu]==0.32.4 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import mlx.core as mx
import numpy as np

times = mx.array([1_700_000_000, 1_700_000_000])
small = mx.array([100] * 100, dtype=mx.int8)
mean, of_small = mx.mean(times), mx.mean(small)
print(f"mlx {version('mlx')}: {times.dtype} {times.tolist()} have a mean of {mean.item():.0f} ({mean.dtype}), "
      f"a hundred int8 of 100 one of {of_small.item()}; NumPy {np.mean(np.array(times)):.0f}")
assert times.dtype == mx.int32 and mean.item() < 0 and of_small.item() == 100
PYTHON
