"""What is recorded: percentiles to a per cent, latency from when a request was due, processes that add up."""

import math

import numpy as np
import pytest

from loadtest.report.recording import Histogram, Recording


def test_percentiles_are_right_to_two_per_cent() -> None:
    values = np.random.default_rng(0).lognormal(3, 1, 20_000)
    histogram = Histogram()
    for value in values.tolist():
        histogram.add(value)
    for share in (0.01, 0.5, 0.95, 0.99, 1.0):
        assert histogram.percentile(share) == pytest.approx(np.quantile(values, share), rel=0.02)
    assert histogram.mean == pytest.approx(values.mean())
    assert math.isnan(Histogram().percentile(0.5))


def test_a_wait_before_sending_counts() -> None:
    recording = Recording()
    recording.add("predict", 1.0, 3.05, "ok", status=200, rows=1, version="v1", sent=3.0, timing=(10.0, 20.0))
    cell = recording.between(1, 2, ["predict"])
    assert cell.latency_ms.total == pytest.approx(2050)
    assert cell.waited_ms.total == pytest.approx(2000)
    assert cell.rest_ms.total == pytest.approx(20)
    # Due in one second, answered in another: throughput is of the latter.
    assert recording.rate(1, 2) == 0
    assert recording.rate(3, 4) == 1


def test_two_processes_add_up_over_the_wire() -> None:
    one, other = Recording(), Recording()
    for recording, fault in ((one, ""), (other, "no")):
        recording.add("predict", 0.5, 0.6, "ok", status=200, rows=1, version="v1")
        recording.add("batch", 1.5, 1.9, "wrong", status=200, rows=8, fault=fault)
        recording.cpu["a" if fault else "b"] = [0.5]
        recording.late_ms.add(1.0)
    other.unanswered = 3
    one.merge(Recording.decode(other.encode()))
    assert one.versions == {"v1": 2}
    assert one.between().results == {"ok": 2, "wrong": 2}
    assert one.between(1, 2).requests == 2
    assert (one.done, one.faults, one.unanswered) == ({0: 2}, ["batch: no"], 3)
    assert (one.cpu, one.late_ms.count) == ({"a": [0.5], "b": [0.5]}, 2)
