#!/usr/bin/env bash
# msgspec 0.22.0 says "Input data was truncated" of whole JSON whose string ends in a lone surrogate escape.
# Expected: a message about the escape, as the body is all there.
# Seen: DecodeError "Input data was truncated" for the eight characters "\ud800" in quotes.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check msgspec==0.22.0
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import msgspec

body = b'"' + bytes([92]) + b'ud800"'
try:
    message = repr(msgspec.json.decode(body))
except msgspec.DecodeError as error:
    message = str(error)
print(f"msgspec {version('msgspec')}: {message}")
assert message == "Input data was truncated"
PYTHON
