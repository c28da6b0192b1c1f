"""The queue and the inference thread: nobody gets another's answer, nobody waits for ever."""

import asyncio
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from models.bundle.read import Bundle
from models.engines.engine import Backend
from models.prediction import EncodedText, Prediction
from models.rows import Row, Rows
from service.inference.batcher import Batcher
from service.inference.errors import ClientDisconnected, DeadlinePassed, NotReady, PredictionFailed, QueueFull
from service.inference.inference_thread import NICENESS
from service.inference.supervision import MAX_RESTARTS
from tests.service.predictions import prediction
from tests.titanic import ROWS, Passenger


def passenger(number: float) -> Row:
    return Passenger(pclass=1, sex="male", fare=number)


class Echo:
    """Answers each passenger with its fare as probability; a fare of 999 breaks the batch."""

    backend = Backend(engine="mlx", version="1", device="gpu", threads=1)

    def __init__(self, bundle: Bundle | None = None, seconds: float = 0.0):
        self.bundle, self.seconds = bundle, seconds
        self.rows = ROWS if bundle is None else Rows(bundle.schema)
        self.batches: list[int] = []
        self.read_rows = 0
        self.hold = threading.Event()
        self.hold.set()

    def warm_up(self) -> None: ...

    def encode(self, rows: Sequence[Row]) -> list[EncodedText]:
        return [EncodedText(str(passenger.fare), []) for passenger in rows]

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        self.hold.wait(10)
        if encoded is not None:
            assert [one.text for one in encoded] == [str(passenger.fare) for passenger in rows]
            self.read_rows += len(encoded)
        time.sleep(self.seconds)
        self.batches.append(len(rows))
        if any(one.fare == 999 for one in rows):
            raise ValueError("a bad row")
        return [prediction(float(one.fare or 0), one) for one in rows]


class Silent:
    def queued(self, rows: int) -> None: ...

    def computed(self, rows: int, seconds: float) -> None: ...

    def failed(self, reason: str) -> None: ...

    def thread_lost(self) -> None: ...


@contextmanager
def running(predictor: Echo, **limits: int) -> Iterator[Batcher]:
    settings = {"max_batch_rows": 8, "max_queue_rows": 10_000, **limits}
    batcher = Batcher(lambda: predictor, Silent(), **settings)
    batcher.start()
    wait_until(lambda: batcher.ready)
    yield batcher
    predictor.hold.set()
    batcher.stop(5)


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.005)
    raise AssertionError("it did not happen within 5 seconds")


def test_everybody_gets_their_own_answer_in_order() -> None:
    async def ask(batcher: Batcher, rng: random.Random) -> None:
        await asyncio.sleep(rng.random() * 0.05)
        numbers = [rng.random() for _ in range(rng.choice((1, 1, 1, 3, 20, 70)))]
        answer = await batcher.predict([passenger(number) for number in numbers], 30)
        assert [one.probability for one in answer.predictions] == numbers

    async def crowd(batcher: Batcher) -> None:
        await asyncio.gather(*(ask(batcher, random.Random(seed)) for seed in range(300)))

    echo = Echo(seconds=0.0005)
    with running(echo) as batcher:
        asyncio.run(crowd(batcher))
    assert max(echo.batches) == 8


def test_what_waits_becomes_one_batch_and_a_lone_request_waits_for_nobody() -> None:
    async def scenario(batcher: Batcher, echo: Echo) -> None:
        await batcher.predict([passenger(0.1)], 5)
        assert echo.batches == [1]
        echo.hold.clear()
        first = asyncio.create_task(batcher.predict([passenger(0.1)], 5))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.predict([passenger(0.2)], 5)) for _ in range(6)]
        await asyncio.sleep(0.05)
        echo.hold.set()
        await asyncio.gather(first, *others)
        assert echo.batches == [1, 1, 6]

    echo = Echo()
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))


def test_the_next_batch_is_read_while_this_one_is_computed_and_a_lone_request_is_not() -> None:
    async def scenario(batcher: Batcher, echo: Echo) -> None:
        await batcher.predict([passenger(0.1)], 5)
        assert echo.read_rows == 0
        echo.hold.clear()
        first = asyncio.create_task(batcher.predict([passenger(0.1)], 5))
        await asyncio.sleep(0.05)
        others = [asyncio.create_task(batcher.predict([passenger(0.01 * n)] * 3, 5)) for n in range(3)]
        await asyncio.sleep(0.05)
        echo.hold.set()
        await asyncio.gather(first, *others)
        assert echo.batches == [1, 1, 8, 1]
        assert echo.read_rows >= 8

    echo = Echo()
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))


def test_a_bad_row_costs_nobody_else_an_answer() -> None:
    async def scenario(batcher: Batcher, echo: Echo) -> None:
        echo.hold.clear()
        tasks = [asyncio.create_task(batcher.predict([passenger(n)], 5)) for n in (0.1, 0.2, 999, 0.3)]
        await asyncio.sleep(0.05)
        echo.hold.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert isinstance(found[2], PredictionFailed)
        assert [one.predictions[0].probability for one in found if not isinstance(one, BaseException)] == [
            0.1,
            0.2,
            0.3,
        ]
        answer = await batcher.predict([passenger(0.4)], 5)
        assert answer.predictions[0].probability == 0.4

    echo = Echo()
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))


def test_a_full_queue_refuses_at_once_and_a_passed_deadline_leaves_it() -> None:
    async def scenario(batcher: Batcher, echo: Echo) -> None:
        echo.hold.clear()
        busy = asyncio.create_task(batcher.predict([passenger(0.1)], 5))
        await asyncio.sleep(0.05)
        late = asyncio.create_task(batcher.predict([passenger(0.2)] * 6, 0.2))
        await asyncio.sleep(0.02)
        with pytest.raises(QueueFull) as refused:
            await batcher.predict([passenger(0.3)] * 5, 5)
        assert refused.value.retry_after_seconds >= 1
        with pytest.raises(DeadlinePassed, match=r"0\.2 seconds"):
            await late
        echo.hold.set()
        await busy
        answer = await batcher.predict([passenger(0.4)] * 10, 5)
        assert len(answer.predictions) == 10
        assert 6 not in echo.batches

    echo = Echo()
    with running(echo, max_queue_rows=10) as batcher:
        asyncio.run(scenario(batcher, echo))


class Dying(Echo):
    """A fare of 666 ends the thread."""

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        if any(one.fare == 666 for one in rows):
            raise SystemExit("the device is gone")
        return super().predict_checked(rows, encoded)


def test_a_dead_thread_has_a_successor_and_who_waits_for_its_batch_is_told() -> None:
    async def scenario(batcher: Batcher, echo: Echo) -> None:
        echo.hold.clear()
        before = asyncio.create_task(batcher.predict([passenger(0.1)], 5))
        await asyncio.sleep(0.05)
        numbers = (666, *[0.2] * 7, *[0.3] * 3)  # A batch, and some of the next.
        tasks = [asyncio.create_task(batcher.predict([passenger(n)], 5)) for n in numbers]
        await asyncio.sleep(0.05)
        echo.hold.set()
        assert (await before).predictions[0].probability == 0.1
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(one, PredictionFailed) for one in found[:8])
        assert [one.predictions[0].probability for one in found[8:] if not isinstance(one, BaseException)] == [0.3] * 3

    echo = Dying()
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))
        assert batcher.ready


def test_a_thread_that_dies_again_and_again_is_given_up() -> None:
    async def scenario(batcher: Batcher) -> None:
        for _ in range(MAX_RESTARTS + 1):
            wait_until(lambda: batcher.ready)
            with pytest.raises(PredictionFailed):
                await batcher.predict([passenger(666)], 5)
        wait_until(lambda: batcher.lost)
        with pytest.raises(NotReady, match="the device is gone"):
            await batcher.predict([passenger(0.1)], 5)

    with running(Dying()) as batcher:
        asyncio.run(scenario(batcher))


def test_a_thread_that_hangs_has_a_successor() -> None:
    hung, free = Echo(), Echo()
    predictors = iter([hung, free])
    batcher = Batcher(lambda: next(predictors), Silent(), max_batch_rows=8, max_queue_rows=100, stall_seconds=0.2)

    async def scenario() -> None:
        hung.hold.clear()
        stuck = asyncio.create_task(batcher.predict([passenger(0.1)], 9))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(batcher.predict([passenger(0.2)], 9))
        with pytest.raises(PredictionFailed):
            await stuck
        assert (await waiting).predictions[0].probability == 0.2
        hung.hold.set()  # The lost thread comes back, and finds that it has a successor.
        assert (await batcher.predict([passenger(0.3)], 9)).predictions[0].probability == 0.3
        assert hung.batches in ([], [1])

    batcher.start()
    wait_until(lambda: batcher.ready)
    asyncio.run(scenario())
    assert free.batches == [1, 1]
    batcher.stop(5)


class Versioned(Echo):
    """Answers with its own number, whatever is asked."""

    def __init__(self, number: float, seconds: float = 0.0):
        super().__init__(seconds=seconds)
        self.number = number

    def encode(self, rows: Sequence[Row]) -> list[EncodedText]:
        return [EncodedText(str(self.number), []) for _ in rows]

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        assert encoded is None or {one.text for one in encoded} == {str(self.number)}
        time.sleep(self.seconds)
        return [prediction(self.number) for _ in rows]


def test_a_new_predictor_takes_over_and_no_answer_mixes_two() -> None:
    async def ask(batcher: Batcher, rows: int, found: list[float]) -> None:
        while not found or found[-1] < 4:
            answer = await batcher.predict([passenger(0.5)] * rows, 30)
            (number,) = {one.probability for one in answer.predictions}
            assert len(answer.predictions) == rows
            found.append(number)

    async def scenario(batcher: Batcher) -> None:
        found: list[list[float]] = [[] for _ in range(6)]
        asking = [
            asyncio.create_task(ask(batcher, rows, one))
            for rows, one in zip((1, 1, 3, 20, 50, 100), found, strict=True)
        ]
        for number in range(2, 5):
            await asyncio.sleep(0.1)
            await batcher.replace(lambda number=number: Versioned(number, 0.002))  # type: ignore[misc]
        await asyncio.gather(*asking)
        for one in found:
            assert one == sorted(one)
        assert {number for one in found for number in one} == {1, 2, 3, 4}

    with running(Versioned(1, 0.002)) as batcher:
        asyncio.run(scenario(batcher))


def test_a_predictor_that_does_not_load_leaves_the_old_one_serving() -> None:
    def broken() -> Echo:
        raise ValueError("model.safetensors is cut")

    async def scenario(batcher: Batcher) -> None:
        with pytest.raises(ValueError, match="is cut"):
            await batcher.replace(broken)
        assert (await batcher.predict([passenger(0.1)], 5)).predictions[0].probability == 0.1

    with running(Echo()) as batcher:
        asyncio.run(scenario(batcher))
        assert batcher.ready


def test_a_single_row_waits_neither_for_a_large_batch_nor_for_a_busy_client() -> None:
    async def scenario(batcher: Batcher, echo: Echo) -> None:
        order: list[str] = []

        async def ask(name: str, client: str, rows: int) -> None:
            await batcher.predict([passenger(0.1)] * rows, 30, client)
            order.append(name)

        echo.hold.clear()
        first = asyncio.create_task(batcher.predict([passenger(0.1)], 30))
        await asyncio.sleep(0.05)
        tasks = [asyncio.create_task(ask("large", "a", 500))]
        tasks += [asyncio.create_task(ask(f"busy {n}", "a", 8)) for n in range(40)]
        await asyncio.sleep(0.02)
        tasks += [asyncio.create_task(ask("single", "b", 1)), asyncio.create_task(ask("small", "a", 1))]
        await asyncio.sleep(0.05)
        echo.hold.set()
        await asyncio.gather(first, *tasks)
        assert sorted(order[:2]) == ["single", "small"]
        assert order[-1] == "large"

    echo = Echo(seconds=0.001)
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))


def test_a_request_that_cannot_be_in_time_is_refused_at_once() -> None:
    async def scenario(batcher: Batcher, echo: Echo) -> None:
        for _ in range(30):  # The batcher learns that a row takes about 10 ms.
            await batcher.predict([passenger(0.1)], 5)
        echo.hold.clear()
        tasks = [asyncio.create_task(batcher.predict([passenger(0.1)] * 100, 30)) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(QueueFull) as refused:
            await batcher.predict([passenger(0.2)] * 100, 1.0)
        assert refused.value.retry_after_seconds in (1, 2, 3, 4)
        short = asyncio.create_task(batcher.predict([passenger(0.2)], 2.0))  # Its turn comes soon enough.
        await asyncio.sleep(0.05)
        assert not short.done()
        for task in (*tasks, short):
            task.cancel()
        await asyncio.gather(*tasks, short, return_exceptions=True)
        echo.hold.set()

    echo = Echo(seconds=0.01)
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))


def test_rows_of_a_client_that_left_leave_the_queue() -> None:
    async def scenario(batcher: Batcher, echo: Echo) -> None:
        on_disconnect: list[Callable[[], object]] = []
        echo.hold.clear()
        first = asyncio.create_task(batcher.predict([passenger(0.1)], 30))
        await asyncio.sleep(0.05)
        leaving = asyncio.create_task(batcher.predict([passenger(0.2)] * 50, 30, "a", on_disconnect))
        cancelled = asyncio.create_task(batcher.predict([passenger(0.2)] * 50, 30))
        await asyncio.sleep(0.1)
        (disconnect,) = on_disconnect
        disconnect()
        with pytest.raises(ClientDisconnected):
            await leaving
        assert on_disconnect == []
        cancelled.cancel()
        await asyncio.sleep(0.02)
        echo.hold.set()
        await first
        await batcher.predict([passenger(0.3)], 5, "b", on_disconnect)
        disconnect()  # It comes too late to mean anything.
        assert echo.batches == [1, 1]

    echo = Echo()
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))


def test_a_predictor_that_does_not_load_is_told() -> None:
    def load() -> Echo:
        raise ValueError("model.safetensors is missing")

    told: list[str] = []
    batcher = Batcher(load, Silent(), max_batch_rows=8, max_queue_rows=10, on_failure=told.append)
    batcher.start()
    wait_until(lambda: bool(told))
    assert batcher.failure == told[0] == "model.safetensors is missing"
    with pytest.raises(NotReady, match="missing"):
        asyncio.run(batcher.predict([passenger(0.1)], 1))


def test_a_predictor_that_never_ends_loading_is_given_up() -> None:
    asked, told = threading.Event(), list[str]()

    def load() -> Echo:
        asked.wait(30)
        return Echo()

    batcher = Batcher(load, Silent(), max_batch_rows=8, max_queue_rows=10, stall_seconds=0.01, on_failure=told.append)
    batcher.start()
    wait_until(lambda: bool(told))
    assert told == ["it did not load within 0.1 s"]
    asked.set()
    with pytest.raises(NotReady, match="did not load"):
        asyncio.run(batcher.predict([passenger(0.1)], 1))
    batcher.stop(5)
    assert not batcher.ready


def test_stopping_answers_what_waits() -> None:
    async def scenario(batcher: Batcher, echo: Echo) -> None:
        echo.hold.clear()
        tasks = [asyncio.create_task(batcher.predict([passenger(0.1)] * 5, 5)) for _ in range(5)]
        await asyncio.sleep(0.05)
        threading.Timer(0.1, echo.hold.set).start()
        await asyncio.to_thread(batcher.stop, 5)
        answers = await asyncio.gather(*tasks)
        assert sum(len(answer.predictions) for answer in answers) == 25
        with pytest.raises(NotReady, match="stopping"):
            await batcher.predict([passenger(0.1)], 1)

    echo = Echo()
    with running(echo) as batcher:
        asyncio.run(scenario(batcher, echo))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no priority of its own")
def test_who_computes_gives_way_to_who_reads_requests() -> None:
    class Prioritised(Echo):
        def predict_checked(
            self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
        ) -> list[Prediction]:
            found.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
            return super().predict_checked(rows, encoded)

    found: list[int] = []
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with running(Prioritised()) as batcher:
        asyncio.run(batcher.predict([passenger(1)], 10))
    assert found == [min(19, own + NICENESS)]
    assert os.getpriority(os.PRIO_PROCESS, 0) == own
