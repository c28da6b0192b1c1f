"""The end of a run: what is written, what is said, and who is to blame."""

import json
import math
import re
from pathlib import Path

import pytest

from loadtest.report import conclusion
from loadtest.report.recording import Recording
from loadtest.report.server_series import Scrape, parse, windows
from loadtest.traffic.scenarios import Stage

SERIES = """# HELP evenkeel_queue_rows Rows waiting
evenkeel_queue_rows 3.0
evenkeel_inference_seconds_bucket{le="0.001"} 0.0
evenkeel_inference_seconds_count 10.0
evenkeel_inference_seconds_sum 0.2
evenkeel_batch_rows_sum 25.0
evenkeel_predictions_total{outcome="died",version="v1"} 20.0
evenkeel_predictions_total{outcome="survived",version="v1"} 5.0
evenkeel_cache_lookups_total{result="hit"} 5.0
evenkeel_cache_lookups_total{result="miss"} 15.0
evenkeel_http_request_seconds_sum{method="POST",route="/v1/predict"} 0.5
evenkeel_http_request_seconds_count{method="POST",route="/v1/predict"} 10.0
evenkeel_http_request_seconds_sum{method="GET",route="/metrics"} 9.0
process_resident_memory_bytes 1.5e+08
evenkeel_model_info{engine="onnx",parallel="2",reason="no parallel=\\"9\\"",threads="4"} 1.0
"""


def recorded(seconds: int = 20, fault: str = "") -> Recording:
    recording = Recording()
    for second in range(seconds):
        for place in range(10):
            due = second + place / 10
            recording.add("predict", due, due + 0.029, "ok", status=200, rows=1, version="v1", sent=due + 0.001,
                          timing=(4.0, 20.0))  # fmt: skip
    if fault:
        recording.add("batch", 1.0, 1.2, "wrong", status=200, rows=8, fault=fault)
    recording.cpu["here-1"] = [0.1] * seconds
    recording.late_ms.add(0.5)
    return recording


def scraped(seconds: int = 20, workers: int = 1) -> list[Scrape]:
    return [
        Scrape(second, queue_seconds=0.04 * second, queued=10 * second, inference_seconds=0.2 * second,
               inferences=10.0 * second, rows=10.0 * second, http_seconds=0.27 * second, http=10 * second,
               hits=0, misses=10 * second, memory_bytes=1e8, workers=workers)
        for second in range(seconds + 1)
    ]  # fmt: skip


def said(scenario: str = "steady") -> conclusion.RunInfo:
    return conclusion.RunInfo(scenario=scenario, host="http://127.0.0.1:1", started="now", seconds=20,
                        arrivals="open model, 10 requests/s, poisson", load_average=(0.5, 0.6))  # fmt: skip


def test_series_are_read_and_differences_told() -> None:
    scrape = parse(SERIES, 1.0)
    assert (scrape.queue_rows, scrape.inferences, scrape.rows, scrape.predictions) == (3, 10, 25, 25)
    assert (scrape.hits, scrape.misses, scrape.http_seconds) == (5, 15, 0.5)
    before, after = scraped()[3:5]
    (found,) = windows([before, after])
    assert (found.batch_rows, found.hit_share) == (1, 0)
    assert (found.inference_ms, found.queue_ms) == pytest.approx((20, 4))
    assert math.isnan(windows([before, Scrape(9, inferences=before.inferences)])[0].inference_ms)
    assert windows([after, before]) == []


def test_inference_threads_are_read_and_share_the_time() -> None:
    assert parse(SERIES, 1.0).workers == 2
    older = SERIES.replace('parallel="2",', "")
    assert parse(older, 1.0).workers == parse("evenkeel_model_info 1.0\n", 1.0).workers == 1
    shares = [window.busy_share for workers in (1, 2) for window in windows(scraped(1, workers))]
    assert shares == pytest.approx([0.2, 0.1])


def test_a_good_run_passes_and_leaves_one_page_that_needs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = conclusion.conclude(said(), recorded(), scraped(), results=str(tmp_path))
    assert summary.passed
    assert "PASSED" in capsys.readouterr().out
    assert {one.name for one in tmp_path.iterdir()} == {"report.html", "summary.json", "percentiles.csv"}
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 6
    assert not re.search(r"https?://(?!127\.0\.0\.1)|<script|<link|@import|url\(", page)
    assert json.loads((tmp_path / "summary.json").read_text())["answers_checked"] == 200
    assert (tmp_path / "percentiles.csv").read_text().splitlines()[1].startswith("predict,200,200,2")


def test_the_time_of_a_prediction_is_told_apart(tmp_path: Path) -> None:
    told = conclusion.summarise(said(), recorded(), scraped()).time_ms
    assert sum(told.values()) == pytest.approx(29)
    assert told["queue"] == pytest.approx(4)
    assert told["inference"] == pytest.approx(20)
    assert told["service's event loop"] == pytest.approx(3)


def test_one_wrong_answer_fails_the_run_whatever_the_limits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    limits = tmp_path / "slo.toml"
    limits.write_text("[steady]\nwrong_answers = 5\n")
    summary = conclusion.conclude(said(), recorded(fault="<b>no</b>"), scraped(), results=str(tmp_path), limits=limits)
    assert not summary.passed
    assert "fault: batch: <b>no</b>" in capsys.readouterr().out
    assert "<b>no" not in (tmp_path / "report.html").read_text()


def test_a_slower_run_than_the_baseline_fails(tmp_path: Path) -> None:
    conclusion.conclude(said(), recorded(), scraped(), results=str(tmp_path))
    before = json.loads((tmp_path / "summary.json").read_text())
    before["measured"]["predict.p99_ms"] /= 2
    (tmp_path / "before.json").write_text(json.dumps(before))
    summary = conclusion.conclude(
        said(), recorded(), scraped(), results=str(tmp_path), baseline=str(tmp_path / "before.json")
    )
    assert [row.name for row in summary.verdict if not row.kept] == ["predict.p99_ms / baseline"]


def test_a_generator_that_was_too_busy_or_too_late_says_so() -> None:
    busy, late = recorded(), recorded()
    busy.cpu["here-1"] = [0.97] * 20
    for _ in range(100):
        late.late_ms.add(80.0)
    assert conclusion.summarise(said(), recorded(), scraped()).generator.bottleneck == ""
    assert "97% of a core" in conclusion.summarise(said(), busy, scraped()).generator.bottleneck
    assert "late" in conclusion.summarise(said(), late, scraped()).generator.bottleneck


def test_a_ramp_is_fitted_and_checked_at_other_rates(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = said("ramp")
    told.knee, told.stages = 40.0, [Stage(0, 10, 10.0), Stage(10, 20, 10.0, fitted=False)]
    limits = tmp_path / "slo.toml"
    limits.write_text("[ramp]\nknee_rate = 20\n")
    summary = conclusion.conclude(told, recorded(), scraped(workers=2), results=str(tmp_path), limits=limits)
    assert summary.passed
    assert summary.model is not None
    assert summary.model.workers == json.loads((tmp_path / "summary.json").read_text())["model"]["workers"] == 2
    assert summary.model.service_ms(1) == pytest.approx(20)
    (check,) = summary.checks
    assert check.throughput == pytest.approx(10)
    assert "predicted" in capsys.readouterr().out
