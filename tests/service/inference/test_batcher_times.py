"""What the batcher foretells and what it tells, by a clock on which computing a row takes as long as a test says."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

import pytest

from models.prediction import EncodedText, Prediction, PredictionError
from models.rows import Row
from service.inference.batcher import Batcher
from service.inference.errors import ClientDisconnected, DeadlinePassed, NotReady, PredictionFailed, QueueFull
from service.inference.fair_queue import Answer
from service.inference.supervision import MAX_RESTARTS
from tests.service.inference.test_batcher import Echo, passenger, wait_until

PATIENT = 1e5
"""Seconds in which any answer here is there."""


class Clock:
    """Stands still but for what computing took, so that all times are exact."""

    def __init__(self) -> None:
        self.computing = 0.0

    def __call__(self) -> float:
        return self.computing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "perf_counter", clock)
    return clock


class Priced(Echo):
    """A row takes ``price`` seconds of the clock. Some fares break it."""

    def __init__(self, clock: Clock, price: float = 10.3):
        super().__init__()
        self.clock, self.price = clock, price
        self.encoded_rows: list[int | None] = []

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        self.encoded_rows.append(None if encoded is None else len(encoded))
        found = super().predict_checked(rows, encoded)
        fares = [one.fare for one in rows]
        self.clock.computing += self.price * len(rows)
        if 998 in fares:
            raise PredictionError("not finite")
        if 997 in fares:
            raise SystemExit("the device is gone")
        return found[1:] if 996 in fares else found


class Notes:
    """All that an observer is told."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.batches: list[tuple[int, float]] = []
        self.failures: list[str] = []
        self.lost = 0

    def queued(self, rows: int) -> None:
        self.rows.append(rows)

    def computed(self, rows: int, seconds: float) -> None:
        self.batches.append((rows, seconds))

    def failed(self, reason: str) -> None:
        self.failures.append(reason)

    def thread_lost(self) -> None:
        self.lost += 1


Scenario = Callable[[Batcher, Priced, Notes], Awaitable[None]]


def play(scenario: Scenario, clock: Clock, **limits: int) -> None:
    echo, notes = Priced(clock), Notes()
    settings = {"max_batch_rows": 8, "max_queue_rows": 10_000, **limits}
    batcher = Batcher(lambda: echo, notes, **settings)
    batcher.start()
    wait_until(lambda: batcher.ready)
    try:
        asyncio.run(scenario(batcher, echo, notes))
    finally:
        echo.hold.set()
        batcher.stop(5)


def ask(batcher: Batcher, rows: int, client: str = "", seconds: float = PATIENT) -> "asyncio.Task[Answer]":
    return asyncio.create_task(batcher.predict([passenger(0.5)] * rows, seconds, client))


async def held(batcher: Batcher, echo: Priced, rows: int = 1) -> "asyncio.Task[Answer]":
    """A request that is being computed until ``echo.hold`` is set."""
    echo.hold.clear()
    calls = len(echo.encoded_rows)
    first = ask(batcher, rows)
    while len(echo.encoded_rows) == calls:
        await asyncio.sleep(0.005)
    return first


def test_nobody_is_refused_for_a_wait_before_it_is_known(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, _: Notes) -> None:
        first = await held(batcher, echo)
        others = [ask(batcher, 50, seconds=5.0) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in others)
        for one in others:
            one.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        echo.hold.set()
        await first

    play(scenario, clock)


def test_who_could_not_be_in_time_is_told_when_to_come_back(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, _: Notes) -> None:
        await batcher.predict([passenger(0.5)] * 4, PATIENT)  # From now on a row is known to take 10.3 s.
        first = await held(batcher, echo, 2)
        waiting = ask(batcher, 3, "a")
        await asyncio.sleep(0.05)
        # 2 rows are computed, 3 come before, as many may come after into its batch, and its own 2: 103 s, for which it
        # must have half as much again.
        for seconds, wait in ((154.0, 1), (137.0, 12), (5.0, 100)):
            with pytest.raises(QueueFull) as refused:
                await batcher.predict([passenger(0.5)] * 2, seconds, "b")
            assert refused.value.retry_after_seconds == wait
        # Among "a"'s own what is as large comes after what waits, 113.3 s, and what is smaller before it, but into the
        # same batch, 61.8 s.
        for rows, seconds, wait in ((4, 170.0, 11), (3, 169.0, 1), (3, 91.0, 53), (1, 92.0, 1), (1, 6.0, 58)):
            with pytest.raises(QueueFull) as refused:
                await batcher.predict([passenger(0.5)] * rows, seconds, "a")
            assert refused.value.retry_after_seconds == wait
        in_time = ask(batcher, 2, "b", 155.0)
        await asyncio.sleep(0.05)
        assert not in_time.done()
        in_time.cancel()
        echo.hold.set()
        await asyncio.gather(first, waiting)

    play(scenario, clock)


class Turnstile(threading.Semaphore):
    """In the place of ``Echo.hold``: lets batches through one by one."""

    def wait(self, timeout: float) -> bool:
        return self.acquire(timeout=timeout)

    def set(self) -> None:
        self.release(1000)


def test_what_it_takes_to_hand_out_answers_is_part_of_the_wait(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, _: Notes) -> None:
        async def slow() -> None:
            await batcher.predict([passenger(0.5)] * 2, PATIENT)
            clock.computing += 100.0  # Nobody else's answer is handed out meanwhile.

        async def computing(batches: int) -> None:
            while len(echo.encoded_rows) < batches:
                await asyncio.sleep(0.005)

        await batcher.predict([passenger(0.5)] * 4, PATIENT)
        turnstile = Turnstile(0)
        echo.hold = turnstile  # type: ignore[assignment]
        first = ask(batcher, 2)
        await computing(2)
        others = [asyncio.create_task(slow()), ask(batcher, 2)]
        await asyncio.sleep(0.05)
        turnstile.release()
        await first
        await computing(3)
        # The clock must not go on before it is known what handing out the first answer took.
        await asyncio.sleep(0.05)
        turnstile.release()
        await asyncio.gather(*others)
        await asyncio.sleep(0.05)
        second = ask(batcher, 2)
        await computing(4)
        # 2 rows are computed, and its own 2: 41.2 s, and lately 10 until an answer has left.
        with pytest.raises(QueueFull) as refused:
            await batcher.predict([passenger(0.5)] * 2, 6.0, "b")
        assert refused.value.retry_after_seconds == 48
        turnstile.set()
        await second

    play(scenario, clock)


def test_of_a_large_request_what_is_computed_counts_once(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, _: Notes) -> None:
        await batcher.predict([passenger(0.5)] * 4, PATIENT)
        turnstile = Turnstile(0)
        echo.hold = turnstile  # type: ignore[assignment]
        large = ask(batcher, 20, "a")
        # On a busy machine the thread that encodes ahead may come later than the one that computes.
        while len(echo.encoded_rows) < 2 or encoded_ahead(batcher) < 16:
            await asyncio.sleep(0.005)
        turnstile.release()
        while len(echo.encoded_rows) < 3:
            await asyncio.sleep(0.005)
        assert echo.encoded_rows[1:] == [None, 8]
        # Rows 8 to 16 are computed, the last 4 wait, as many may come, and its own 2: 185.4 s.
        with pytest.raises(QueueFull) as refused:
            await batcher.predict([passenger(0.5)] * 2, 6.0, "b")
        assert refused.value.retry_after_seconds == 182
        turnstile.set()
        await large

    play(scenario, clock)


def encoded_ahead(batcher: Batcher) -> int:
    """Rows that are encoded of the request that the next batch begins with."""
    with batcher._arrived:
        return next((len(entry.encoded) for entry in batcher._queue.peek(8)), 0)


def test_a_lone_request_is_let_in_however_long_it_takes(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, _: Notes) -> None:
        await batcher.predict([passenger(0.5)], PATIENT)
        # The answer comes a moment before the thread is free.
        await asyncio.sleep(0.1)
        echo.hold.clear()
        lone = ask(batcher, 8, seconds=20.0)
        await asyncio.sleep(0.05)
        assert not lone.done()
        echo.hold.set()
        assert len((await lone).predictions) == 8

    play(scenario, clock)


def test_the_queue_takes_what_it_holds_and_tells_the_rest_how_long_its_surplus_takes(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, _: Notes) -> None:
        await batcher.predict([passenger(0.5)] * 2, PATIENT)
        first = await held(batcher, echo)
        waiting = ask(batcher, 7)
        await asyncio.sleep(0.02)
        for rows, wait in ((4, 11), (5, 21), (10, 73)):
            with pytest.raises(QueueFull) as refused:
                await batcher.predict([passenger(0.5)] * rows, PATIENT)
            assert refused.value.retry_after_seconds == wait
        full = ask(batcher, 3)
        await asyncio.sleep(0.02)
        assert not full.done()
        echo.hold.set()
        await asyncio.gather(first, waiting, full)

    play(scenario, clock, max_queue_rows=10)


def test_what_a_row_takes_follows_the_batches_slowly(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, _: Notes) -> None:
        await batcher.predict([passenger(0.5)] * 4, PATIENT)
        echo.price = 20.3
        await batcher.predict([passenger(0.5)] * 4, PATIENT)
        first = await held(batcher, echo)
        with pytest.raises(QueueFull) as refused:
            await batcher.predict([passenger(0.5)] * 17, PATIENT)
        # Nine tenths of 10.3 and one of 20.3, for the 7 rows too many.
        assert refused.value.retry_after_seconds == 80
        echo.hold.set()
        await first

    play(scenario, clock, max_queue_rows=10)


def test_an_answer_tells_its_times_and_the_observer_those_of_batches(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, notes: Notes) -> None:
        first = await held(batcher, echo)
        large = ask(batcher, 12)
        await asyncio.sleep(0.02)
        small = ask(batcher, 2, "b")
        await asyncio.sleep(0.02)
        echo.hold.set()
        times = [(one.queue_seconds, one.inference_seconds) for one in await asyncio.gather(first, large, small)]
        # After the first row come 8 rows of the large one, then 2 of the small one with the large one's last 4.
        expected = [(0.0, 10.3), (10.3, 8 * 10.3 + 6 * 10.3), (9 * 10.3, 6 * 10.3)]
        for found, one in zip(times, expected, strict=True):
            assert found == pytest.approx(one, abs=1e-6)
        assert [rows for rows, _ in notes.batches] == [1, 8, 6]
        assert [seconds for _, seconds in notes.batches] == pytest.approx([10.3, 8 * 10.3, 6 * 10.3], abs=1e-6)
        assert notes.rows == [1, 0, 12, 14, 6, 0]
        assert echo.encoded_rows[0] is None

    play(scenario, clock)


def test_a_request_that_turned_out_to_be_late_makes_room(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, notes: Notes) -> None:
        first = await held(batcher, echo)
        late, other = ask(batcher, 2, "a", 500.0), ask(batcher, 3, "b")
        await asyncio.sleep(0.3)
        echo.price = 1000.0
        echo.hold.set()
        with pytest.raises(QueueFull) as refused:
            await late
        assert refused.value.retry_after_seconds == 1
        assert len((await other).predictions) == 3
        await first
        assert [rows for rows, _ in notes.batches] == [1, 3]

    play(scenario, clock)


def test_where_all_are_late_one_is_computed_all_the_same(clock: Clock) -> None:
    """Nothing is left to wait for it, and a batch of nobody is none."""

    async def scenario(batcher: Batcher, echo: Priced, notes: Notes) -> None:
        first = await held(batcher, echo)
        late, last = ask(batcher, 2, "a", 500.0), ask(batcher, 3, "b", 500.0)
        await asyncio.sleep(0.3)
        echo.price = 1000.0
        echo.hold.set()
        with pytest.raises(QueueFull):
            await late
        assert len((await last).predictions) == 3
        await first
        assert [rows for rows, _ in notes.batches] == [1, 3]
        assert notes.lost == 0

    play(scenario, clock)


def test_failures_are_told_by_their_kind(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, notes: Notes) -> None:
        for fare, reason in ((999, "error"), (998, "not_finite"), (996, "error")):
            with pytest.raises(PredictionFailed, match=r"^the model gave no valid answer for this request$"):
                await batcher.predict([passenger(fare)] * 2, PATIENT)
            assert notes.failures.pop() == reason
        first = await held(batcher, echo)
        bad = [asyncio.create_task(batcher.predict([passenger(one)], PATIENT)) for one in (997, 0.1, 0.2)]
        await asyncio.sleep(0.05)
        echo.hold.set()
        await first
        for ended in await asyncio.gather(*bad, return_exceptions=True):
            assert isinstance(ended, PredictionFailed)
            assert str(ended) == "the model gave no answer for this request"
        assert (notes.failures, notes.lost) == (["lost"] * 3, 1)
        wait_until(lambda: batcher.ready)
        assert len((await batcher.predict([passenger(0.5)], PATIENT)).predictions) == 1
        assert notes.rows[-1] == 0

    play(scenario, clock)


def test_whoever_leaves_in_whatever_way_leaves_the_queue(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, notes: Notes) -> None:
        on_disconnect: list[Callable[[], object]] = []
        first = await held(batcher, echo)
        cancelled = ask(batcher, 3)
        left = asyncio.create_task(batcher.predict([passenger(0.5)] * 4, PATIENT, "", on_disconnect))
        await asyncio.sleep(0.1)
        assert notes.rows[-1] == 7
        with pytest.raises(DeadlinePassed, match=r"^no answer within 0\.1 seconds$"):
            await batcher.predict([passenger(0.5)] * 2, 0.1)
        with pytest.raises(DeadlinePassed, match=r"^no answer within 0\.01 seconds$"):
            await batcher.predict([passenger(0.5)] * 2, 0.01)
        assert notes.rows[-1] == 7
        on_disconnect[0]()
        with pytest.raises(ClientDisconnected):
            await left
        assert notes.rows[-1] == 3
        cancelled.cancel()
        await asyncio.gather(cancelled, return_exceptions=True)
        assert notes.rows[-1] == 0
        echo.hold.set()
        await first
        assert echo.batches == [1]

    play(scenario, clock)


def test_who_waits_for_a_batcher_that_gives_up_is_told_why(clock: Clock) -> None:
    told: list[str] = []
    loads = iter([Priced(clock)])

    def load() -> Priced:
        try:
            return next(loads)
        except StopIteration:
            raise ValueError from None

    notes = Notes()
    batcher = Batcher(load, notes, max_batch_rows=1, max_queue_rows=100, on_failure=told.append)
    with pytest.raises(NotReady, match=r"^the model is being loaded$"):
        asyncio.run(batcher.predict([passenger(0.5)], 1))
    batcher.start()
    wait_until(lambda: batcher.ready)
    echo = batcher.predictor
    assert isinstance(echo, Priced)

    async def scenario() -> None:
        first = await held(batcher, echo)
        ends = [asyncio.create_task(batcher.predict([passenger(one)], PATIENT)) for one in (997, 0.1, 0.2)]
        await asyncio.sleep(0.05)
        echo.hold.set()
        await first
        dead, *waiting = await asyncio.gather(*ends, return_exceptions=True)
        assert isinstance(dead, PredictionFailed)
        # Without a message of its own an error is told by its kind.
        assert [(type(one), str(one)) for one in waiting] == [(NotReady, "ValueError")] * 2

    asyncio.run(scenario())
    wait_until(lambda: bool(told))
    assert (told, batcher.failure, batcher.ready, batcher.lost) == (["ValueError"], "ValueError", False, False)
    assert notes.rows[-1] == 0
    with pytest.raises(NotReady, match=r"^ValueError$"):
        asyncio.run(batcher.predict([passenger(0.5)], 1))
    batcher.stop(5)


def test_a_predictor_is_told_of_before_it_serves_and_is_the_one_that_answers(clock: Clock) -> None:
    seen: list[tuple[object, bool]] = []
    one, other = Priced(clock), Priced(clock)
    batcher: Batcher = Batcher(
        lambda: one, Notes(), max_batch_rows=8, max_queue_rows=100,
        on_loaded=lambda found: seen.append((found, batcher.predictor is found)),
    )  # fmt: skip
    batcher.start()
    wait_until(lambda: batcher.ready)
    assert (batcher.predictor, batcher.failure, batcher.draining, batcher.lost) == (one, None, False, False)
    assert asyncio.run(batcher.replace(lambda: other)) is other.bundle
    assert batcher.predictor is other
    assert seen == [(one, False), (other, False)]
    asyncio.run(batcher.predict([passenger(0.5)], PATIENT))
    assert (one.batches, other.batches) == ([], [1])
    begun = time.monotonic()
    batcher.stop(30)
    assert time.monotonic() - begun < 20
    with pytest.raises(NotReady, match=r"^stopping$"):
        asyncio.run(batcher.predict([passenger(0.5)], 1))


def test_a_spare_that_ends_the_thread_is_told_as_an_error(clock: Clock) -> None:
    def ending() -> Priced:
        raise SystemExit("no device is left")

    async def scenario(batcher: Batcher, echo: Priced, notes: Notes) -> None:
        with pytest.raises(RuntimeError, match=r"^no device is left$"):
            await batcher.replace(ending)
        assert len((await batcher.predict([passenger(0.5)], PATIENT)).predictions) == 1
        assert (notes.lost, batcher.ready, batcher.failure) == (0, True, None)

    play(scenario, clock)


class Mute(Echo):
    """Ends its thread without a word."""

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        raise KeyboardInterrupt


def test_a_thread_that_ends_without_a_word_is_told_by_the_kind_of_its_end() -> None:
    batcher = Batcher(Mute, Notes(), max_batch_rows=8, max_queue_rows=100)
    batcher.start()
    for _ in range(MAX_RESTARTS + 1):
        wait_until(lambda: batcher.ready)
        with pytest.raises(PredictionFailed):
            asyncio.run(batcher.predict([passenger(0.5)], PATIENT))
    wait_until(lambda: batcher.lost and not batcher.ready)
    assert batcher.failure == "KeyboardInterrupt"
    batcher.stop(5)


def test_one_who_left_a_batch_that_is_computed_keeps_nobody_else_from_an_answer(clock: Clock) -> None:
    async def scenario(batcher: Batcher, echo: Priced, _: Notes) -> None:
        first = await held(batcher, echo)
        gone, *others = [ask(batcher, 1) for _ in range(8)]
        await asyncio.sleep(0.02)
        echo.hold.set()
        await first
        echo.hold.clear()
        while len(echo.encoded_rows) < 2:
            await asyncio.sleep(0.005)
        gone.cancel()
        await asyncio.gather(gone, return_exceptions=True)
        echo.hold.set()
        answers = await asyncio.wait_for(asyncio.gather(*others), 10)
        assert [len(one.predictions) for one in answers] == [1] * 7

    play(scenario, clock)


def test_a_bundle_that_fails_after_it_was_given_up_is_told_once() -> None:
    asked, ended, told = threading.Event(), threading.Event(), list[str]()

    def load() -> Echo:
        asked.wait(30)
        ended.set()
        raise ValueError("it is cut")

    batcher = Batcher(load, Notes(), max_batch_rows=8, max_queue_rows=10, stall_seconds=0.01, on_failure=told.append)
    batcher.start()
    wait_until(lambda: bool(told))
    asked.set()
    ended.wait(5)
    time.sleep(0.1)
    assert told == ["it did not load within 0.1 s"]
    assert batcher.failure == told[0]
    batcher.stop(5)
