"""/metrics in each format: what was asked for, read by the parser of that format, with exemplars where it has them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from litestar.testing import TestClient
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families as text_families

from models.bundle.read import Bundle
from tests.service.test_app import serving

OPENMETRICS = "application/openmetrics-text"
OLD_TEXT = "text/plain; version=0.0.4; charset=utf-8"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PROMETHEUS_2 = (
    f"{OPENMETRICS};version=1.0.0,{OPENMETRICS};version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    f"{OPENMETRICS};version=1.0.0;escaping=allow-utf-8;q=0.6,{OPENMETRICS};version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""What these send."""
Families = Callable[[str], Iterator[Metric]]


@pytest.fixture(scope="module")
def asked(tiny_bundle: Bundle) -> Iterator[TestClient[Any]]:
    """A client of a service that has answered one prediction of a known trace."""
    with serving(tiny_bundle) as client:
        trace = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}
        assert client.post("/v1/predict", json={"pclass": 3, "sex": "male"}, headers=trace).status_code == 200
        yield client


@pytest.mark.parametrize(
    ("accept", "content_type", "families"),
    [
        ("", OLD_TEXT, text_families),
        ("*/*", OLD_TEXT, text_families),
        ("text/plain;version=0.0.4", OLD_TEXT, text_families),
        ("text/plain;version=1.0.0", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores", text_families),
        (OPENMETRICS, f"{OPENMETRICS}; version=1.0.0; charset=utf-8", openmetrics_families),
        (PROMETHEUS_2, f"{OPENMETRICS}; version=1.0.0; charset=utf-8; escaping=underscores", openmetrics_families),
        (PROMETHEUS_3, f"{OPENMETRICS}; version=1.0.0; charset=utf-8; escaping=allow-utf-8", openmetrics_families),
        (f"{OPENMETRICS};q=0.1, text/plain", OLD_TEXT, text_families),
        (f"{OPENMETRICS};q=0, text/plain;q=0.1", OLD_TEXT, text_families),
        (f"{OPENMETRICS};version=x", OLD_TEXT, text_families),
    ],
)
def test_the_series_are_in_the_format_asked_for(
    asked: TestClient[Any], accept: str, content_type: str, families: Families
) -> None:
    answer = asked.get("/metrics", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, content_type)
    assert "Accept" in answer.headers["Vary"]
    assert answer.text.endswith("\n# EOF\n") == (families is openmetrics_families)
    names = {family.name for family in families(answer.text)}
    assert {"evenkeel_predictions", "evenkeel_http_request_seconds", "process_open_fds"} <= {
        name.removesuffix("_total") for name in names
    }


def test_openmetrics_leads_from_a_latency_to_the_trace_that_took_it(asked: TestClient[Any]) -> None:
    found = {
        sample.labels.get("route", ""): sample.exemplar
        for family in openmetrics_families(asked.get("/metrics", headers={"Accept": OPENMETRICS}).text)
        for sample in family.samples
        if sample.exemplar is not None and sample.exemplar.labels == {"trace_id": TRACE_ID}
    }
    # The request's own time, and its wait.
    assert set(found) == {"/v1/predict", ""}
    assert all(0 <= exemplar.value < 30 for exemplar in found.values())
    assert TRACE_ID not in asked.get("/metrics").text


def test_openmetrics_is_compressed_for_whoever_takes_it(asked: TestClient[Any]) -> None:
    answer = asked.get("/metrics", headers={"Accept": OPENMETRICS, "Accept-Encoding": "gzip"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert answer.text.endswith("# EOF\n")
