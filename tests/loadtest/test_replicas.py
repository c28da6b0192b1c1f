"""Several replicas behind a real HAProxy: one service to its clients, one sum to Prometheus, none that is missed."""

import contextlib
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from loadtest.traffic.corpus import Case, build
from loadtest.traffic.responses import check_response
from tests.conftest import ROOT
from tests.deploy.programs import free_port, need, query, running, running_prometheus, wait

CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
REPLICAS = 3
CLIENTS = 6
JSON = {"Content-Type": "application/json"}


@contextlib.contextmanager
def replicas(bundle: Path, folder: Path) -> Iterator[list[tuple[str, subprocess.Popen[bytes]]]]:
    """Ready ones, each with its URL."""
    with contextlib.ExitStack() as stack:
        found = []
        for place in range(REPLICAS):
            port = free_port()
            flags = ["--bundle", bundle, "--port", port, "--grace-seconds", 0, "--state", folder / f"state{place}"]
            command = [sys.executable, "-m", "service", *flags, "--store", "none", "--log-requests", "problems"]
            process = stack.enter_context(running(command, folder / f"replica{place}.log"))
            found.append((f"http://127.0.0.1:{port}", process))
        for url, _ in found:
            wait(lambda url=url: httpx.get(f"{url}/health/ready").status_code == 200, 120)
        yield found


@contextlib.contextmanager
def balancer(urls: Sequence[str], folder: Path) -> Iterator[str]:
    """The configuration of deploy/, with these addresses in the place of its own."""
    port, text = free_port(), CONFIGURATION.read_text()
    for place, url in enumerate(urls, 1):
        text = text.replace(f"127.0.0.1:800{place}", url.removeprefix("http://"))
    (folder / "haproxy.cfg").write_text(text.replace("127.0.0.1:8000", f"127.0.0.1:{port}"))
    url = f"http://127.0.0.1:{port}"
    with running([need("haproxy"), "-db", "-f", folder / "haproxy.cfg"], folder / "haproxy.log"):
        wait(lambda: httpx.get(f"{url}/health/ready").status_code == 200, 30)
        yield url


def ask(client: httpx.Client, url: str, cases: Sequence[Case], tally: Counter[str]) -> None:
    """One prediction, asked for once more where no answer comes; what it was goes into the tally."""
    batch = len(cases) > 1
    path = "/v1/predict/batch" if batch else "/v1/predict"
    body = b'{"rows":[' + b",".join(case.body for case in cases) + b"]}" if batch else cases[0].body
    for last in (False, True):
        try:
            answer = client.post(url + path, content=body, headers=JSON)
        except httpx.TransportError as error:
            fault = type(error).__name__
        else:
            checked = check_response(
                answer.status_code, answer.content, cases, answer.headers.get("retry-after"), batch=batch
            )
            if checked.result == "ok":
                tally["rows"] += len(cases)
                tally["requests"] += 1
                return
            fault = f"{checked.result}: {checked.fault}"
            assert checked.result != "wrong", fault
        tally[f"failed for good: {fault}" if last else "asked again"] += 1


def load(url: str, cases: Sequence[Case], done: threading.Event, seed: int) -> Counter[str]:
    """A client's requests until all is done."""
    rng, tally = random.Random(seed), Counter[str]()
    with httpx.Client(timeout=60) as client:
        while not done.is_set():
            ask(client, url, rng.sample(cases, rng.choice((1, 1, 1, 8))), tally)
    return tally


@pytest.mark.slow
def test_replicas_answer_alike_add_up_and_one_that_is_killed_is_not_missed(bundle_folder: Path, tmp_path: Path) -> None:
    need("haproxy")
    need("prometheus")
    cases = build([bundle_folder], 48).cases
    with (
        replicas(bundle_folder, tmp_path) as found,
        balancer([url for url, _ in found], tmp_path) as url,
        running_prometheus([one for one, _ in found], tmp_path) as prometheus,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        assert httpx.get(f"{url}/metrics").status_code == 404

        def run(seconds: float, kill: subprocess.Popen[bytes] | None = None) -> Counter[str]:
            done, total = threading.Event(), Counter[str]()
            clients = [pool.submit(load, url, cases, done, seed) for seed in range(CLIENTS)]
            time.sleep(seconds)
            if kill is not None:
                kill.send_signal(signal.SIGKILL)
                kill.wait()
                time.sleep(seconds)
            done.set()
            for one in clients:
                total.update(one.result(timeout=120))
            return total

        # Every answer is the right one, so the replicas' answers are the same; each had a part in them.
        first = run(4)
        assert not [one for one in first if one.startswith("failed")], first
        assert first["asked again"] == 0
        shares = "sum by (instance) (evenkeel_predictions_total)"
        wait(lambda: _sum(prometheus) == first["rows"], 30)
        assert all(float(one["value"][1]) > 0 for one in query(prometheus, shares))
        assert len(query(prometheus, shares)) == REPLICAS

        second = run(3, kill=found[1][1])
        assert not [one for one in second if one.startswith("failed")], second
        assert second["requests"] > CLIENTS
        wait(lambda: query(prometheus, "up == 0"), 30)
        assert httpx.get(f"{url}/health/ready").status_code == 200


def _sum(prometheus: str) -> float:
    found = query(prometheus, "sum(evenkeel_predictions_total)")
    return float(found[0]["value"][1]) if found else 0.0
