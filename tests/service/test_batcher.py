"""The queue and the inference thread: nobody gets another's answer, nobody waits for ever."""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import pytest

from models.backend import Backend
from models.bundle import Bundle
from models.confidence import Confidence
from models.passenger import Passenger
from models.predictor import Prediction, Text
from service.batcher import Batcher
from service.errors import DeadlinePassed, NotReady, PredictionFailed, QueueFull

CONFIDENCE = Confidence(
    interval=(0, 1), prediction_set=(), coverage=0.9, margin=0, entropy_bits=0, typicality=1, abstain=True,
    uncalibrated_probability=0.5, calibration=(), warnings=(),
)  # fmt: skip


def passenger(number: float) -> Passenger:
    return Passenger(pclass=1, sex="male", fare=number)


class Echo:
    """Answers each passenger with its fare as probability; a fare of 999 breaks the batch."""

    backend = Backend(device="cpu", blas="none", gflops=0, threads=1)

    def __init__(self, bundle: Bundle | None = None, seconds: float = 0.0):
        self.bundle, self.seconds = bundle, seconds
        self.batches: list[int] = []
        self.read_rows = 0
        self.hold = threading.Event()
        self.hold.set()

    def warm_up(self) -> None: ...

    def read(self, passengers: Sequence[Passenger]) -> list[Text]:
        return [Text(str(passenger.fare), []) for passenger in passengers]

    def predict(self, passengers: Sequence[Passenger], texts: Sequence[Text] | None = None) -> list[Prediction]:
        self.hold.wait(10)
        if texts is not None:
            assert [text.words for text in texts] == [str(passenger.fare) for passenger in passengers]
            self.read_rows += len(texts)
        time.sleep(self.seconds)
        self.batches.append(len(passengers))
        if any(one.fare == 999 for one in passengers):
            raise ValueError("a bad row")
        return [Prediction(True, float(one.fare or 0), CONFIDENCE) for one in passengers]


class Silent:
    def queued(self, rows: int) -> None: ...

    def computed(self, rows: int, seconds: float) -> None: ...


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
        late = asyncio.create_task(batcher.predict([passenger(0.2)] * 6, 0.1))
        await asyncio.sleep(0.02)
        with pytest.raises(QueueFull) as refused:
            await batcher.predict([passenger(0.3)] * 5, 5)
        assert refused.value.retry_after_seconds >= 1
        with pytest.raises(DeadlinePassed, match=r"0\.1 seconds"):
            await late
        echo.hold.set()
        await busy
        answer = await batcher.predict([passenger(0.4)] * 10, 5)
        assert len(answer.predictions) == 10
        assert 6 not in echo.batches

    echo = Echo()
    with running(echo, max_queue_rows=10) as batcher:
        asyncio.run(scenario(batcher, echo))


def test_a_dead_thread_is_told_and_nobody_hangs() -> None:
    class Dying(Echo):
        def predict(self, passengers: Sequence[Passenger], texts: Sequence[Text] | None = None) -> list[Prediction]:
            raise SystemExit("the device is gone")

    async def scenario(batcher: Batcher) -> None:
        with pytest.raises((NotReady, DeadlinePassed)):
            await batcher.predict([passenger(0.1)], 0.5)
        wait_until(lambda: not batcher.ready)
        with pytest.raises(NotReady, match="the device is gone"):
            await batcher.predict([passenger(0.1)], 5)

    with running(Dying()) as batcher:
        asyncio.run(scenario(batcher))


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
