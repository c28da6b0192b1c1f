"""What Prometheus' own programs make of /metrics: its linter in each text format, and a server that keeps exemplars."""

import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from models.bundle.read import Bundle
from service.settings import Settings
from tests.deploy.programs import need, prometheus_of, wait
from tests.service.serving import make_app, serving
from tests.service.test_app import Deterministic

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
TEXT = ("text/plain;version=0.0.4", "text/plain;version=1.0.0", "text/plain;version=1.0.0;escaping=allow-utf-8")


@pytest.fixture(scope="module")
def service(tiny_bundle: Bundle) -> Iterator[str]:
    """A real server that has answered one prediction of a known trace."""
    with serving(make_app(Settings(state=""), lambda _: Deterministic(tiny_bundle))) as served:
        url = f"http://127.0.0.1:{served.port}"
        trace = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
        httpx.post(f"{url}/v1/predict", json={"pclass": 3, "sex": "male"}, headers=trace).raise_for_status()
        yield url


@pytest.mark.parametrize("accept", TEXT)
def test_promtool_has_nothing_to_say_of_the_series(service: str, accept: str) -> None:
    series = httpx.get(f"{service}/metrics", headers={"Accept": accept}).content
    checked = subprocess.run([need("promtool"), "check", "metrics"], input=series, capture_output=True, timeout=60)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


@pytest.mark.slow
def test_a_prometheus_keeps_the_trace_of_a_latency(service: str, tmp_path: Path) -> None:
    address = service.removeprefix("http://")
    config = {
        "global": {"scrape_interval": "1s"},
        "scrape_configs": [{"job_name": "evenkeel", "static_configs": [{"targets": [address]}]}],
    }
    with prometheus_of(config, tmp_path, "--enable-feature=exemplar-storage") as prometheus:
        for series in ("evenkeel_http_request_seconds_bucket", "evenkeel_queue_seconds_bucket"):
            exemplars = wait(partial(_exemplars, prometheus, series), 30)
            assert TRACE_ID in [one["labels"]["trace_id"] for one in exemplars]


def _exemplars(prometheus: str, series: str) -> list[dict[str, Any]]:
    asked = {"query": series, "start": "2020-01-01T00:00:00Z", "end": "2100-01-01T00:00:00Z"}
    answer = httpx.get(f"{prometheus}/api/v1/query_exemplars", params=asked, timeout=30).json()
    assert answer["status"] == "success", answer
    return [exemplar for found in answer["data"] for exemplar in found["exemplars"]]
