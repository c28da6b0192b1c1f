"""From rows to somebody's pager: silence while the mix is the reference's, an alert after it changes."""

import random
import signal
import sys
import time
from pathlib import Path

import httpx
import pytest

from loadtest.traffic.rows import SHIFTS
from models.bundle.read import read_bundle
from models.bundle.write import write_bundle
from tests.deploy.conftest import LABELLED
from tests.deploy.programs import (
    free_port,
    need,
    query,
    running,
    running_alertmanager,
    running_prometheus,
    running_service,
    wait,
    webhook,
)
from tests.titanic import SCHEMA

ROUTE = {"receiver": "test", "group_by": ["alertname"], "group_wait": "1s", "group_interval": "1s"}


@pytest.mark.slow
def test_a_shift_of_the_mix_reaches_the_webhook(settled_bundle: Path, tmp_path: Path) -> None:
    for program in ("prometheus", "prometheus-alertmanager"):
        need(program)
    rows, rng = [row for row, _ in LABELLED], random.Random(1)
    shifted = [row for row, _ in SHIFTS["commonest-levels"](SCHEMA, LABELLED)]
    with (
        webhook() as (receiver, received),
        running_service(settled_bundle, tmp_path) as service,
        running_alertmanager(
            {"route": ROUTE, "receivers": [{"name": "test", "webhook_configs": [{"url": receiver}]}]}, tmp_path
        ) as alertmanager,
        running_prometheus([service], tmp_path, alertmanager) as prometheus,
    ):
        wait(lambda: query(prometheus, "evenkeel_drift_alarm"), 30)
        for _ in range(20):
            _send(service, rng.choices(rows, k=20))
        _seen(prometheus, 400)
        # Long enough for an evaluation, and for the Alertmanager to wait for the group.
        time.sleep(5)
        assert query(prometheus, "ALERTS") == []
        assert received == []

        for _ in range(20):
            _send(service, rng.choices(shifted, k=20))
        _seen(prometheus, 800)
        alert = wait(lambda: next((one for one in received if one["status"] == "firing"), None), 60)
        assert alert["labels"]["alertname"] == "EvenkeelDrift"
        assert alert["labels"]["stream"] in ("input", "prediction")
        version = httpx.get(f"{service}/v1/model").json()["version"]
        assert alert["labels"]["version"] == version
        assert version in alert["annotations"]["summary"]
        assert "{{" not in str(alert["annotations"])

        # Acknowledged, it ends, and whoever was called is told so.
        httpx.post(f"{service}/v1/drift/acknowledge", json={"stream": "all", "begin": "recent"}).raise_for_status()
        wait(lambda: any(one["status"] == "resolved" for one in received), 60)


@pytest.mark.slow
def test_another_bundle_ends_the_alert_of_the_one_before(settled_bundle: Path, tmp_path: Path) -> None:
    """Which is what the alert advises; nobody could acknowledge an alarm of a bundle that serves no more."""
    need("prometheus")
    contents: dict[str, bytes | Path] = {
        file.name: file for file in settled_bundle.iterdir() if file.is_file() and file.name != "manifest.json"
    }
    origin, served = read_bundle(settled_bundle).manifest.origin, tmp_path / "served"
    old = write_bundle(served, contents, origin).version
    service = f"http://127.0.0.1:{(port := free_port())}"
    flags = ["--bundle", served, "--port", port, "--grace-seconds", 0, "--state", tmp_path / "state", "--store", "none"]
    with running([sys.executable, "-m", "service", *flags], tmp_path / "service.log") as process:
        wait(lambda: httpx.get(f"{service}/health/ready").status_code == 200, 60)
        with running_prometheus([service], tmp_path) as prometheus:
            row = LABELLED[0][0]
            for _ in range(10):
                _send(service, [row] * 100)
            wait(lambda: _alerts(prometheus) == {("EvenkeelDrift", old)}, 60)
            new = write_bundle(served, contents | {"README.md": b"# another\n"}, origin).version
            process.send_signal(signal.SIGHUP)
            wait(lambda: httpx.get(f"{service}/v1/model").json()["version"] == new, 60)
            wait(lambda: _alerts(prometheus) == set(), 60)
            versions = {one["metric"]["version"] for one in query(prometheus, "evenkeel_drift_alarm")}
            assert versions == {new}


def _alerts(prometheus: str) -> set[tuple[str, str]]:
    found = query(prometheus, 'ALERTS{alertname="EvenkeelDrift"}')
    return {(one["metric"]["alertname"], one["metric"]["version"]) for one in found}


def _send(service: str, rows: list[dict[str, object]]) -> None:
    httpx.post(f"{service}/v1/predict/batch", json={"rows": rows}, timeout=60).raise_for_status()


def _seen(prometheus: str, rows: int) -> None:
    wait(lambda: float(query(prometheus, "sum(evenkeel_predictions_total)")[0]["value"][1]) == rows, 30)
