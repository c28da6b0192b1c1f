#!/usr/bin/env bash
# msgspec 0.22.0: the JSON Schema of a Literal lists its values sorted, not in the order in which they were written.
# Expected: the order of the type, which is what a form or a generated client shows: ["low", "middle", "high"].
# Seen: ["high", "low", "middle"]; an Enum's values are sorted likewise.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check msgspec==0.22.0
"$WORK/venv/bin/python" - <<'PYTHON'
import enum
from importlib.metadata import version
from typing import Literal

import msgspec

written = ["low", "middle", "high"]
literal = msgspec.json.schema(Literal["low", "middle", "high"])["enum"]
of_enum = msgspec.json.schema(enum.Enum("Level", {name: name for name in written}))["$defs"]["Level"]["enum"]
print(f"msgspec {version('msgspec')}: written {written}, Literal {literal}, Enum {of_enum}")
assert literal == of_enum == sorted(written) != written
PYTHON
