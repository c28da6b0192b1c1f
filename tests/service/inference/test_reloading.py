"""Another bundle without a stop, in a real service under load: no request fails, and no answer mixes two bundles."""

import concurrent.futures
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from models.bundle.read import Bundle
from models.bundle.write import write_bundle
from models.predictor import Predictor
from models.rows import Row
from service.http.keys import SCOPES, new_key, write_keys
from tests.deploy.programs import free_port
from tests.service.inference.test_batcher import wait_until
from tests.service.test_real import start, wait_ready
from tests.tiny import ORIGIN, Contents
from training.data.table import Table

RELOADS = int(os.environ.get("EVENKEEL_TEST_RELOADS", "6"))
SIZES = (1, 1, 7, 64, 300)
KEY, ENTRY = new_key("tests", SCOPES)
HEADERS = {"X-API-Key": KEY}
get, post = partial(httpx.get, headers=HEADERS), partial(httpx.post, headers=HEADERS)


@pytest.fixture(scope="module")
def bundles(tiny_contents: Contents, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """Two that give different probabilities: the second knows no companions and says so in its card."""
    folder = tmp_path_factory.mktemp("two")
    other = {**tiny_contents, "feature.json": b'{"by_ticket":{}}', "README.md": b"# the other\n"}
    return write_bundle(folder / "a", tiny_contents, ORIGIN), write_bundle(folder / "b", other, ORIGIN)


def serve(source: Bundle, destination: Path) -> None:
    """Put a bundle where the service reads it."""
    files = {one.name: one for one in source.folder.iterdir() if one.name != "manifest.json"}
    write_bundle(destination, files, source.manifest.origin)


@pytest.fixture
def service(bundles: tuple[Bundle, Bundle], tmp_path: Path) -> Iterator[tuple[str, Path, subprocess.Popen[str]]]:
    serve(bundles[0], tmp_path / "served")
    port = free_port()
    write_keys(tmp_path / "keys.json", [ENTRY])
    process = start(
        "--bundle", tmp_path / "served", "--port", port, "--grace-seconds", 0, "--log-requests", "none",
        "--keys", tmp_path / "keys.json",
    )  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    yield url, tmp_path / "served", process
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert "unexpected" not in stderr


def version(url: str) -> str:
    return str(get(f"{url}/v1/model").json()["version"])


def answers(predictor: Predictor, rows: list[Row]) -> list[float]:
    return [one.probability for one in predictor.predict(rows)]


@pytest.mark.slow
def test_reloads_under_load_fail_no_request_and_mix_no_versions(
    service: tuple[str, Path, subprocess.Popen[str]], bundles: tuple[Bundle, Bundle], table: Table
) -> None:
    url, folder, _ = service
    rows = [msgspec.structs.replace(one, age=place / 8) for place, one in enumerate(table.rows[:60])]
    rows = [rows[place % 60] for place in range(max(SIZES))]
    expected = {one.version: answers(Predictor.load(one.folder), rows) for one in bundles}
    assert expected[bundles[0].version] != expected[bundles[1].version]
    bodies = {size: msgspec.json.encode({"rows": [_known(one) for one in rows[:size]]}) for size in set(SIZES)}
    done, faults, seen = threading.Event(), [], {one.version: 0 for one in bundles}

    def ask(size: int) -> None:
        with httpx.Client(timeout=30, headers=HEADERS) as client:
            while not done.is_set():
                response = client.post(
                    f"{url}/v1/predict/batch", content=bodies[size], headers={"Content-Type": "application/json"}
                )
                found: Any = response.json()
                if response.status_code != 200:
                    faults.append(str(found))
                    continue
                versions = {one["model"]["version"] for one in found["predictions"]}
                probabilities = [one["probability"] for one in found["predictions"]]
                if len(versions) != 1:
                    faults.append(f"mixed: {versions}")
                elif probabilities != pytest.approx(expected[min(versions)][:size], abs=1e-5):
                    faults.append(f"not the answers of {versions}")
                else:
                    seen[min(versions)] += 1

    with concurrent.futures.ThreadPoolExecutor() as pool:
        asking = [pool.submit(ask, size) for size in SIZES]
        for turn in range(RELOADS):
            serve(bundles[(turn + 1) % 2], folder)
            reloaded = post(f"{url}/admin/reload", timeout=60, content=b"")
            assert reloaded.json()["version"] == bundles[(turn + 1) % 2].version, reloaded.text
            assert reloaded.json()["previous"] == bundles[turn % 2].version
            time.sleep(0.2)
        done.set()
        for one in asking:
            one.result()
    assert faults == []
    assert min(seen.values()) > 0, seen


def _known(passenger: Row) -> dict[str, Any]:
    return {name: value for name, value in msgspec.to_builtins(passenger).items() if value is not None}


def test_sighup_reloads_and_a_bad_bundle_leaves_the_old_one_serving(
    service: tuple[str, Path, subprocess.Popen[str]], bundles: tuple[Bundle, Bundle], churn_bundle: Bundle
) -> None:
    url, folder, process = service
    passenger = {"pclass": 3, "sex": "male", "name": "Braund, Mr. Owen Harris", "ticket": "A/5 21171"}
    assert post(f"{url}/v1/predict", json=passenger).status_code == 200
    serve(bundles[1], folder)
    assert version(url) == bundles[0].version
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: version(url) == bundles[1].version)
    assert post(f"{url}/v1/predict", json=passenger).json()["model"]["version"] == bundles[1].version
    drift = get(f"{url}/v1/drift").json()
    assert (drift["version"], drift["streams"][0]["seen"]) == (bundles[1].version, 1)
    metrics = get(f"{url}/metrics").text
    for one in bundles:
        assert f'evenkeel_predictions_by_probability_total{{bin="0.0-0.1",version="{one.version}"}}' in metrics
    assert f'evenkeel_drift_alarm{{stream="input",version="{bundles[1].version}"}} 0.0' in metrics
    # Its tests have ended, and nobody could acknowledge an alarm of theirs.
    assert not re.search(rf'evenkeel_drift_(alarm|log_evidence){{.*version="{bundles[0].version}"', metrics)

    serve(churn_bundle, folder)
    refused = post(f"{url}/admin/reload", timeout=60, content=b"")
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith(
        'schema.json: row is "customer", not "passenger" as in the bundle that serves'
    )
    assert post(f"{url}/v1/predict", json=passenger).json()["model"]["version"] == bundles[1].version

    serve(bundles[1], folder)
    (folder / "model.safetensors").write_bytes(b"junk")
    refused = post(f"{url}/admin/reload", timeout=60, content=b"")
    assert refused.status_code == 422
    assert "model.safetensors" in refused.json()["detail"]
    shutil.rmtree(folder)
    process.send_signal(signal.SIGHUP)
    wait_until(lambda: 'evenkeel_reloads_total{result="refused"} 3.0' in get(f"{url}/metrics").text)
    assert get(f"{url}/health/ready").status_code == 200
    assert post(f"{url}/v1/predict", json=passenger).json()["model"]["version"] == bundles[1].version
    serve(bundles[0], folder)
    assert post(f"{url}/admin/reload", timeout=60, content=b"").json() == {
        "version": bundles[0].version, "previous": bundles[1].version,
    }  # fmt: skip
