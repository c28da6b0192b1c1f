"""Where an answer is waited for: a request's future, settled from an inference thread on the event loop that waits."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import groupby
from typing import Any, TypeVar

from service.inference.errors import ClientDisconnected, DeadlinePassed
from service.inference.fair_queue import Answer, Entry

LOGGER = logging.getLogger("evenkeel")
T = TypeVar("T")

WATCHED_AFTER_SECONDS = 0.05
"""From then on it is noticed that a client disconnects; to watch costs more than most answers take."""


async def awaited(
    entry: Entry, timeout_seconds: float, disconnected: Callable[[], Awaitable[object]] | None
) -> Answer:  # fmt: skip
    """The answer; raises what the request failed with, DeadlinePassed, and ClientDisconnected once ``disconnected``
    returns."""
    begun = time.perf_counter()
    loop = asyncio.get_running_loop()
    timer = loop.call_later(min(timeout_seconds, WATCHED_AFTER_SECONDS), _exchange, entry)
    try:
        # Not by asyncio.wait: its two steps of the event loop are a tenth of what a request costs.
        if (answer := await entry.future) is not None:
            return answer
    finally:
        timer.cancel()
    future = entry.future
    if not future.done() and await _disconnects(future, begun + timeout_seconds, disconnected):
        raise ClientDisconnected
    answer = future.result() if future.done() else None
    if answer is None:
        raise DeadlinePassed(f"no answer within {timeout_seconds:g} seconds")
    return answer


def _exchange(entry: Entry) -> None:
    """Give whoever waits for the entry None, and the entry another future for its answer."""
    if not entry.future.done():
        entry.future, waited = entry.future.get_loop().create_future(), entry.future
        waited.set_result(None)


async def _disconnects(
    future: "asyncio.Future[Answer | None]", until: float, disconnected: Callable[[], Awaitable[object]] | None
) -> bool:  # fmt: skip
    """Wait for the answer until a time of `time.perf_counter`; True if the client disconnected before either."""
    watch = asyncio.ensure_future(disconnected() if disconnected is not None else asyncio.Event().wait())
    waited: list[asyncio.Future[Any]] = [future, watch]
    try:
        await asyncio.wait(waited, timeout=until - time.perf_counter(), return_when=asyncio.FIRST_COMPLETED)
        return watch.done() and not future.done()
    finally:
        watch.cancel()


def deliver(
    results: Iterable[tuple[Entry, Answer | Exception]], took: Callable[[float], None] = lambda _: None
) -> None:  # fmt: skip
    """Hand results to the event loops that wait for them: one call for all of a loop, which tells the seconds that it
    took until the last of them was there."""
    begun = time.perf_counter()
    for loop, group in groupby(results, lambda result: result[0].future.get_loop()):
        try:
            loop.call_soon_threadsafe(_settle, iter(list(group)), begun, took)
        except RuntimeError:
            # The loop is closed, and whoever waited is gone.
            LOGGER.debug("nobody waits for a result any more")


def _settle(
    results: Iterator[tuple[Entry, Answer | Exception]], begun: float, took: Callable[[float], None]
) -> None:  # fmt: skip
    """One at a time, so that between the answers of a batch the event loop sees what else has come."""
    for entry, result in results:
        if settle(entry.future, result):
            entry.future.get_loop().call_soon(_settle, results, begun, took)
            return
    took(time.perf_counter() - begun)


def settle(future: "asyncio.Future[T]", result: T | Exception) -> bool:
    """Give a future its result, or what it failed with; False if it has one, or nobody waits for it any more."""
    if future.done():
        return False
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return True
