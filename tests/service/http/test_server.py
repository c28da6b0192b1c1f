"""The server's end: what a signal may do, and when the server stops."""

import asyncio
import logging
import signal
import threading
from dataclasses import dataclass

import pytest
import uvicorn

from service.http.connections import ConnectionLimits
from service.http.server import Server


@dataclass
class State:
    draining: bool = False


def make(grace_seconds: float) -> tuple[Server, State, ConnectionLimits]:
    state, limits = State(), ConnectionLimits(1, 1, 1, 1)
    server = Server(uvicorn.Config(lambda: None, log_config=None), state, limits, grace_seconds)
    return server, state, limits


def ticks(server: Server) -> bool:
    """Whether the server stops at its next tick."""
    return asyncio.run(server.on_tick(1))


def test_a_signal_takes_no_lock(caplog: pytest.LogCaptureFixture) -> None:
    """Its handler runs in the main thread between any two steps, so also where that holds the lock of a log's queue:
    to log there, or to start a thread, would wait for ever."""
    server, state, limits = make(60)
    caplog.set_level(logging.INFO, logger="evenkeel")
    threads = threading.active_count()
    server.handle_exit(signal.SIGTERM, None)
    assert (state.draining, limits.draining) == (True, True)
    assert not caplog.records
    assert threading.active_count() == threads
    assert not ticks(server)
    assert not ticks(server)
    assert [record.getMessage() for record in caplog.records] == ["draining for 60 s"]


def test_a_second_signal_ends_the_wait() -> None:
    server, _, _ = make(60)
    server.handle_exit(signal.SIGTERM, None)
    assert not ticks(server)
    server.handle_exit(signal.SIGTERM, None)
    assert ticks(server)


def test_an_interrupt_does_not_wait() -> None:
    server, state, _ = make(60)
    assert not ticks(server)
    server.handle_exit(signal.SIGINT, None)
    assert state.draining
    assert ticks(server)


def test_without_a_grace_period_it_stops_at_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="evenkeel")
    server, _, _ = make(0)
    server.handle_exit(signal.SIGTERM, None)
    assert ticks(server)
    assert caplog.messages == ["draining for 0 s"]
