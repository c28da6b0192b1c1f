#!/usr/bin/env bash
# prometheus-client 0.26.0: an exemplar of more than 128 characters raises after the observation was counted.
# Expected: either the observation is refused whole, or the exemplar alone is dropped.
# Seen: ValueError, whose message has an unfilled %d, and the histogram's count is 1: who tries again without the exemplar counts twice.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check prometheus-client==0.26.0
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Histogram

registry = CollectorRegistry()
histogram = Histogram("seconds", "Seconds.", registry=registry)
try:
    histogram.observe(0.2, {"trace_id": "x" * 200})
    message = None
except ValueError as error:
    message = str(error)
counted = registry.get_sample_value("seconds_count")
print(f"prometheus-client {version('prometheus-client')}: {message!r}; counted {counted}")
assert message and "%d" in message and counted == 1
PYTHON
