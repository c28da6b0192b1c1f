"""How much a replica carries: a model fitted to a ramp, and what it says of rates that were not tried.

Requests of one passenger arrive by a Poisson process and wait in one queue. Whenever the inference thread is free it
takes all that wait, up to ``max_batch_rows``, and is busy for a + b·rows, times the mean of the rows' ε; each request
then takes some further time on the network and on event loops, in which it keeps nobody waiting. ε has mean 1: texts
are longer and shorter, which evens out over a batch. That is a batch-service queue, M/G[b]/1 with a service time linear
in the batch (Bailey 1954; Neuts 1967, "A general class of bulk queues with Poisson input"); its percentiles have no
closed form, so it is simulated.

a and b are fitted to the mean batch and the mean time of inference in each second of the ramp: for a linear time the
means lie on the line whatever the spread of the batches. ε and the further time are drawn from what was measured.
"""

import math
import random
from collections.abc import Sequence

from msgspec import Struct

from loadtest.report.recording import Histogram
from loadtest.report.server_series import Window

REQUESTS = 40_000
"""Simulated for each rate: 400 of them are above the 99th percentile."""

SATURATED = 0.98
"""Of what a replica carries at most; above it the queue is not simulated, its wait is without bound."""


class Sample(Struct, frozen=True):
    """An empirical distribution: values and how often each was seen."""

    values: list[float]
    weights: list[int]

    @classmethod
    def of(cls, histogram: Histogram, scale: float = 1.0) -> "Sample":
        places = sorted(histogram.bins)
        one = Histogram(bins={}, count=1)
        values = []
        for place in places:
            one.bins = {place: 1}
            values.append(one.percentile(1.0) * scale)
        return cls(values, [histogram.bins[place] for place in places])

    def draw(self, count: int, rng: random.Random) -> list[float]:
        return rng.choices(self.values, self.weights, k=count)


class Model(Struct, frozen=True):
    """Milliseconds: ``a`` of each inference and ``b`` of each row in it. ``noise`` is ε of a row, ``rest_ms`` the time
    outside queue and inference, both as measured below the knee."""

    a_ms: float
    b_ms: float
    max_batch_rows: int
    noise: Sample
    rest_ms: Sample

    def service_ms(self, rows: float) -> float:
        """Mean time of an inference of so many rows."""
        return self.a_ms + self.b_ms * rows

    @property
    def most(self) -> float:
        """Requests per second that a replica carries at most: those of full batches."""
        return 1e3 * self.max_batch_rows / self.service_ms(self.max_batch_rows)


class Predicted(Struct, frozen=True):
    """At ``rate`` requests per second: how many are answered per second, and percentiles of latency, infinite where
    the queue grows without bound."""

    rate: float
    throughput: float
    p50_ms: float
    p99_ms: float
    busy_share: float
    batch_rows: float


def fit(windows: Sequence[Window], inference_ms: Histogram, rest_ms: Histogram, max_batch_rows: int) -> Model:
    """a and b by least squares of relative error, each second weighted by its inferences; not below 0.

    ``inference_ms`` and ``rest_ms`` are of single requests at a low rate. Raises ValueError when too little was seen.
    """
    seen = [one for one in windows if one.inferences >= 1 and one.inference_ms > 0]
    if len(seen) < 3 or not inference_ms.count or not rest_ms.count:
        raise ValueError("too little was measured to fit a capacity model")
    weights = [one.inferences / one.inference_ms**2 for one in seen]
    total = sum(weights)
    mean_rows = sum(w * one.batch_rows for w, one in zip(weights, seen, strict=True)) / total
    mean_ms = sum(w * one.inference_ms for w, one in zip(weights, seen, strict=True)) / total
    spread = sum(w * (one.batch_rows - mean_rows) ** 2 for w, one in zip(weights, seen, strict=True))
    shared = sum(
        w * (one.batch_rows - mean_rows) * (one.inference_ms - mean_ms) for w, one in zip(weights, seen, strict=True)
    )
    b = max(shared / spread, 0.0) if spread > 0 else 0.0
    a = mean_ms - b * mean_rows
    if a < 0:
        # Through the origin.
        a, b = (
            0.0,
            sum(w * one.batch_rows * one.inference_ms for w, one in zip(weights, seen, strict=True))
            / sum(w * one.batch_rows**2 for w, one in zip(weights, seen, strict=True)),
        )
    noise = Sample.of(inference_ms)
    mean = sum(v * w for v, w in zip(noise.values, noise.weights, strict=True)) / sum(noise.weights)
    return Model(a, b, max_batch_rows, Sample([v / mean for v in noise.values], noise.weights), Sample.of(rest_ms))


def predict(model: Model, rate: float, rng: random.Random, requests: int = REQUESTS) -> Predicted:
    """What a replica does at this many requests per second, each of one passenger."""
    if rate >= SATURATED * model.most:
        return Predicted(rate, min(rate, model.most), math.inf, math.inf, 1.0, float(model.max_batch_rows))
    arrival, arrivals = 0.0, []
    for _ in range(requests):
        arrival += rng.expovariate(rate) * 1e3
        arrivals.append(arrival)
    noise = model.noise.draw(requests, rng)
    latencies, free, busy, first, batches = [], 0.0, 0.0, 0, 0
    while first < requests:
        start = max(free, arrivals[first])
        last = first + 1
        while last < requests and last - first < model.max_batch_rows and arrivals[last] <= start:
            last += 1
        duration = model.service_ms(last - first) * sum(noise[first:last]) / (last - first)
        free, busy, batches = start + duration, busy + duration, batches + 1
        latencies += [free - one for one in arrivals[first:last]]
        first = last
    rest = model.rest_ms.draw(requests, rng)
    latencies = sorted(one + further for one, further in zip(latencies, rest, strict=True))
    return Predicted(
        rate, rate, latencies[requests // 2], latencies[int(requests * 0.99)], busy / max(free, arrivals[-1]),
        requests / batches,
    )  # fmt: skip


def replicas(model: Model, target_rate: float, p99_ms: float, rng: random.Random) -> tuple[int, Predicted] | None:
    """The fewest replicas, each on a machine as that of the ramp, that together answer so many requests per second
    with this 99th percentile, and what each of them does; None where one that is idle is too slow already.

    A balancer that sends each request to any of them at random leaves every one a Poisson process.
    """

    def kept(count: int) -> Predicted | None:
        found = predict(model, target_rate / count, rng)
        return found if found.p99_ms <= p99_ms else None

    idle = predict(model, 0.01 * model.most, rng)
    if idle.p99_ms > p99_ms:
        return None
    low = max(1, math.floor(target_rate / model.most))
    high = low
    while kept(high) is None:
        low, high = high + 1, high * 2
        if target_rate / high < 0.01 * model.most:
            return high, idle
    while low < high:
        middle = (low + high) // 2
        if kept(middle) is None:
            low = middle + 1
        else:
            high = middle
    return high, predict(model, target_rate / high, rng)
