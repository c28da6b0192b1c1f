#!/usr/bin/env bash
# msgspec 0.22.0, strict=False: "3.0" is the integer 3 where int is asked for, and no integer where Literal[1, 2, 3] is.
# Expected: one rule for whole numbers in texts (cells of a CSV file), whatever the shape of the type.
# Seen: int takes "3" and "3.0"; Literal[1, 2, 3] takes "3" and refuses "3.0" with "Expected `int`, got `str`".
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check msgspec==0.22.0
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version
from typing import Literal

import msgspec


def lax(cell, form):
    try:
        return msgspec.convert(cell, form, strict=False)
    except msgspec.ValidationError as error:
        return str(error)


seen = {f"{cell} as {form}": lax(cell, form) for cell in ("3", "3.0") for form in (int, Literal[1, 2, 3])}
print(f"msgspec {version('msgspec')}: {seen}")
assert list(seen.values()) == [3, 3, 3, "Expected `int`, got `str`"]
PYTHON
