"""The capacity model recovers what it is fitted to, and its queue agrees with what queueing theory knows."""

import heapq
import math
import random
from itertools import accumulate

import msgspec
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
    model = fit(seen, histogram(6, 6.5, 7), histogram(1, 2), 64, 1)
    assert model.a_ms == pytest.approx(4, rel=0.1)
    assert model.b_ms == pytest.approx(2.5, rel=0.05)
    assert model.max_rate == pytest.approx(64_000 / 164, rel=0.05)
    mean = sum(v * w for v, w in zip(model.noise.values, model.noise.weights, strict=True)) / sum(model.noise.weights)
    assert mean == pytest.approx(1)
    # Of two workers each takes as long, and together they carry twice as much.
    double = fit(seen, histogram(6, 6.5, 7), histogram(1, 2), 64, 2)
    assert double == msgspec.structs.replace(model, workers=2)
    assert double.max_rate == pytest.approx(2 * model.max_rate)


def test_too_little_is_not_fitted() -> None:
    with pytest.raises(ValueError, match="too little"):
        fit([window(1, 3, 5.0)], histogram(5), histogram(1), 64, 1)


def test_one_at_a_time_it_is_an_m_m_1_queue_and_an_m_d_1_queue() -> None:
    # Sojourn of M/M/1: exponential with mean 1/(μ − λ). Mean number in M/D/1: Pollaczek and Khinchine.
    model = CapacityModel(0.0, 10.0, 1, EXPONENTIAL, NONE)
    found = predict(model, 50.0, random.Random(3), 200_000)
    assert found.p50_ms == pytest.approx(1000 * math.log(2) / 50, rel=0.05)
    assert found.p99_ms == pytest.approx(1000 * math.log(100) / 50, rel=0.1)
    assert found.busy_share == pytest.approx(0.5, rel=0.03)
    constant = predict(CapacityModel(0.0, 10.0, 1, CONSTANT, NONE), 50.0, random.Random(3), 100_000)
    assert constant.p99_ms < found.p99_ms


def erlang_c(servers: int, offered: float) -> float:
    """The chance that all servers are busy, by the sums of Erlang's second formula (1917)."""
    waiting = offered**servers / math.factorial(servers) * servers / (servers - offered)
    return waiting / (sum(offered**n / math.factorial(n) for n in range(servers)) + waiting)


@pytest.mark.parametrize("workers", [1, 2, 3, 8])
def test_several_that_take_one_each_are_an_m_m_c_queue(workers: int) -> None:
    # A wait is 0, or with Erlang's chance exponential of rate cμ − λ, and the service, of rate μ, follows.
    μ, share = 0.1, 0.8
    λ = share * workers * μ
    rate, waits = workers * μ - λ, erlang_c(workers, λ / μ)

    def longer(ms: float) -> float:
        both = (rate * math.exp(-μ * ms) - μ * math.exp(-rate * ms)) / (rate - μ)
        return (1 - waits) * math.exp(-μ * ms) + waits * both

    model = CapacityModel(0.0, 1 / μ, 1, EXPONENTIAL, NONE, workers)
    found = predict(model, 1e3 * λ, random.Random(6), 400_000)
    assert longer(found.p50_ms) == pytest.approx(0.5, rel=0.03)
    assert longer(found.p99_ms) == pytest.approx(0.01, rel=0.15)
    assert found.busy_share == pytest.approx(share, rel=0.01)
    assert found.batch_rows == 1


def by_events(model: CapacityModel, rate: float, rng: random.Random, requests: int) -> tuple[list[float], float, int]:
    """Latencies in order, milliseconds that workers computed, and batches: arrivals and ends, one after the other."""
    gaps = [rng.expovariate(rate) * 1e3 for _ in range(requests)]
    events = [(at, number) for number, at in enumerate(accumulate(gaps))]
    noise = model.noise.draw(requests, rng)
    idle, computed, batches = model.workers, 0.0, 0
    waiting, latencies = list[tuple[float, int]](), list[float]()
    while events:
        now, number = heapq.heappop(events)
        if number < 0:
            idle += 1
        else:
            waiting.append((now, number))
        while idle and waiting:
            taken, waiting = waiting[: model.max_batch_rows], waiting[model.max_batch_rows :]
            took = sum(model.service_ms(len(taken)) * noise[row] for _, row in taken) / len(taken)
            latencies += [now + took - arrived for arrived, _ in taken]
            heapq.heappush(events, (now + took, -1))
            idle, computed, batches = idle - 1, computed + took, batches + 1
    return sorted(latencies), computed, batches


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("share", [0.2, 0.7, 0.95])
def test_batches_at_several_are_as_event_by_event(workers: int, share: float) -> None:
    model = CapacityModel(4.0, 2.0, 5, EXPONENTIAL, NONE, workers)
    requests, rate = 3000, share * model.max_rate
    found = predict(model, rate, random.Random(7), requests)
    latencies, computed, batches = by_events(model, rate, random.Random(7), requests)
    assert (found.p50_ms, found.p99_ms) == pytest.approx((latencies[1500], latencies[2970]))
    assert found.batch_rows == pytest.approx(requests / batches)
    # Work is kept: what the workers computed is spread over the time that the arrivals took, and a little after.
    assert found.busy_share == pytest.approx(computed / (workers * 1e3 * requests / rate), rel=0.1)


def test_more_workers_than_are_ever_busy_keep_nobody_waiting() -> None:
    found = predict(CapacityModel(10.0, 1.0, 64, CONSTANT, NONE, 60), 200.0, random.Random(8))
    assert (found.p50_ms, found.p99_ms, found.batch_rows) == pytest.approx((11.0, 11.0, 1.0))
    assert found.busy_share == pytest.approx(0.2 * 11 / 60, rel=0.02)


def test_a_ramp_that_does_not_say_how_many_had_one() -> None:
    model = CapacityModel(10.0, 1.0, 64, CONSTANT, NONE, 2)
    kept = msgspec.to_builtins(model)
    assert msgspec.convert(kept, CapacityModel) == model
    del kept["workers"]
    assert msgspec.convert(kept, CapacityModel).workers == 1


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
