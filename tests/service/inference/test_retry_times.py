"""Large requests that were refused together come back at times at which each has room."""

import heapq
import random
import time

import pytest

from service.inference.admission import Admission
from service.inference.retry_times import MAX_OUTSTANDING, RetryTimes
from tests.service.inference.test_batcher import passenger
from tests.service.inference.test_batcher_times import (
    PATIENT,
    Batcher,
    Clock,
    Notes,
    Priced,
    QueueFull,
    ask,
    held,
    play,
)

TIMEOUT, PRICE = 30.0, 0.02


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


@pytest.mark.parametrize("seed", range(20))
def test_who_comes_back_when_told_is_let_in(clock: Clock, seed: int) -> None:
    """A queue that computes a row in 20 ms, and up to 12 requests that come while it has 900 rows to do."""
    rng = random.Random(seed)
    admission, retry = Admission(4096, 64), RetryTimes(64)
    admission.computed(1, PRICE)
    done_at, promised = 900 * PRICE, []
    waiting = [(rng.random(), number, rng.randint(300, 900)) for number in range(rng.randint(2, 12))]
    heapq.heapify(waiting)
    while waiting:
        clock.computing, number, rows = heapq.heappop(waiting)
        ahead = round(max(0.0, done_at - clock.computing) / PRICE)
        refusal = admission.refusal(rows, ahead, ahead, TIMEOUT)
        if refusal is None:
            done_at = max(done_at, clock.computing) + rows * PRICE
            continue
        assert number not in promised, f"request {number} was told to come now, and is refused"
        promised.append(number)
        times = admission.seconds_of(rows, TIMEOUT)
        seconds = retry.seconds(str(number), rows, refusal.retry_after_seconds, *times)
        heapq.heappush(waiting, (clock.computing + seconds, number, rows))
    assert promised


def test_small_requests_are_told_what_the_queue_says(clock: Clock) -> None:
    retry = RetryTimes(64)
    assert [retry.seconds("a", 500, 3, 10.0, 5.0) for _ in range(3)] == [3, 13, 23]
    assert retry.seconds("b", 64, 1, 1.0, 5.0) == 1
    clock.computing = 100.0
    assert retry.seconds("a", 500, 3, 10.0, 5.0) == 3


def test_one_client_lengthens_the_others_wait_by_so_much_only(clock: Clock) -> None:
    retry = RetryTimes(64)
    told = [retry.seconds("impatient", 500, 1, 10.0, 5.0) for _ in range(1000)]
    assert max(told) == 1 + 10 * (MAX_OUTSTANDING - 1)
    assert retry.seconds("patient", 500, 1, 10.0, 5.0) == 1 + 10 * MAX_OUTSTANDING


def test_the_batcher_tells_these_times(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, _: Notes) -> None:
        await batcher.predict([passenger(0.5)] * 2, PATIENT)
        first = await held(batcher, echo)
        waiting = ask(batcher, 9)
        told = []
        for client in ("b", "c", "d"):
            with pytest.raises(QueueFull) as refused:
                await batcher.predict([passenger(0.5)] * 9, 100.0, client)
            told.append(refused.value.retry_after_seconds)
        # Each computes for 92.7 s.
        assert [told[1] - told[0], told[2] - told[1]] == [93, 93]
        echo.hold.set()
        for one in (first, waiting):
            await one

    play(scenario, clock)
