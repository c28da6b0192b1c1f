#!/usr/bin/env bash
# prometheus-client 0.26.0 chooses OpenMetrics wherever Accept names it, whatever the quality, even q=0.
# Expected (RFC 9110, 12.4.2): q=0 means "not acceptable", and the higher quality wins.
# Seen: application/openmetrics-text for both headers below.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check prometheus-client==0.26.0
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from prometheus_client.exposition import choose_encoder

accepts = ("application/openmetrics-text;q=0, text/plain", "text/plain;q=1, application/openmetrics-text;q=0.1")
chosen = [choose_encoder(accept)[1] for accept in accepts]
print(f"prometheus-client {version('prometheus-client')}: {dict(zip(accepts, chosen))}")
assert all(one.startswith("application/openmetrics-text") for one in chosen)
PYTHON
