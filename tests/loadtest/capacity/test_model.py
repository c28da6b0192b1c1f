"""The capacity model recovers what it is fitted to, and its queue agrees with what queueing theory knows."""

import math
import random

import pytest

from loadtest.capacity.model import CapacityModel, EmpiricalDistribution, fit, predict, replicas
from loadtest.report.recording import Histogram
from loadtest.report.server_series import Window

NONE = EmpiricalDistribution([0.0], [1])
CONSTANT = EmpiricalDistribution([1.0], [1])
EXPONENTIAL = EmpiricalDistribution([-math.log(1 - (place + 0.5) / 2000) for place in range(2000)], [1] * 2000)


def window(rows: float, inferences: float, ms: float) -> Window:
    return Window(0, 1, inferences, rows * inferences, rows, 0, 0, ms, ms, 0, 0.5, 1, 100)


def histogram(*values: float) -> Histogram:
    found = Histogram()
    for value in values:
        found.add(value)
    return found


def test_a_line_is_recovered_from_noisy_means() -> None:
    rng = random.Random(2)
    seen = [
        window(n, 40, (4 + 2.5 * n) * rng.gauss(1, 0.03)) for n in (1, 1.1, 1.5, 2, 4, 9, 20, 40, 64) for _ in range(4)
    ]
    model = fit(seen, histogram(6, 6.5, 7), histogram(1, 2), 64)
    assert model.a_ms == pytest.approx(4, rel=0.1)
    assert model.b_ms == pytest.approx(2.5, rel=0.05)
    assert model.max_rate == pytest.approx(64_000 / 164, rel=0.05)
    mean = sum(v * w for v, w in zip(model.noise.values, model.noise.weights, strict=True)) / sum(model.noise.weights)
    assert mean == pytest.approx(1)


def test_too_little_is_not_fitted() -> None:
    with pytest.raises(ValueError, match="too little"):
        fit([window(1, 3, 5.0)], histogram(5), histogram(1), 64)


def test_one_at_a_time_it_is_an_m_m_1_queue_and_an_m_d_1_queue() -> None:
    # Sojourn of M/M/1: exponential with mean 1/(μ − λ). Mean number in M/D/1: Pollaczek and Khinchine.
    model = CapacityModel(0.0, 10.0, 1, EXPONENTIAL, NONE)
    found = predict(model, 50.0, random.Random(3), 200_000)
    assert found.p50_ms == pytest.approx(1000 * math.log(2) / 50, rel=0.05)
    assert found.p99_ms == pytest.approx(1000 * math.log(100) / 50, rel=0.1)
    assert found.busy_share == pytest.approx(0.5, rel=0.03)
    constant = predict(CapacityModel(0.0, 10.0, 1, CONSTANT, NONE), 50.0, random.Random(3), 100_000)
    assert constant.p99_ms < found.p99_ms


def test_batches_fill_and_carry_more_than_one_at_a_time() -> None:
    model = CapacityModel(10.0, 1.0, 64, CONSTANT, NONE)
    slow, fast = (predict(model, rate, random.Random(4)) for rate in (5.0, 600.0))
    assert slow.batch_rows < 1.1 < 5 < fast.batch_rows
    assert slow.p50_ms == pytest.approx(11.0, rel=0.02)
    assert predict(model, 2000.0, random.Random(4)).throughput == pytest.approx(model.max_rate)
    assert math.isinf(predict(model, 2000.0, random.Random(4)).p99_ms)


def test_replicas_are_as_many_as_needed_and_no_more() -> None:
    model = CapacityModel(10.0, 1.0, 64, CONSTANT, NONE)
    answer = replicas(model, 5000.0, 60.0, random.Random(5))
    assert answer is not None
    count, each = answer
    assert each.p99_ms <= 60
    assert each.rate == pytest.approx(5000 / count)
    assert predict(model, 5000.0 / (count - 1), random.Random(5)).p99_ms > 60
    one = replicas(model, 1.0, 60.0, random.Random(5))
    assert one is not None
    assert one[0] == 1
    assert replicas(model, 10.0, 5.0, random.Random(5)) is None
