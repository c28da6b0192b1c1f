"""The batcher under random arrivals, departures and faults: everybody gets one end, and the right one."""

import asyncio
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from models.prediction import EncodedText, Prediction, PredictionError
from models.rows import Row
from service.inference.batcher import Batcher
from service.inference.errors import ClientDisconnected, DeadlinePassed, NotReady, PredictionFailed, QueueFull
from service.inference.fair_queue import Answer
from tests.service.inference.test_batcher import Echo, passenger, wait_until
from tests.service.predictions import prediction

POISON, NOT_FINITE, DEADLY = 999.0, 998.0, 997.0
MAX_QUEUE_ROWS = 60
ENDS = (ClientDisconnected, DeadlinePassed, NotReady, PredictionFailed, QueueFull, asyncio.CancelledError)


class Fragile(Echo):
    """Answers with the fare and its own generation; some fares break it."""

    def __init__(self, generation: int):
        super().__init__(seconds=0.001)
        self.generation = generation

    def encode(self, rows: Sequence[Row]) -> list[EncodedText]:
        return [EncodedText(f"{self.generation} {one.fare}", []) for one in rows]

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        if encoded is not None:
            assert [one.text for one in encoded] == [f"{self.generation} {one.fare}" for one in rows]
        fares = [float(one.fare or 0) for one in rows]
        if DEADLY in fares:
            raise SystemExit("the device is gone")
        if NOT_FINITE in fares:
            raise PredictionError("not finite")
        if POISON in fares:
            raise ValueError("a bad row")
        self.batches.append(len(rows))
        return [prediction(fare + 1000 * self.generation) for fare in fares]


class Gauge:
    """The queue's length as the metrics would see it, and what failed."""

    def __init__(self) -> None:
        self.rows, self.highest, self.failures, self.lost = 0, 0, [], 0  # type: ignore[var-annotated]

    def queued(self, rows: int) -> None:
        self.rows, self.highest = rows, max(self.highest, rows)

    def computed(self, rows: int, seconds: float) -> None:
        assert rows > 0 <= seconds

    def failed(self, reason: str) -> None:
        self.failures.append(reason)

    def thread_lost(self) -> None:
        self.lost += 1


ARRIVAL = st.tuples(
    st.just("arrive"), st.sampled_from([1, 1, 1, 2, 5, 9, 30]), st.sampled_from("abc"),
    st.sampled_from([None, None, None, POISON, NOT_FINITE]), st.sampled_from([10.0, 10.0, 0.004]),
)  # fmt: skip
OTHER = st.sampled_from([("cancel",), ("leave",), ("pause",), ("pause",), ("replace",), ("break",)])
DEATH = st.lists(st.just(("arrive", 1, "a", DEADLY, 10.0)), max_size=2)


@settings(max_examples=40, deadline=None)
@given(actions=st.lists(ARRIVAL | OTHER, max_size=40), deaths=DEATH, shuffled=st.randoms(use_true_random=False))
def test_everybody_gets_one_end_and_the_right_one(actions: list[Any], deaths: list[Any], shuffled: Any) -> None:
    actions = [*actions, *deaths]
    shuffled.shuffle(actions)
    generations, gauge = count(), Gauge()
    batcher = Batcher(
        lambda: Fragile(next(generations)), gauge, max_batch_rows=8, max_queue_rows=MAX_QUEUE_ROWS
    )  # fmt: skip

    def broken() -> Fragile:
        raise ValueError("no bundle")

    async def scenario() -> list[tuple[list[float], Answer | BaseException]]:
        asked: list[tuple[list[float], list[Callable[[], object]], asyncio.Task[Answer]]] = []
        numbers = count(1)
        for kind, *rest in actions:
            if kind == "arrive":
                rows, client, bad, seconds = rest
                fares = [next(numbers) / 8 for _ in range(rows)]
                if bad is not None:
                    fares[-1] = bad
                on_disconnect: list[Callable[[], object]] = []
                work = batcher.predict([passenger(one) for one in fares], seconds, client, on_disconnect)
                asked.append((fares, on_disconnect, asyncio.create_task(work)))
            elif kind == "cancel" and asked:
                asked[-1][2].cancel()
            elif kind == "leave" and asked:
                for disconnect in [*asked[-1][1]]:
                    disconnect()
            elif kind == "replace":
                await batcher.replace(lambda: Fragile(next(generations)))
            elif kind == "break":
                assert isinstance(
                    (await asyncio.gather(batcher.replace(broken), return_exceptions=True))[0], ValueError
                )
            await asyncio.sleep(0.002 if kind == "pause" else 0)
        found = await asyncio.wait_for(asyncio.gather(*(one[2] for one in asked), return_exceptions=True), 20)
        wait_until(lambda: batcher.ready)
        last = await batcher.predict([passenger(0.5)], 10)
        assert last.predictions[0].probability % 1000 == 0.5
        return [(fares, end) for (fares, _, _), end in zip(asked, found, strict=True)]

    batcher.start()
    wait_until(lambda: batcher.ready)
    try:
        ends = asyncio.run(scenario())
    finally:
        batcher.stop(5)
    for fares, end in ends:
        if isinstance(end, BaseException):
            assert isinstance(end, ENDS), end
            continue
        assert not {POISON, NOT_FINITE, DEADLY} & set(fares)
        given = [one.probability for one in end.predictions]
        assert [one % 1000 for one in given] == fares
        assert len({one // 1000 for one in given}) == 1
    # A request may end for another reason before its failure is delivered, never fail uncounted.
    assert len(gauge.failures) >= sum(isinstance(end, PredictionFailed) for _, end in ends)
    assert gauge.lost <= len(deaths)
    assert gauge.rows == 0
    assert gauge.highest <= MAX_QUEUE_ROWS
