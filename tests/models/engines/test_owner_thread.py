"""One thread for all calls: who runs them, what comes back, and when it ends."""

import gc
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from models.engines.owner_thread import OwnerThread


def test_every_call_runs_on_one_thread_and_returns_or_raises() -> None:
    owner = OwnerThread("owner", lambda: None)
    with ThreadPoolExecutor(4) as threads:
        names = set(threads.map(lambda _: owner(lambda: threading.current_thread().name), range(20)))
    assert names == {"owner"}
    assert owner(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        owner(divmod, 7, 0)
    assert owner(int, "12", base=8) == 10


def test_it_ends_on_its_own_thread_when_nobody_holds_it() -> None:
    ended: list[str] = []
    owner = OwnerThread("owner", lambda: ended.append(threading.current_thread().name))
    assert owner(len, "abc") == 3
    del owner
    gc.collect()
    assert ended == ["owner"]
