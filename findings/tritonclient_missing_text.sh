#!/usr/bin/env bash
# tritonclient 2.73.0 sends a missing text as a word: None as "None", NaN as "nan", in BYTES tensors of either encoding.
# Expected: a type error: the array is of neither texts nor bytes, and the protocol has no missing BYTES.
# Seen: length 4 and "None"; a column of a pandas frame with a gap gives "nan". A server takes it for a category.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check \
    tritonclient[http]==2.73.0 pandas==3.1.1 numpy==2.4.6
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import numpy as np
import pandas as pd
from tritonclient.http import InferInput


def sent(values, binary):
    tensor = InferInput("cabin", [len(values)], "BYTES")
    tensor.set_data_from_numpy(values, binary_data=binary)
    return tensor._get_binary_data() if binary else tensor._get_tensor()["data"]


column = pd.Series(["C85", None]).to_numpy()
listed = np.array(["C85", None], dtype=object)
seen = [sent(column, True)[7:], sent(column, False), sent(listed, True)[7:], sent(listed, False)]
print(f"tritonclient {version('tritonclient')}, pandas {pd.__version__}: {seen}")
assert seen == [b"\x03\0\0\0nan", ["C85", "nan"], b"\x04\0\0\0None", ["C85", "None"]]
PYTHON
