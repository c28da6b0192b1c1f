"""The one thread that a library bound to threads is used on, from its first call to its orderly end."""

import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

END_SECONDS = 10
"""That a call which is being computed is waited for, when the process ends."""

P = ParamSpec("P")
R = TypeVar("R")
Calls = queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]


class OwnerThread:
    """Runs calls of any threads one after the other on one of its own.

    ``at_end`` runs on it last: when nobody holds this object any more, or before the process ends.
    """

    def __init__(self, name: str, at_end: Callable[[], None]):
        self._calls: Calls = queue.SimpleQueue()
        # A daemon: Python waits for other threads before it calls what ends this one.
        thread = threading.Thread(target=_work, args=(self._calls, at_end), name=name, daemon=True)
        thread.start()
        weakref.finalize(self, _end, self._calls, thread)

    def __call__(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """What the function returns, or raises."""
        done: Future[R] = Future()
        self._calls.put((done, lambda: function(*args, **kwargs)))
        return done.result()


def _work(calls: Calls, at_end: Callable[[], None]) -> None:
    while (call := calls.get()) is not None:
        done, function = call
        try:
            done.set_result(function())
        except BaseException as error:
            done.set_exception(error)
        # Not held until the next one comes.
        del call, done, function
    at_end()


def _end(calls: Calls, thread: threading.Thread) -> None:
    calls.put(None)
    if thread is not threading.current_thread():
        thread.join(END_SECONDS)
