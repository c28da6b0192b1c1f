"""SloLimits decide: what exceeds one fails, and what was not measured does not pass."""

from pathlib import Path

import pytest

from loadtest.report.slo import check_slo, compare, read_limits, table
from loadtest.traffic.scenarios import SCENARIOS


def test_every_scenario_has_limits_and_none_allows_a_wrong_answer() -> None:
    for name in SCENARIOS:
        assert read_limits(name).wrong_answers == 0
    assert read_limits("reload").versions_seen == 2


def test_a_limit_that_is_exceeded_or_not_measured_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "slo.toml"
    path.write_text(
        "[default]\nerror_rate = 0.01\nwrong_answers = 0\n"
        "[steady]\nerror_rate = 0.1\nknee_rate = 20\npredict = { p50_ms = 10, p99_ms = 50 }\n"
    )
    measured = {"error_rate": 0.05, "wrong_answers": 1.0, "knee_rate": 25.0, "predict.p50_ms": 10.0}
    rows = {row.name: row.kept for row in check_slo(read_limits("steady", path), measured)}
    assert rows == {
        "error_rate": True, "wrong_answers": False, "knee_rate": True, "predict.p50_ms": True, "predict.p99_ms": False,
    }  # fmt: skip
    text = table(check_slo(read_limits("steady", path), measured))
    assert "predict.p99_ms" in text
    assert text.count("FAILED") == 2


def test_what_is_no_limit_is_named(tmp_path: Path) -> None:
    path = tmp_path / "slo.toml"
    path.write_text("[steady]\nerror_ratio = 0.1\n")
    with pytest.raises(ValueError, match=r"slo.toml, \[steady\].*error_ratio"):
        read_limits("steady", path)


def test_latencies_are_compared_with_a_baseline_by_ratio() -> None:
    before = {"predict.p50_ms": 10.0, "predict.p99_ms": 20.0, "batch.p50_ms": 5.0, "error_rate": 0.1}
    rows = compare({"predict.p50_ms": 16.0, "predict.p99_ms": 20.0, "error_rate": 1.0}, before, 1.5)
    assert {row.name: (row.measured, row.kept) for row in rows} == {
        "predict.p50_ms / baseline": (1.6, False), "predict.p99_ms / baseline": (1.0, True),
    }  # fmt: skip
