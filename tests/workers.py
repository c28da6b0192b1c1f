"""Several pytest processes at once (pytest-xdist): what they share, and the tests that run while no other does."""

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TURN, MACHINE = HERE / "workers.py", HERE / "conftest.py"
"""Their locks are files that are there anyway."""


@contextmanager
def machine(alone: bool) -> Iterator[None]:
    """Share the machine with the tests of other workers, or have it ``alone``.

    Who waits for the machine holds the turn, so that those who share it cannot keep it among themselves.
    """
    with TURN.open("rb") as turn, MACHINE.open("rb") as mine:
        fcntl.flock(turn, fcntl.LOCK_EX)
        fcntl.flock(mine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(turn, fcntl.LOCK_UN)
        yield


def make_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The path that ``make`` is to fill, called by the first worker that asks; the others wait for it."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"{name}-once"
    folder.mkdir(exist_ok=True)
    made, done = folder / name, folder / "done"
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            make(made)
            done.touch()
    return made
