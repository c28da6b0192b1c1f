"""Several batches at once, where an engine computes them faster so than one after the other."""

import asyncio
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import msgspec
import pytest

from models.prediction import EncodedText, Prediction
from models.rows import Row
from service.inference.batcher import Batcher
from service.inference.errors import PredictionFailed
from service.inference.fair_queue import Answer
from tests.service.inference.test_batcher import Echo, Silent, passenger, wait_until


class ManyEcho(Echo):
    """Computes ``parallel`` batches at once; ``together`` are those that it must have at once to answer any."""

    def __init__(self, parallel: int, together: int = 1):
        super().__init__()
        self.backend = msgspec.structs.replace(Echo.backend, parallel=parallel)
        self._all = threading.Barrier(together)

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        self._all.wait(10)
        # The first rows of a request take longest, so that its batches end in another order than they began.
        time.sleep(0.02 * (1 - float(rows[0].fare or 0)) if rows else 0)  # type: ignore[attr-defined]
        return super().predict_checked(rows, encoded, stages)


@contextmanager
def running(predictor: Echo, max_batch_rows: int = 4, stall_seconds: float = 60.0) -> Iterator[Batcher]:
    batcher = Batcher(
        lambda: predictor, Silent(), max_batch_rows=max_batch_rows, max_queue_rows=10_000, stall_seconds=stall_seconds
    )
    batcher.start()
    wait_until(lambda: batcher.ready)
    yield batcher
    predictor.hold.set()
    batcher.stop(5)


async def two_at_once(batcher: Batcher) -> "list[asyncio.Task[Answer]]":
    """Two requests, each taken by a worker of its own."""
    asked = []
    for _ in range(2):
        asked.append(asyncio.create_task(batcher.predict([passenger(0.9)], 30)))
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_until, lambda: batcher._queue.rows == 0)
    return asked


@pytest.mark.parametrize("parallel", [1, 2, 3])
def test_everybody_gets_their_own_answer_in_order(parallel: int) -> None:
    async def ask(batcher: Batcher, rng: random.Random) -> None:
        await asyncio.sleep(rng.random() * 0.05)
        numbers = [rng.random() for _ in range(rng.choice((1, 1, 1, 3, 20)))]
        answer = await batcher.predict([passenger(number) for number in numbers], 30)
        assert [one.probability for one in answer.predictions] == numbers

    async def crowd(batcher: Batcher) -> None:
        await asyncio.gather(*(ask(batcher, random.Random(seed)) for seed in range(60)))

    with running(ManyEcho(parallel)) as batcher:
        asyncio.run(crowd(batcher))


def test_two_batches_are_computed_at_once_and_no_third() -> None:
    async def scenario(batcher: Batcher) -> None:
        echo.hold.clear()
        held = await two_at_once(batcher)
        others = [asyncio.create_task(batcher.predict([passenger(0.7)], 30)) for _ in range(8)]
        await asyncio.sleep(0.05)
        assert batcher._queue.rows == 8
        echo.hold.set()
        await asyncio.gather(*held, *others)
        assert sorted(echo.batches) == [1, 1, 4, 4]

    echo = ManyEcho(2)
    with running(echo) as batcher:
        asyncio.run(scenario(batcher))


def test_the_rows_of_one_request_are_computed_by_all() -> None:
    numbers = [number / 40 for number in range(40)]
    echo = ManyEcho(2, together=2)
    with running(echo) as batcher:
        answer = asyncio.run(batcher.predict([passenger(number) for number in numbers], 30))
    assert [one.probability for one in answer.predictions] == numbers
    assert len(echo.batches) == 10


def test_what_rows_took_is_shared_among_those_computed_at_once() -> None:
    took: list[float] = []

    async def scenario(batcher: Batcher) -> float:
        begun = time.perf_counter()
        await asyncio.gather(*await two_at_once(batcher))
        return time.perf_counter() - begun

    with running(ManyEcho(2, together=2)) as batcher:
        batcher._admission.computed = lambda _, seconds: took.append(seconds)  # type: ignore[method-assign]
        for worker in batcher._supervisor.instance.workers:  # type: ignore[union-attr]
            worker.free_since = time.perf_counter()
        passed = asyncio.run(scenario(batcher))
    # The one that ends last has nobody beside it any more.
    assert len(took) == 2
    assert min(took) <= passed / 2


def test_where_one_hangs_all_that_were_computed_fail_and_a_successor_serves() -> None:
    async def scenario(batcher: Batcher) -> None:
        instance = batcher._supervisor.instance
        assert instance is not None
        echo.hold.clear()
        found = await asyncio.gather(*await two_at_once(batcher), return_exceptions=True)
        assert all(isinstance(one, PredictionFailed) for one in found)
        echo.hold.set()
        await asyncio.to_thread(wait_until, lambda: batcher.ready)
        assert batcher._supervisor.instance is not instance
        answers = await asyncio.gather(*(batcher.predict([passenger(0.5)], 30) for _ in range(6)))
        assert [one.predictions[0].probability for one in answers] == [0.5] * 6
        # It ends, now that it hangs no more.
        await asyncio.to_thread(wait_until, instance.ended.is_set)

    echo = ManyEcho(2)
    with running(echo, stall_seconds=0.2) as batcher:
        asyncio.run(scenario(batcher))


def test_an_error_beside_another_batch_fails_its_own_requests_alone() -> None:
    async def scenario(batcher: Batcher) -> None:
        found = await asyncio.gather(
            *(batcher.predict([passenger(fare)], 30) for fare in (0.2, 999, 0.3, 0.4)), return_exceptions=True
        )
        assert [isinstance(one, PredictionFailed) for one in found] == [False, True, False, False]

    with running(ManyEcho(2)) as batcher:
        asyncio.run(scenario(batcher))


def test_another_model_takes_over_from_all_workers() -> None:
    async def scenario(batcher: Batcher) -> None:
        first = batcher._supervisor.instance
        assert first is not None
        asked = [asyncio.create_task(batcher.predict([passenger(0.3)] * 9, 30)) for _ in range(5)]
        await asyncio.sleep(0.01)
        await batcher._supervisor.replace(lambda: ManyEcho(3))
        answers = await asyncio.gather(*asked)
        assert all([one.probability for one in answer.predictions] == [0.3] * 9 for answer in answers)
        assert len(batcher._supervisor.instance.workers) == 3  # type: ignore[union-attr]
        await asyncio.to_thread(first.ended.wait, 5)
        assert first.ended.is_set()
        assert first.predictor is None

    with running(ManyEcho(2)) as batcher:
        asyncio.run(scenario(batcher))
