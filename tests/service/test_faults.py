"""What may happen to a process: stopped under load, killed, suspended, out of files, memory or disk, its clock wrong.

Each in a real process, over HTTP.
"""

import contextlib
import http.client
import json
import os
import resource
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from models.bert.tokenizer import Tokenizer
from models.bundle.read import Bundle
from models.bundle.write import write_bundle
from models.features.titanic import Companions
from models.text import Renderer
from tests.deploy.programs import free_port
from tests.service.processes import JSON, Service
from tests.service.store.test_store import rows
from tests.service.test_real import start, wait_ready
from tests.tiny import ORIGIN, Contents
from tests.titanic import ROWS, SCHEMA, Passenger

STOPS = int(os.environ.get("EVENKEEL_TEST_STOPS", "3"))
KILLS = int(os.environ.get("EVENKEEL_TEST_SIGKILLS", "2"))
SIZES = (1, 1, 1, 7, 64, 300)
"""Rows of a request, for each client."""
OWEN = {"pclass": 3, "sex": "male", "name": "Braund, Mr. Owen Harris", "age": 22.0, "embarked": "S"}
POISONOUS = {**OWEN, "embarked": "Q"}


class Clients:
    """Clients that each send one request after the other on a connection of their own, until they are refused one.

    ``sent`` counts requests that left on an open connection, ``answered`` their answers by status, ``lost`` those
    without an answer.
    """

    def __init__(self, port: int, sizes: tuple[int, ...] = SIZES):
        self.sent, self.answered, self.lost = 0, dict[int, int](), list[str]()
        self.ids: list[str] = []
        self._port, self._lock, self._done = port, threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._ask, args=(size,), daemon=True) for size in sizes]

    def __enter__(self) -> "Clients":
        for one in self._threads:
            one.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for one in self._threads:
            one.join(60)
            assert not one.is_alive()

    def _ask(self, size: int) -> None:
        body = json.dumps({"rows": [OWEN] * size}).encode()
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as connection:
            self._ask_on(connection, body)

    def _ask_on(self, connection: http.client.HTTPConnection, body: bytes) -> None:
        while not self._done.is_set():
            try:
                if connection.sock is None:
                    connection.connect()
            except ConnectionRefusedError:
                return
            except ConnectionResetError as error:
                # The process ended between the two halves of the handshake.
                with self._lock:
                    self.lost.append(repr(error))
                return
            with self._lock:
                self.sent += 1
            try:
                connection.request("POST", "/v1/predict/batch", body, JSON)
                response = connection.getresponse()
                content = json.loads(response.read())
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                with self._lock:
                    self.lost.append(repr(error))
                continue
            with self._lock:
                self.answered[response.status] = self.answered.get(response.status, 0) + 1
                self.ids += [one["id"] for one in content.get("predictions", ())]


@pytest.mark.slow
def test_a_stop_under_load_loses_no_request(tiny_bundle: Bundle, tmp_path: Path) -> None:
    total, lost = 0, []
    for _ in range(STOPS):
        with Service(tiny_bundle.folder, tmp_path, grace_seconds=0.3, cache_rows=0) as service, \
                Clients(service.port) as clients:  # fmt: skip
            service.until(lambda clients=clients: clients.answered.get(200, 0) > 50)
            service.process.send_signal(signal.SIGTERM)
            assert service.process.wait(60) == 0, service.said
        assert set(clients.answered) == {200}
        assert clients.sent == clients.answered[200] + len(clients.lost)
        total += clients.sent
        lost += clients.lost
    print(f"{STOPS} stops under load: {total} requests sent, {len(lost)} lost {lost}")
    assert lost == []


@pytest.mark.slow
def test_a_killed_process_comes_back_with_what_it_had_saved(bundle_folder: Path, tmp_path: Path) -> None:
    store, took = tmp_path / "predictions.sqlite", []
    for _ in range(KILLS):
        with Service(bundle_folder, tmp_path, store=store, state=tmp_path / "state") as service, \
                Clients(service.port) as clients:  # fmt: skip
            service.until(lambda clients=clients: clients.answered.get(200, 0) > 20)
            with clients._lock:
                known = list(clients.ids)
            before = seen(service)
            service.until(lambda service=service, before=before: saved(tmp_path) >= before)
            service.until(lambda service=service, known=known: written(service) >= len(known))
            service.close()
            begun = time.perf_counter()
            with Service(bundle_folder, tmp_path, store=store, state=tmp_path / "state") as again:
                took.append(time.perf_counter() - begun)
                assert seen(again) >= saved(tmp_path) >= before
                assert "unusable" not in again.said
                status, outcomes = again.post("/v1/outcomes", {"outcomes": [{"id": known[-1], "outcome": "survived"}]})
                assert (status, outcomes["counted"]) == (200, 1)
        with contextlib.closing(sqlite3.connect(store)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        held = {one.id for one, _ in rows(str(store))}
        assert set(known) <= held
    print(f"{KILLS} kills under load: ready again after {', '.join(f'{one:.2f}' for one in took)} s")


def seen(service: Service) -> int:
    return int(json.loads(service.get("/v1/drift")[1])["streams"][0]["seen"])


def saved(folder: Path) -> int:
    """Predictions that the saved state of the drift tests has seen."""
    files = list((folder / "state").glob("drift-*.json"))
    return int(json.loads(files[0].read_text())["seen"]["prediction"]) if files else 0


def written(service: Service) -> float:
    return service.value("store_written_total")


@pytest.mark.slow
def test_a_suspended_process_loses_neither_its_thread_nor_a_request(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with Service(tiny_bundle.folder, tmp_path, stall_seconds=1, cache_rows=0) as service:
        with Clients(service.port) as clients:
            for _ in range(2):
                before = clients.answered.get(200, 0)
                service.until(lambda before=before: clients.answered.get(200, 0) > before + 20)
                service.process.send_signal(signal.SIGSTOP)
                time.sleep(3)
                service.process.send_signal(signal.SIGCONT)
        assert (set(clients.answered), clients.lost) == ({200}, [])
        assert service.value("inference_threads_lost_total") == 0


def test_with_few_open_files_it_serves_on_and_saves_on(tiny_bundle: Bundle, tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    store, state = tmp_path / "predictions.sqlite", tmp_path / "state"
    with Service(tiny_bundle.folder, tmp_path, limit=limit, store=store, state=state) as service:
        assert "16 connections at most" in service.said
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                stack.enter_context(socket.create_connection(("127.0.0.1", service.port), timeout=30))
            status, answer = service.post("/v1/predict", OWEN)
            assert status == 200
            assert service.descriptors() <= 64
            service.until(lambda: saved(tmp_path) == 1)
            service.until(lambda: written(service) == 1)
            status, outcomes = service.post("/v1/outcomes", {"outcomes": [{"id": answer["id"], "outcome": "survived"}]})
            assert (status, outcomes["counted"]) == (200, 1)
            # Another bundle needs files of its own.
            service.process.send_signal(signal.SIGHUP)
            service.until(lambda: service.value("reloads_total", result="done") == 1)


@pytest.mark.parametrize("mebibytes", [600, 1200])
def test_with_little_memory_it_starts_or_says_why_not(tiny_bundle: Bundle, tmp_path: Path, mebibytes: int) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (mebibytes << 20, mebibytes << 20))

    with contextlib.closing(Service(tiny_bundle.folder, tmp_path, limit=limit, stall_seconds=3)) as service:
        end = time.monotonic() + 60
        while service.process.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                if service.get("/health/ready")[0] == 200:
                    assert service.post("/v1/predict", OWEN)[0] == 200
                    return
            time.sleep(0.1)
        assert service.process.returncode not in (None, 0)
        assert service.said.strip()


@pytest.fixture
def with_nan(tiny_contents: Contents, tmp_path: Path) -> Bundle:
    """A bundle whose weights are finite, and whose logits are not for who embarked at Queenstown."""
    content = tiny_contents["tokenizer.json"]
    assert isinstance(content, bytes)
    (tmp_path / "tokenizer.json").write_bytes(content)
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json", 16)
    render = Renderer(SCHEMA)
    there, others = (
        {token for one in rows for token in tokenizer.token_ids([render(one, Companions.of([], []))])[0]}
        for rows in ([Passenger(**POISONOUS)], [ROWS.typical(), Passenger(**OWEN)])
    )
    # Where the word stands when a bundle is tried, its logit is finite; further behind it is not.
    embeddings = large(tiny_contents, word=sorted(there - others), position=range(12, 16))
    return written_bundle(tmp_path / "nan", tiny_contents, embeddings)


def large(contents: Contents, **rows: Sequence[int]) -> dict[str, np.ndarray]:
    """Embeddings that are finite each, and whose sum is not where all of these rows meet."""
    weights = contents["model.safetensors"]
    assert isinstance(weights, Path)
    changed = {}
    for kind, chosen in rows.items():
        name = f"bert.embeddings.{kind}_embeddings.weight"
        changed[name] = load_file(weights)[name].copy()
        changed[name][list(chosen)] = 2e38
    return changed


def written_bundle(folder: Path, contents: Contents, changed: dict[str, np.ndarray]) -> Bundle:
    weights = contents["model.safetensors"]
    assert isinstance(weights, Path)
    file = folder.with_suffix(".safetensors")
    save_file({**load_file(weights), **changed}, file)
    return write_bundle(folder, {**contents, "model.safetensors": file}, ORIGIN)


def test_a_number_that_is_not_finite_is_a_503_for_who_brings_it_alone(with_nan: Bundle, tmp_path: Path) -> None:
    with contextlib.closing(Service(with_nan.folder, tmp_path)) as service:
        service.wait_ready()
        with Clients(service.port, (1, 7, 64)) as clients:
            for number in range(1, 11):
                status, problem = service.post("/v1/predict", POISONOUS)
                assert (status, problem["status"]) == (503, 503)
                assert "probability" not in problem
                assert service.value("prediction_failures_total", reason="not_finite") == number
        assert (set(clients.answered), clients.lost) == ({200}, [])
        mixed = {"rows": [OWEN, POISONOUS]}
        assert service.post("/v1/predict/batch", mixed)[0] == 503
        assert service.value("inference_threads_lost_total") == 0
        assert service.get("/health/ready")[0] == service.post("/v1/predict", OWEN)[0] == 200


def test_a_bundle_that_gives_no_finite_number_at_all_is_not_served(tiny_contents: Contents, tmp_path: Path) -> None:
    bundle = written_bundle(
        tmp_path / "inf", tiny_contents, large(tiny_contents, token_type=range(2), position=range(16))
    )
    service = Service(bundle.folder, tmp_path)
    with contextlib.closing(service):
        assert service.process.wait(60) == 1, service.said
    assert "the model's logits are not finite" in service.said.splitlines()[-1]


def test_while_another_holds_the_store_predictions_go_on(tiny_bundle: Bundle, tmp_path: Path) -> None:
    store = tmp_path / "predictions.sqlite"
    with Service(tiny_bundle.folder, tmp_path, store=store) as service:
        _, first = service.post("/v1/predict", OWEN)
        service.until(lambda: written(service) == 1)
        with contextlib.closing(sqlite3.connect(store, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            ids = [service.post("/v1/predict", OWEN)[1]["id"] for _ in range(20)]
            service.until(lambda: b"outcomes are refused" in service.get("/health/ready")[1])
            assert service.post("/v1/outcomes", {"outcomes": [{"id": first["id"], "outcome": "survived"}]})[0] == 503
            ids += [service.post("/v1/predict", OWEN)[1]["id"] for _ in range(20)]
            other.execute("ROLLBACK")
        service.until(lambda: written(service) == 41)
        outcomes = [{"id": one, "outcome": "died"} for one in [first["id"], *ids]]
        assert service.post("/v1/outcomes", {"outcomes": outcomes})[1]["counted"] == 41


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["limit", "disk"])
def test_while_the_disk_is_full_predictions_go_on(tiny_bundle: Bundle, tmp_path: Path, kind: str) -> None:
    with disk(tmp_path / "disk", kind) as folder, \
            Service(tiny_bundle.folder, tmp_path, store=folder / "s", state=folder / "state") as service:  # fmt: skip
        ids = [service.post("/v1/predict", OWEN)[1]["id"]]
        service.until(lambda: written(service) == 1)
        fill(service, folder, kind)
        batch = {"rows": [OWEN] * 500}
        for _ in range(12):
            status, answer = service.post("/v1/predict/batch", batch)
            assert status == 200
            ids += [one["id"] for one in answer["predictions"]]
        service.until(lambda: b"the store is unusable" in service.get("/health/ready")[1])
        assert service.post("/v1/outcomes", {"outcomes": [{"id": ids[0], "outcome": "survived"}]})[0] == 503
        assert service.post("/v1/predict", OWEN)[0] == 200
        service.until(lambda: "the drift tests was not saved" in service.said)
        fill(service, folder, kind, undo=True)
        service.until(lambda: written(service) == len(ids) + 1)
        assert service.post("/v1/outcomes", {"outcomes": [{"id": ids[-1], "outcome": "survived"}]})[1]["counted"] == 1
        service.until(lambda: saved(folder) == len(ids) + 1)


@contextlib.contextmanager
def disk(folder: Path, kind: str) -> Iterator[Path]:
    folder.mkdir()
    if kind == "limit":
        yield folder
        return
    if os.geteuid() != 0 or os.system(f"mount -t tmpfs -o size=2m evenkeel '{folder}' 2>/dev/null") != 0:
        pytest.skip("a small disk needs the right to mount one")
    try:
        yield folder
    finally:
        os.system(f"umount -l '{folder}'")


def fill(service: Service, folder: Path, kind: str, undo: bool = False) -> None:
    """A disk with no room, or no file that may grow: both fail a write, with different errors."""
    if kind == "limit":
        size = resource.RLIM_INFINITY if undo else 1 << 12
        resource.prlimit(service.process.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    elif undo:
        (folder / "filling").unlink()
    else:
        with contextlib.suppress(OSError), (folder / "filling").open("wb", 0) as file:
            for size in (1 << 12, 1):
                while True:
                    file.write(bytes(size))


FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1")), None)


@pytest.mark.slow
def test_a_log_that_nobody_reads_holds_up_nobody(tiny_bundle: Bundle) -> None:
    port = free_port()
    process = start(
        "--bundle", tiny_bundle.folder, "--port", port, "--grace-seconds", 0, "--store", "none", "--log-requests", "all"
    )
    with process:
        wait_ready(f"http://127.0.0.1:{port}", process)
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            for _ in range(1000):  # Of each a line, together more than a pipe holds.
                connection.request("POST", "/v1/predict", b"{", JSON)
                assert json.loads(connection.getresponse().read())["status"] == 400
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


@pytest.mark.slow
def test_a_clock_that_steps_back_repeats_no_id_and_deletes_nothing(tiny_bundle: Bundle, tmp_path: Path) -> None:
    if FAKETIME is None:
        if os.environ.get("CI") == "true":
            raise AssertionError("libfaketime is not installed; on Debian: apt-get install libfaketime")
        pytest.skip("libfaketime is not installed; on Debian: apt-get install libfaketime")
    offset = tmp_path / "offset"
    offset.write_text("+0")
    variables = {
        "LD_PRELOAD": str(FAKETIME), "FAKETIME_TIMESTAMP_FILE": str(offset), "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip
    store = tmp_path / "predictions.sqlite"
    with Service(
        tiny_bundle.folder, tmp_path, variables=variables, store=store, store_max_days=1, state=tmp_path / "state"
    ) as service:
        ids = []
        for step in ("+0", "-1h", "-400d", "-1h", "-30s", "+0"):
            offset.write_text(step)
            for _ in range(20):
                status, answer = service.post("/v1/predict", OWEN)
                assert status == 200
                ids.append(answer["id"])
        hour = 3_600_000
        milliseconds = [int(one.replace("-", "")[:12], 16) for one in ids]
        assert milliseconds[20] < milliseconds[0] - hour / 2, "the clock did not step"
        assert len(set(ids)) == len(ids)
        service.until(lambda: written(service) == len(ids))
        outcomes = [{"id": one, "outcome": "survived"} for one in ids]
        assert service.post("/v1/outcomes", {"outcomes": outcomes})[1]["counted"] == len(ids)
        assert service.value("http_request_seconds_sum") >= 0
        assert service.value("queue_seconds_sum") >= 0
        assert service.value("inference_seconds_sum") > 0
        assert "unusable" not in service.said
    assert {one.id for one, _ in rows(str(store))} == set(ids)
