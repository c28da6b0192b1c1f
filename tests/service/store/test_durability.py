"""kill -9 at random moments: every acknowledged outcome is there afterwards, and none was ever counted twice."""

import json
import multiprocessing
import os
import random
import threading
import time
from http.client import HTTPConnection, HTTPException
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from models.bundle.read import Bundle
from tests.deploy.programs import free_port
from tests.service.store.outcome_server import serve
from tests.service.store.test_store import rows, where
from tests.service.test_app import ALLISON
from tests.titanic import LABELS

__all__ = ["where"]
CLIENTS = 3
ROWS = 8
KILLS = int(os.environ.get("EVENKEEL_TEST_KILLS", "40"))
"""Of the slow test."""

PROCESSES = multiprocessing.get_context("forkserver")
"""One process imports the service; each life begins as a copy of it."""

PROCESSES.set_forkserver_preload(["tests.service.store.outcome_server"])


class Book:
    """What was sent to all lives of the service, and what they acknowledged."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.sent: set[str] = set()
        self.acknowledged: set[str] = set()

    def send(self, connection: HTTPConnection, ids: list[str], expected: str | None) -> None:
        """Send outcomes; all must be ``expected``, counted or repeated.

        After a lost answer either is right, or unknown where the prediction itself was lost with the process.
        """
        with self.lock:
            self.sent |= set(ids)
        outcomes = [{"id": id, "outcome": fate(id)} for id in ids]
        answer = post(connection, "/v1/outcomes", {"outcomes": outcomes})
        unknown = set(answer["unknown"])
        assert answer["conflicting"] == []
        assert answer["counted"] + answer["repeated"] + len(unknown) == len(ids)
        assert expected is None or answer[expected] == len(ids)
        with self.lock:
            self.acknowledged |= set(ids) - unknown
            self.sent -= unknown


def fate(id: str) -> str:
    return LABELS[int(id[-1], 16) % 2]


def post(connection: HTTPConnection, path: str, body: object) -> Any:
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    content = response.read()
    assert response.status == 200, content
    return json.loads(content)


def live(book: Book, port: int, rng: random.Random, first: threading.Event, faults: list[BaseException]) -> None:
    """Predict and send outcomes, one by one or together, and some again, until the service dies."""
    connection, mine = HTTPConnection("127.0.0.1", port, timeout=30), list[str]()
    try:
        while True:
            predictions = post(connection, "/v1/predict/batch", {"rows": [ALLISON] * ROWS})["predictions"]
            ids = [one["id"] for one in predictions]
            for part in [ids] if rng.random() < 0.5 else [[id] for id in ids]:
                book.send(connection, part, "counted")
            mine += ids
            book.send(connection, rng.sample(mine, 3), "repeated")
            first.set()
    except (OSError, HTTPException):
        connection.close()
    except BaseException as error:
        faults.append(error)
        first.set()


def started(bundle: Path, store: str, port: int) -> BaseProcess:
    process = PROCESSES.Process(target=serve, args=(bundle, store, port))
    process.start()
    while process.is_alive():
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health/ready")
            ready = connection.getresponse().status == 200
            connection.close()
            if ready:
                return process
        except OSError:
            pass
        time.sleep(0.02)
    raise AssertionError("the service ended")


def killed_at_random(bundle: Path, store: str, trials: int) -> Book:
    book, rng = Book(), random.Random(trials)
    for _ in range(trials):
        port = free_port()
        process = started(bundle, store, port)
        try:
            a_life(book, rng, port, process)
        finally:
            process.kill()
            process.join()
        held = {kept.id: outcome for kept, outcome in rows(store, labelled_only=True)}
        assert [id for id in book.acknowledged if held.get(id) != fate(id)] == []
        assert set(held) <= book.sent
    assert len(book.acknowledged) > trials * ROWS
    return book


def a_life(book: Book, rng: random.Random, port: int, process: BaseProcess) -> None:
    """From the restart to the kill."""
    first, faults = threading.Event(), list[BaseException]()
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    # What earlier lives acknowledged is known to this one; what they did not may be either, and is known then.
    doubtful = sorted(book.sent - book.acknowledged)
    for ids, expected in ((sorted(book.acknowledged), "repeated"), (doubtful, None)):
        for part in (ids[n : n + 1024] for n in range(0, len(ids), 1024)):
            book.send(connection, part, expected)
    assert book.sent == book.acknowledged
    connection.close()
    clients = [
        threading.Thread(target=live, args=(book, port, random.Random(rng.random()), first, faults))
        for _ in range(CLIENTS)
    ]
    for client in clients:
        client.start()
    assert first.wait(30)
    time.sleep(rng.uniform(0, 0.4))
    process.kill()
    process.join()
    for client in clients:
        client.join(60)
    assert faults == []


def test_a_killed_process_loses_and_repeats_nothing(tiny_bundle: Bundle, where: str) -> None:
    killed_at_random(tiny_bundle.folder, where, 3)


@pytest.mark.slow
def test_many_killed_processes_lose_and_repeat_nothing(tiny_bundle: Bundle, tmp_path: Path) -> None:
    book = killed_at_random(tiny_bundle.folder, str(tmp_path / "s.sqlite"), KILLS)
    print(f"{KILLS} kills: {len(book.acknowledged)} outcomes acknowledged, 0 lost, 0 counted twice")
