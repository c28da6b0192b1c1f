"""The real service: a real bundle, a real process, real HTTP, a real Prometheus."""

import concurrent.futures
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import msgspec
import pytest

from models.bundle.read import read_bundle
from models.engines.engine import NAMES, EngineName
from tests.conftest import ROOT
from tests.deploy.programs import free_port
from tests.models.engines.networks import ENGINES
from training.data.table import Table


def start(*flags: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-m", "service", *map(str, flags)]
    # Nobody reads the pipe before the end, and a line for each request would fill it.
    environment = {"EVENKEEL_LOG_REQUESTS": "none", **os.environ}
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment)


def wait_ready(url: str, process: subprocess.Popen[str]) -> None:
    for _ in range(600):
        assert process.poll() is None, process.stderr and process.stderr.read()
        try:
            if httpx.get(f"{url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("not ready within a minute")


@pytest.fixture(scope="module")
def service(bundle_folder: Path) -> Iterator[str]:
    port = free_port()
    process = start("--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--cache-rows", 0)
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    yield url
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert f"ready: {url}/v1/model" in stderr


def test_a_target_prevalence_is_the_last_step_of_the_answer(service: str, bundle_folder: Path) -> None:
    port = free_port()
    process = start("--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--target-prevalence", 0.1)
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    plain, shifted = (
        httpx.post(f"{at}/v1/predict", json={"pclass": 3, "sex": "female"}).json() for at in (service, url)
    )
    steps = shifted["confidence"]["calibration"]
    assert steps[-1] == {"step": "prior_shift", "probability": shifted["probability"]}
    assert steps[:-1] == plain["confidence"]["calibration"]
    assert shifted["probability"] < plain["probability"]
    assert shifted["confidence"]["prediction_set"] == plain["confidence"]["prediction_set"]
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert "for a population of which 0.1 are of the class survived" in stderr


def test_a_cached_answer_differs_in_its_id_alone(service: str, bundle_folder: Path, table: Table) -> None:
    port = free_port()
    process = start("--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--cache-rows", 5)
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    rows = [msgspec.to_builtins(one) for one in table.rows[:3]]
    answers = [[httpx.post(f"{at}/v1/predict", json=one).json() for one in rows] for at in (service, url, url)]
    metrics = httpx.get(f"{url}/metrics").text
    for fresh, first, cached in zip(*answers, strict=True):
        assert len({one.pop("id") for one in (fresh, first, cached)}) == 3
        assert fresh == first == cached
    assert 'evenkeel_cache_lookups_total{result="hit"} 3.0' in metrics
    assert 'evenkeel_cache_lookups_total{result="miss"} 3.0' in metrics
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr


def test_answers_do_not_depend_on_company(service: str, table: Table) -> None:
    rows = [msgspec.to_builtins(one) for one in table.rows[:60]]
    batch = httpx.post(f"{service}/v1/predict/batch", json={"rows": rows}, timeout=30)
    together = [one["probability"] for one in batch.json()["predictions"]]

    def alone(passenger: object) -> float:
        return float(httpx.post(f"{service}/v1/predict", json=passenger, timeout=30).json()["probability"])

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        found = list(pool.map(alone, rows))
    assert max(abs(a - b) for a, b in zip(found, together, strict=True)) < 1e-5
    assert len(set(found)) > 10


def test_the_model_route_tells_what_is_served(service: str, bundle_folder: Path) -> None:
    described = httpx.get(f"{service}/v1/model").json()
    bundle = read_bundle(bundle_folder)
    assert described["version"] == bundle.version
    assert described["evaluation"] == bundle.evaluation
    assert described["backend"]["engine"] in ENGINES
    assert described["backend"]["threads"] > 0


@pytest.mark.parametrize("engine", ENGINES)
def test_each_engine_serves_the_same_answers(
    engine: EngineName, service: str, bundle_folder: Path, table: Table
) -> None:
    port = free_port()
    process = start("--bundle", bundle_folder, "--port", port, "--grace-seconds", 0, "--engine", engine)
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    body = {"rows": [msgspec.to_builtins(row) for row in table.rows[:60]]}
    answers = [
        httpx.post(f"{at}/v1/predict/batch", json=body, timeout=60).json()["predictions"] for at in (service, url)
    ]
    for chosen, forced in zip(*answers, strict=True):
        assert forced["probability"] == pytest.approx(chosen["probability"], abs=1e-4)
        raw = "uncalibrated_probability"
        assert forced["confidence"][raw] == pytest.approx(chosen["confidence"][raw], abs=1e-5)
    alone = httpx.post(f"{url}/v1/predict", json=body["rows"][7], timeout=60).json()
    assert alone["probability"] == pytest.approx(answers[1][7]["probability"], abs=1e-5)
    described = httpx.get(f"{url}/v1/model").json()["backend"]
    assert (described["engine"], described["reason"]) == (engine, "as asked for")
    assert f'engine="{engine}"' in httpx.get(f"{url}/metrics").text
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert f" {NAMES[engine]} {described['version']} (as asked for) on " in stderr


@pytest.mark.parametrize(
    "raw",
    [
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 9999999\r\n\r\n{}",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 2\r\n\r\n{}",
        b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"GET /%ff%00/../x HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"BREW /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_raw_requests_get_a_4xx(service: str, raw: bytes) -> None:
    port = int(service.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(raw)
        status = connection.recv(4096).split(b" ")[1]
    assert status.startswith(b"4")
    assert httpx.get(f"{service}/health/ready").status_code == 200


def test_a_host_name_that_is_not_this_machines_is_refused(service: str) -> None:
    port = service.rsplit(":", 1)[1]
    assert httpx.get(f"{service}/v1/model", headers={"Host": f"localhost:{port}"}).status_code == 200
    assert httpx.get(f"{service}/v1/model", headers={"Host": f"rebound.example:{port}"}).status_code == 421


def test_a_bundle_that_is_missing_or_broken_ends_the_process(bundle_folder: Path, tmp_path: Path) -> None:
    missing = start("--bundle", tmp_path / "none", "--port", free_port())
    _, stderr = missing.communicate(timeout=60)
    assert missing.returncode == 1
    assert "none is not a readable folder" in stderr.splitlines()[-1]
    broken = Path(shutil.copytree(bundle_folder, tmp_path / "broken"))
    with (broken / "model.safetensors").open("r+b") as file:
        file.seek(50_000_000)
        file.write(b"\x01\x02")
    process = start("--bundle", broken, "--port", free_port())
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "model.safetensors: the file was changed" in stderr.splitlines()[-1]


def test_a_taken_port_and_a_bad_flag_end_the_process(service: str, bundle_folder: Path) -> None:
    taken = start("--bundle", bundle_folder, "--port", service.rsplit(":", 1)[1])
    _, stderr = taken.communicate(timeout=60)
    assert taken.returncode == 1
    assert "address already in use" in stderr
    assert all(msgspec.json.decode(line)["level"] for line in stderr.splitlines()), "a line that is not of our form"
    bad = start("--port", "x")
    _, stderr = bad.communicate(timeout=60)
    assert bad.returncode == 2
    assert "port" in stderr


def test_readiness_turns_red_before_the_stop_and_nothing_is_lost(bundle_folder: Path) -> None:
    port = free_port()
    process = start("--bundle", bundle_folder, "--port", port, "--grace-seconds", 5)
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)

    def ask(_: int) -> int:
        return client.post(f"{url}/v1/predict", json={"pclass": 2, "sex": "female"}).status_code

    with httpx.Client(timeout=30) as client, concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(ask, number) for number in range(40)]
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        assert client.get(f"{url}/health/ready").json() == {"status": "not ready", "detail": "draining"}
        assert {answer.result() for answer in answers} == {200}
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr


def need(program: str) -> str:
    found = shutil.which(program)
    if found is None:
        if os.environ.get("CI") == "true":
            raise AssertionError(f"{program} is not installed; on Debian: apt-get install prometheus")
        pytest.skip(f"{program} is not installed; on Debian: apt-get install prometheus")
    return found


def test_promtool_has_nothing_to_say_about_the_metrics(service: str) -> None:
    promtool, text = need("promtool"), httpx.get(f"{service}/metrics").text
    done = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.slow
def test_a_real_prometheus_scrapes_it(service: str, tmp_path: Path) -> None:
    prometheus, port = need("prometheus"), free_port()
    (tmp_path / "prometheus.yml").write_text(
        "scrape_configs:\n- job_name: evenkeel\n  scrape_interval: 1s\n"
        f"  static_configs: [{{targets: ['{service.removeprefix('http://')}']}}]\n"
    )
    flags = [f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data"]
    process = subprocess.Popen(
        [prometheus, *flags, f"--web.listen-address=127.0.0.1:{port}"], stderr=subprocess.DEVNULL
    )
    try:
        assert ask_prometheus(port, 'up{job="evenkeel"}') == 1
        httpx.post(f"{service}/v1/predict", json={"pclass": 1, "sex": "female"}, timeout=30)
        expected = httpx.get(f"{service}/metrics").text
        answered = sum(
            float(line.split()[1]) for line in expected.splitlines() if line.startswith("evenkeel_predictions_total")
        )
        assert ask_prometheus(port, "sum(evenkeel_predictions_total)", answered) == answered
        assert ask_prometheus(port, "sum(evenkeel_predictions_by_probability_total)", answered) == answered
        assert ask_prometheus(port, "count(evenkeel_reference_probability_proportion)") == 10
    finally:
        process.terminate()
        process.wait(timeout=30)


def ask_prometheus(port: int, query: str, wanted: float | None = None) -> float:
    """The value of a query, once it has one (once it is ``wanted``, if given)."""
    value = float("nan")
    for _ in range(150):
        try:
            answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params={"query": query}).json()
            if answer["data"]["result"]:
                value = float(answer["data"]["result"][0]["value"][1])
                if wanted is None or value == wanted:
                    return value
        except (httpx.TransportError, ValueError):
            pass
        time.sleep(0.2)
    return value
