"""Where an answer is waited for: a request's future, settled from an inference thread on the event loop that waits."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby
from typing import TypeVar

from service.inference.errors import ClientDisconnected, DeadlinePassed
from service.inference.fair_queue import Answer, Entry

LOGGER = logging.getLogger("evenkeel")
T = TypeVar("T")


async def awaited(entry: Entry, timeout_seconds: float, on_disconnect: list[Callable[[], object]] | None) -> Answer:
    """The answer; raises what the request failed with, DeadlinePassed, and ClientDisconnected where the client goes
    first: then all of ``on_disconnect`` is called."""

    def disconnect() -> None:
        settle(entry.future, ClientDisconnected())

    timer = asyncio.get_running_loop().call_later(timeout_seconds, _pass_deadline, entry.future, timeout_seconds)
    if on_disconnect is not None:
        on_disconnect.append(disconnect)
    try:
        return await entry.future
    finally:
        timer.cancel()
        if on_disconnect is not None:
            on_disconnect.remove(disconnect)


def _pass_deadline(future: "asyncio.Future[Answer]", seconds: float) -> None:
    settle(future, DeadlinePassed(f"no answer within {seconds:g} seconds"))


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
