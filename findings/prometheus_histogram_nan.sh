#!/usr/bin/env bash
# prometheus-client 0.26.0: a histogram that observes NaN does not count it, but its sum is NaN from then on.
# Expected: NaN is left out of both, or is counted in both (as Prometheus' client for Go does), or is refused.
# Seen: three observations, count 2, sum NaN; the mean is lost until the process ends, and no bucket says why. A counter
# takes NaN as well, though it refuses negative steps.
set -euo pipefail
WORK=$(mktemp -d)
export WORK
trap 'rm -rf "$WORK"' EXIT
python3 -m venv "$WORK/venv"
"$WORK/venv/bin/python" -m pip install --quiet --disable-pip-version-check prometheus-client==0.26.0
"$WORK/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Histogram

registry = CollectorRegistry()
histogram = Histogram("probability", "Of the answers.", registry=registry, buckets=[0.5, 1])
counter = Counter("cost", "Of mistakes.", registry=registry)
for value in (0.2, float("nan"), 0.7):
    histogram.observe(value)
    counter.inc(value)
names = ("probability_count", "probability_sum", "cost_total")
count, total, cost = (registry.get_sample_value(name) for name in names)
last = registry.get_sample_value("probability_bucket", {"le": "+Inf"})
print(f"prometheus-client {version('prometheus-client')}: count {count}, +Inf {last}, sum {total}, counter {cost}")
assert count == last == 2 and total != total and cost != cost
PYTHON
