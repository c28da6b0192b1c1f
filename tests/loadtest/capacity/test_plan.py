"""The planner's arithmetic against sums by hand, and its command."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import msgspec
import pytest

from loadtest.capacity.model import CapacityModel, EmpiricalDistribution
from loadtest.capacity.plan import Plan, Replica, plan, replica_rate, scraped, table
from tests.conftest import ROOT

REPLICA = Replica(rate=500, cores=2, mib=512, scrape_bytes=60_000, scrape_series=600)


def test_ten_thousand_requests_by_hand() -> None:
    assert plan(10_000, REPLICA, 15) == Plan(
        rate=10_000, replicas=20, cores=40, gib=10, core_seconds_per_million=4000, series=12_000,
        samples_per_second=800, scrape_bytes_per_second=80_000, log_rows_per_day=864_000_000,
        replica_rows_per_day=43_200_000,
    )  # fmt: skip
    assert plan(10_001, REPLICA, 15).replicas == 21
    assert plan(1, REPLICA, 15).replicas == 1
    # A rate that is a whole number of replicas' but for rounding takes no replica more.
    assert plan(0.3, msgspec.structs.replace(REPLICA, rate=0.1), 15).replicas == 3


def test_cost_and_alarms_by_hand() -> None:
    text = table(plan(10_000, REPLICA, 15), 0.05, 3000, 1e7)
    lines = {line[:20].strip() or "any": line for line in text.splitlines()}
    # 40 cores × 0.05 = 2 an hour, in which 36 million predictions are made.
    assert "2.00 an hour" in lines["cost"]
    assert "0.0556 a million" in lines["cost"]
    assert " 4 " in lines["databases"]
    # 10⁷ rows of a replica at 500 a second are 20,000 seconds; of all replicas 1,000.
    assert "5.6 hours" in lines["false drift alarms"]
    assert "16.7 min" in lines["any"]
    assert "cost" not in table(plan(10_000, REPLICA, 15), None, None, 1e7)


def test_a_ramps_model_gives_the_rate_of_a_replica() -> None:
    model = CapacityModel(10.0, 1.0, 64, EmpiricalDistribution([1.0], [1]), EmpiricalDistribution([0.0], [1]))
    rate = replica_rate(model, 5000.0, 60.0)
    assert rate is not None
    assert rate < model.max_rate
    assert plan(5000.0, Replica(rate=rate), 15).replicas == round(5000 / rate)
    assert replica_rate(model, 10.0, 5.0) is None


class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b'# HELP a b\n# TYPE a counter\na 1\na_total{x="y"} 2\n'
        self.send_response(200 if self.path == "/metrics" else 404)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_a_scrape_is_measured() -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Metrics) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert scraped(f"http://127.0.0.1:{server.server_port}/") == (49, 2)
        server.shutdown()


def command(*flags: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "loadtest", "plan", *map(str, flags)], cwd=ROOT, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip


def test_the_command_plans_by_a_rate_and_by_a_ramp(tmp_path: Path) -> None:
    done = command("--requests-per-second", "1e6", "--replica-rate", 500, "--core-hour", 0.04)
    assert done.returncode == 0, done.stderr
    assert "2,000" in done.stdout
    model = CapacityModel(10.0, 1.0, 64, EmpiricalDistribution([1.0], [1]), EmpiricalDistribution([0.0], [1]), 2)
    (tmp_path / "summary.json").write_text(json.dumps({"model": msgspec.to_builtins(model)}))
    found = command("--requests-per-second", 5000, "--p99", 60, "--model", tmp_path / "summary.json")
    assert found.returncode == 0, found.stderr
    assert "an inference takes 10.00 ms and 1.00 ms a row, 2 at a time" in found.stdout
    assert command("--requests-per-second", 9, "--p99", 5, "--model", tmp_path / "summary.json").returncode == 1


@pytest.mark.parametrize(
    ("flags", "code", "message"),
    [
        (("--requests-per-second", "0", "--replica-rate", 5), 2, "0 must be a number above 0"),
        (("--requests-per-second", 5), 2, "give either --replica-rate or --p99"),
        (("--requests-per-second", 5, "--p99", 5, "--model", "none"), 2, "./run load --scenario ramp makes one"),
        (
            ("--requests-per-second", 5, "--replica-rate", 5, "--host", "http://127.0.0.1:1"),
            1, "http://127.0.0.1:1 gives no metrics",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_planned_is_told(flags: tuple[object, ...], code: int, message: str) -> None:
    done = command(*flags)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
