#!/usr/bin/env bash
# msgspec 0.22.0: json.schema_components of two Structs that were made with one name and module ends in a KeyError.
# Expected: two components with names of their own, as it gives where the modules differ, or an error that names the two.
# Seen: KeyError that shows one of the classes; with different modules two components with long names.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check msgspec==0.22.0
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import msgspec


def components(first, second):
    one = msgspec.defstruct("Row", [("age", int)], module=first)
    other = msgspec.defstruct("Row", [("plan", str)], module=second)
    try:
        return sorted(msgspec.json.schema_components([one, other])[1])
    except KeyError as error:
        return f"KeyError: {error}"


same, apart = components("tables", "tables"), components("churn", "credit")
print(f"msgspec {version('msgspec')}: one module {same}; two modules {apart}")
assert str(same).startswith("KeyError") and len(apart) == 2
PYTHON
