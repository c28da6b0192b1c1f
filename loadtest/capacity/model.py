"""How much a replica carries: a model fitted to a ramp, and what it says of rates that were not tried.

Requests of one row arrive by a Poisson process and wait in one queue for c workers. Whenever a worker is free it takes
all that wait, up to ``max_batch_rows``, and is busy for a + b·rows, times the mean of the rows' ε; each request then
takes some further time on the network and on event loops, in which it keeps nobody waiting. ε has mean 1: texts are
longer and shorter, which evens out over a batch. That is a batch-service queue, M/G[b]/c with a service time linear in
the batch (Bailey 1954; Neuts 1967, "A general class of bulk queues with Poisson input", both of one server); its
percentiles have no closed form, so it is simulated.

a and b are fitted to the mean batch and the mean time of inference in each second of the ramp: for a linear time the
means lie on the line whatever the spread of the batches. ε and the further time are drawn from what was measured. What
a batch loses to those beside it, on the cores that they share, is in a and b as the mean over the ramp; that it grows
with the load is not.
"""

import heapq
import math
import random
from collections.abc import Sequence

from msgspec import Struct
from scipy.optimize import nnls

from loadtest.report.recording import Histogram
from loadtest.report.server_series import Window

REQUESTS = 40_000
"""Simulated for each rate: 400 of them are above the 99th percentile."""

SATURATED = 0.98
"""Of what a replica carries at most; above it the queue is not simulated, its wait is without bound."""


class EmpiricalDistribution(Struct, frozen=True):
    """An empirical distribution: values and how often each was seen."""

    values: list[float]
    weights: list[int]

    @classmethod
    def of(cls, histogram: Histogram, scale: float = 1.0) -> "EmpiricalDistribution":
        bins = sorted(histogram.bins)
        return cls([Histogram.middle(place) * scale for place in bins], [histogram.bins[place] for place in bins])

    def draw(self, count: int, rng: random.Random) -> list[float]:
        return rng.choices(self.values, self.weights, k=count)


class CapacityModel(Struct, frozen=True):
    """Milliseconds: ``a`` of each inference and ``b`` of each row in it. ``noise`` is ε of a row, ``rest_ms`` the time
    outside queue and inference, both as measured below the knee. ``workers`` compute a batch each at once; ramps that
    do not say how many had one."""

    a_ms: float
    b_ms: float
    max_batch_rows: int
    noise: EmpiricalDistribution
    rest_ms: EmpiricalDistribution
    workers: int = 1

    def service_ms(self, rows: float) -> float:
        """Mean time of an inference of so many rows."""
        return self.a_ms + self.b_ms * rows

    @property
    def max_rate(self) -> float:
        """Requests per second that a replica carries at most: those of full batches at all workers."""
        return 1e3 * self.workers * self.max_batch_rows / self.service_ms(self.max_batch_rows)


class CapacityPrediction(Struct, frozen=True):
    """At ``rate`` requests per second: how many are answered per second, and percentiles of latency, infinite where
    the queue grows without bound. ``busy_share`` is the mean of the workers'."""

    rate: float
    throughput: float
    p50_ms: float
    p99_ms: float
    busy_share: float
    batch_rows: float


def fit(
    windows: Sequence[Window], inference_ms: Histogram, rest_ms: Histogram, max_batch_rows: int, workers: int
) -> CapacityModel:
    """a and b by least squares of relative error, each second weighted by its inferences; not below 0.

    ``inference_ms`` and ``rest_ms`` are of single requests at a low rate. Raises ValueError when too little was seen.
    """
    used = [window for window in windows if window.inferences >= 1 and window.inference_ms > 0]
    if len(used) < 3 or not inference_ms.count or not rest_ms.count:
        raise ValueError("too little was measured to fit a capacity model")
    weights = [math.sqrt(window.inferences) / window.inference_ms for window in used]
    (a, b), _ = nnls(
        [[weight, weight * window.batch_rows] for weight, window in zip(weights, used, strict=True)],
        [weight * window.inference_ms for weight, window in zip(weights, used, strict=True)],
    )
    noise = EmpiricalDistribution.of(inference_ms)
    mean = sum(v * w for v, w in zip(noise.values, noise.weights, strict=True)) / sum(noise.weights)
    return CapacityModel(
        float(a),
        float(b),
        max_batch_rows,
        EmpiricalDistribution([v / mean for v in noise.values], noise.weights),
        EmpiricalDistribution.of(rest_ms),
        workers,
    )


def predict(model: CapacityModel, rate: float, rng: random.Random, requests: int = REQUESTS) -> CapacityPrediction:
    """What a replica does at this many requests per second, each of one row."""
    if rate >= SATURATED * model.max_rate:
        return CapacityPrediction(rate, min(rate, model.max_rate), math.inf, math.inf, 1.0, float(model.max_batch_rows))
    arrival, arrivals = 0.0, []
    for _ in range(requests):
        arrival += rng.expovariate(rate) * 1e3
        arrivals.append(arrival)
    noise = model.noise.draw(requests, rng)
    # When each worker is free again; the first of them takes the next batch, and no batch begins before an earlier one.
    free = [0.0] * model.workers
    latencies, busy, first, batches = [], 0.0, 0, 0
    while first < requests:
        start = max(free[0], arrivals[first])
        last = first + 1
        while last < requests and last - first < model.max_batch_rows and arrivals[last] <= start:
            last += 1
        duration = model.service_ms(last - first) * sum(noise[first:last]) / (last - first)
        heapq.heapreplace(free, start + duration)
        latencies += [start + duration - arrival for arrival in arrivals[first:last]]
        busy, batches, first = busy + duration, batches + 1, last
    rest = model.rest_ms.draw(requests, rng)
    latencies = sorted(latency + further for latency, further in zip(latencies, rest, strict=True))
    return CapacityPrediction(
        rate, rate, latencies[requests // 2], latencies[int(requests * 0.99)],
        busy / (model.workers * max(*free, arrivals[-1])), requests / batches,
    )  # fmt: skip


def replicas(
    model: CapacityModel, target_rate: float, p99_ms: float, rng: random.Random
) -> tuple[int, CapacityPrediction] | None:
    """The fewest replicas, each on a machine as that of the ramp, that together answer so many requests per second
    with this 99th percentile, and what each of them does; None where one that is idle is too slow already.

    A balancer that sends each request to any of them at random leaves every one a Poisson process.
    """

    def kept(count: int) -> CapacityPrediction | None:
        predicted = predict(model, target_rate / count, rng)
        return predicted if predicted.p99_ms <= p99_ms else None

    idle = predict(model, 0.01 * model.max_rate, rng)
    if idle.p99_ms > p99_ms:
        return None
    low = max(1, math.floor(target_rate / model.max_rate))
    high = low
    while kept(high) is None:
        low, high = high + 1, high * 2
        if target_rate / high < 0.01 * model.max_rate:
            return high, idle
    while low < high:
        middle = (low + high) // 2
        if kept(middle) is None:
            low = middle + 1
        else:
            high = middle
    return high, predict(model, target_rate / high, rng)
