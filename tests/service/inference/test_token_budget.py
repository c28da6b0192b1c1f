"""What a batch is computed as: nobody is padded to a text that is many times as long, and everybody is answered."""

import asyncio
import threading
from collections.abc import Sequence

import numpy as np
import pytest

from models.prediction import EncodedText, Prediction
from models.rows import Row
from service.inference.fair_queue import Entry, FairQueue, Slice
from service.inference.token_budget import TOKENS_PER_ROW, TokenBudget
from tests import reviews
from tests.service.inference.test_batcher import Echo, passenger, running, wait_until
from tests.service.predictions import prediction
from tests.titanic import SCHEMA

SHORT, LONG = "never again", "never again, cold soup " * 100


def taken(texts: Sequence[Sequence[str | None]]) -> list[Slice]:
    """A batch of requests of rows with these texts."""

    async def add() -> list[Slice]:
        queue = FairQueue()
        for number, each in enumerate(texts):
            queue.add(Entry([reviews.Review(review=text) for text in each], client=str(number)))
        return queue.take(64)

    return asyncio.run(add())


def texts_of(parts: Sequence[Sequence[Slice]]) -> list[list[list[str | None]]]:
    return [[[row.review for row in one.rows] for one in part] for part in parts]


def test_one_long_text_does_not_hold_thirty_short_ones() -> None:
    batch = taken([[LONG], *([SHORT] for _ in range(30))])
    parts = TokenBudget(reviews.SCHEMA, 64).parts(batch)
    assert texts_of(parts) == [[[SHORT]] * 30, [[LONG]]]


def test_short_texts_are_one_part_and_so_are_rows_without_texts() -> None:
    assert len(TokenBudget(reviews.SCHEMA, 64).parts(taken([[SHORT], [None], ["soup " * 30]] * 20))) == 1
    assert len(TokenBudget(reviews.SCHEMA, 64).parts(taken([[LONG, SHORT]]))) == 1
    assert TokenBudget(reviews.SCHEMA, 64).parts([]) == [[]]

    async def passengers() -> list[Slice]:
        queue = FairQueue()
        for number in range(8):
            queue.add(Entry([passenger(number)] * 8, client=str(number)))
        return queue.take(64)

    # Names of passengers are no part of what the model reads.
    assert len(TokenBudget(SCHEMA, 64).parts(asyncio.run(passengers()))) == 1


@pytest.mark.parametrize("ahead", [True, False])
def test_every_part_is_within_the_budget_with_its_padding_and_no_row_is_lost(ahead: bool) -> None:
    def tokens(row: Row) -> int:
        # Where rows were not encoded ahead, a token is four bytes.
        return len(row.review.split()) + 2 if ahead else len(row.review) // 4

    rng = np.random.default_rng(0)
    for _ in range(30):
        batch = taken([
            ["soup " * int(rng.integers(0, 700)) for _ in range(int(rng.integers(1, 9)))] for _ in range(12)
        ])  # fmt: skip
        for one in batch if ahead else ():
            one.entry.encoded = [EncodedText(row.review, [1] * tokens(row)) for row in one.entry.rows]
        parts = TokenBudget(reviews.SCHEMA, 16).parts(batch)
        assert {one.entry.client: one for part in parts for one in part} == {one.entry.client: one for one in batch}
        assert sum(map(len, parts)) == len(batch)
        longest = [max(tokens(row) for one in part for row in one.rows) for part in parts]
        assert longest == sorted(longest)
        for part, most in zip(parts, longest, strict=True):
            assert len(part) == 1 or sum(one.size for one in part) * most <= TOKENS_PER_ROW * 16


class Reader(Echo):
    """Answers each review; ``parts`` are the texts that were computed together."""

    def __init__(self) -> None:
        super().__init__()
        self.rows, self.parts = reviews.ROWS, list[list[str]]()
        self.short_answered = threading.Event()

    def encode(self, rows: Sequence[Row]) -> list[EncodedText]:
        return [EncodedText(row.review, [1] * len(row.review.split())) for row in rows]

    def predict_checked(
        self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
    ) -> list[Prediction]:
        self.hold.wait(10)
        assert encoded is None or [one.text for one in encoded] == [row.review for row in rows]
        self.parts.append([row.review for row in rows])
        # The long text is not done before the short ones are answered.
        assert LONG not in self.parts[-1] or self.short_answered.wait(20)
        return [prediction(len(row.review) / 10_000, passenger(0)) for row in rows]


def test_short_texts_are_answered_before_the_long_one_of_their_batch_and_each_gets_its_own() -> None:
    reader = Reader()

    async def ask(text: str) -> None:
        answer = await batcher.predict([reviews.Review(review=text)], 60, client=str(len(text)))
        assert answer.predictions[0].probability == len(text) / 10_000

    async def scenario() -> None:
        reader.hold.clear()
        first = asyncio.create_task(ask("first"))
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_until, lambda: batcher._queue.rows == 0)
        long, *short = [asyncio.create_task(ask(text)) for text in (LONG, *[SHORT] * 30)]
        await asyncio.to_thread(wait_until, lambda: batcher._queue.rows == 31)
        reader.hold.set()
        await asyncio.gather(first, *short)
        reader.short_answered.set()
        await long

    with running(reader, max_batch_rows=64) as batcher:
        asyncio.run(scenario())
    assert reader.parts == [["first"], [SHORT] * 30, [LONG]]


def test_a_part_that_fails_costs_the_others_nothing() -> None:
    class Broken(Reader):
        def predict_checked(
            self, rows: Sequence[Row], encoded: Sequence[EncodedText] | None = None, stages: object = None
        ) -> list[Prediction]:
            if any(row.review == LONG for row in rows):
                raise ValueError("a text that breaks it")
            return super().predict_checked(rows, encoded, stages)

    reader = Broken()

    async def scenario() -> None:
        reader.hold.clear()
        tasks = [asyncio.create_task(batcher.predict([reviews.Review(review="first")], 30))]
        await asyncio.sleep(0)
        await asyncio.to_thread(wait_until, lambda: batcher._queue.rows == 0)
        rows = [reviews.Review(review=text) for text in (LONG, SHORT, SHORT)]
        tasks += [asyncio.create_task(batcher.predict([row], 30, client=str(at))) for at, row in enumerate(rows)]
        await asyncio.to_thread(wait_until, lambda: batcher._queue.rows == 3)
        reader.hold.set()
        found = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(one, Exception) for one in found] == [False, True, False, False]
        assert batcher._supervisor.instance is not None
        assert batcher._supervisor.instance.batches == []

    with running(reader, max_batch_rows=8) as batcher:
        asyncio.run(scenario())
