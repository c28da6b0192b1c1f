"""What is asked, how often, and how that changes during a run."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from msgspec import Struct

BATCH_SIZES = {1: 10, 2: 24, 8: 30, 32: 24, 128: 8, 512: 3, 1024: 1}
"""Rows of a batch → how often, in per cent: most are small, and the mean is 47."""

SMALL_BATCHES = {2: 40, 8: 40, 32: 20}

KINDS = ("predict", "batch", "outcomes", "invalid", "page", "metrics")

SINGLES = {"predict": 1}
MIXED = {"predict": 78, "batch": 3, "outcomes": 6, "invalid": 6, "page": 5, "metrics": 2}
"""Kinds of request → weights."""


class Stage(Struct, frozen=True):
    """From second ``start`` to second ``stop`` requests were due at this rate."""

    start: float
    stop: float
    rate: float
    fitted: bool = True


@dataclass(frozen=True)
class Scenario:
    """``rate`` is in requests per second; ``course`` is the factor on it, by share of the time that has passed."""

    name: str
    says: str
    seconds: float
    rate: float
    weights: dict[str, int] = field(default_factory=lambda: dict(SINGLES))
    sizes: dict[int, int] = field(default_factory=lambda: dict(SMALL_BATCHES))
    course: Callable[[float], float] = lambda _: 1.0
    texts: int = 2048
    service: tuple[str, ...] = ()
    timeout_ms: int | None = None


def parse_weights(text: str) -> dict[str, int]:
    """``predict=9,batch=1``: kinds of request and their weights; raises ValueError naming what is neither."""
    weights = {}
    for part in text.split(","):
        kind, _, weight = part.strip().partition("=")
        if kind not in KINDS or not (weight or "1").isdigit():
            raise ValueError(
                f"{part!r} is no kind of request with a weight, as in predict=9; kinds: {', '.join(KINDS)}"
            )
        weights[kind] = int(weight or 1)
    return weights


def parse_sizes(text: str) -> dict[int, int]:
    """``8,64``: rows of batches, each as often; raises ValueError for what is not 1 to 1024."""
    sizes = {}
    for part in text.split(","):
        if not part.strip().isdigit() or not 1 <= int(part) <= 1024:
            raise ValueError(f"{part!r} is no number of rows, 1 to 1024")
        sizes[int(part)] = 1
    return sizes


def constant(value: float) -> Callable[[float], float]:
    """The same at all times."""
    return lambda _: value


def _spike(passed: float) -> float:
    return 6.0 if 0.4 <= passed < 0.5 else 1.0


SCENARIOS = {
    one.name: one
    for one in (
        Scenario(
            "smoke", "a little of everything, to see that it works", 10, 10, texts=256,
            weights={"predict": 60, "batch": 15, "outcomes": 10, "invalid": 8, "page": 4, "metrics": 3},
        ),
        Scenario("steady", "single rows at a constant rate", 60, 40),
        Scenario("ramp", "faster and faster until it no longer keeps up; fits the capacity model", 240, 8),
        Scenario("spike", "six times the rate for a tenth of the time", 60, 15, course=_spike),
        Scenario("soak", "a little of everything for long; does memory grow?", 1800, 20, dict(MIXED)),
        Scenario(
            "overload", "batches, many times what it can carry: refused at once, and nobody gets a wrong answer", 30,
            60, {"predict": 40, "batch": 60}, {64: 100},
            service=("--max-queue-rows", "1024"), timeout_ms=2000,
        ),
        Scenario("drift", "from the middle on another mix of rows: do the drift tests notice?", 60, 20,
                 {"predict": 90, "batch": 10}),
        Scenario("reload", "other bundles take over during the run: no request fails, no answer mixes two", 60, 20,
                 {"predict": 90, "batch": 10}, texts=512),
        Scenario("mixed", "a little of everything, batches up to 1024", 60, 10, dict(MIXED), dict(BATCH_SIZES)),
    )
}  # fmt: skip


def arrivals(
    rate: Callable[[float], float], seconds: float, rng: random.Random, *, poisson: bool = True
) -> Iterator[float]:
    """Seconds since the start at which requests are due: a Poisson process of the rate at each time, or evenly
    spaced. They depend on the clock alone, never on the answers: this is what makes the model open."""
    due = 0.0
    while True:
        now = max(rate(due), 1e-9)
        due += rng.expovariate(now) if poisson else 1 / now
        if due >= seconds:
            return
        yield due


class Step(Struct, frozen=True):
    """What a ramp wants to try next."""

    rate: float
    seconds: int
    fitted: bool


class Ramp:
    """Chooses each rate from how the one before went: faster and faster up to the knee, then rates that the capacity
    model is not fitted to.

    The knee is the fastest rate that was kept up with: at least ``KEPT`` of the requests due in the step were answered
    in it, and the median latency was no more than ``SLOWER`` times that of the first step.
    """

    FACTOR = 1.3
    KEPT = 0.95
    SLOWER = 8.0
    PAST = 2.5
    """In knees: the last rate that the model is fitted to, where batches are full."""

    UNSEEN = (0.45, 0.65, 0.85, 2.0)
    """In knees. Of the last one, past what is carried, only the throughput is known."""

    def __init__(self, first_rate: float, step_seconds: int = 8):
        self.first = Step(first_rate, step_seconds, True)
        self.knee: float | None = None
        self._median_ms: float | None = None
        self._tried_again = False
        self._unseen = list(self.UNSEEN)

    def next(self, step: Step, answered_share: float, median_ms: float) -> Step | None:
        """The step after this one, of which so many were answered; None when all is known."""
        if self.knee is None:
            self._median_ms = self._median_ms or median_ms
            if answered_share >= self.KEPT and median_ms <= self.SLOWER * self._median_ms:
                self._tried_again = False
                return Step(step.rate * self.FACTOR, step.seconds, True)
            if not self._tried_again:
                # A bad moment of the machine is no knee.
                self._tried_again = True
                return step
            self.knee = step.rate / self.FACTOR
            return Step(self.PAST * self.knee, step.seconds, True)
        if not self._unseen:
            return None
        share = self._unseen.pop(0)
        # A 99th percentile needs many requests; past the knee every second makes the queue longer.
        return Step(share * self.knee, self.first.seconds * (4 if share < 1 else 1), False)
