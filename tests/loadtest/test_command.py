"""./run load from end to end, in the load environment: a service of its own, a verdict that is right both ways."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.http.keys import new_key, write_keys
from tests.conftest import ROOT
from tests.deploy.programs import need_environment

LIMITS = "[default]\nerror_rate = 0.0\nrefused_share = 0.0\nwrong_answers = 0\n"


def python() -> Path:
    return need_environment("load")


def load(folder: Path, *flags: object) -> tuple[subprocess.CompletedProcess[str], Any]:
    """Runs it without limits on time, which are the machine's; its outcome, and its summary."""
    (folder / "slo.toml").write_text(LIMITS)
    command = [python(), "-m", "loadtest", "--limits", folder / "slo.toml", "--results", folder / "results"]
    done = subprocess.run(
        [str(one) for one in (*command, *flags)], cwd=ROOT, capture_output=True, text=True, timeout=180,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
    )  # fmt: skip
    path = folder / "results" / "summary.json"
    return done, json.loads(path.read_text()) if path.exists() else None


@pytest.mark.slow
def test_a_smoke_run_starts_a_service_checks_every_answer_and_passes(bundle_folder: Path, tmp_path: Path) -> None:
    done, summary = load(tmp_path, "--bundle", bundle_folder, "--texts", 64, "--time", "6s", "--workers", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASSED" in done.stdout
    assert summary["passed"]
    assert summary["answers_checked"] > 20
    assert summary["generator"]["processes"] == 2
    page = (tmp_path / "results" / "report.html").read_text()
    assert "Where the time of a single prediction went" in page


@pytest.mark.slow
def test_a_service_with_other_probabilities_fails_the_run(bundle_folder: Path, tmp_path: Path) -> None:
    flags = ("--bundle", bundle_folder, "--texts", 64, "--time", "3s", "--service", "--target-prevalence 0.1")
    files = ("--csv", tmp_path / "c", "--csv-full-history", "--json-file", tmp_path / "j.json")
    done, summary = load(tmp_path, *flags, *files, "--users", 2, "--think", "0.2")
    # Locust's own files, beside ours.
    assert len((tmp_path / "c_stats_history.csv").read_text().splitlines()) > 3
    assert {one["name"] for one in json.loads((tmp_path / "j.json").read_bytes())} >= {"predict"}
    assert done.returncode == 1, done.stdout + done.stderr
    assert summary["measured"]["wrong_answers"] > 0
    assert "but this row's are" in done.stdout


@pytest.mark.slow
def test_reloads_during_a_run_are_seen_and_fail_nothing(bundle_folder: Path, tmp_path: Path) -> None:
    done, summary = load(tmp_path, "--scenario", "reload", "--bundle", bundle_folder, "--texts", 64, "--time", "12s")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(summary["versions"]) == 2


@pytest.mark.slow
def test_a_service_with_keys_is_loaded_with_one_from_a_file(bundle_folder: Path, tmp_path: Path) -> None:
    key, entry = new_key("load", ["predict", "outcomes", "metrics"])
    write_keys(tmp_path / "keys.json", [entry])
    (tmp_path / "load.key").write_text(f"{key}\n")
    (tmp_path / "wrong.key").write_text("ek_01234567_wrong")
    flags = ("--bundle", bundle_folder, "--texts", 64, "--time", "4s", "--service", f"--keys {tmp_path / 'keys.json'}")
    done, summary = load(tmp_path, *flags, "--key-file", tmp_path / "load.key", "--workers", 2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert summary["answers_checked"] > 20
    for path in (tmp_path / "results").iterdir():
        assert key not in path.read_text()
    assert key not in done.stdout + done.stderr
    for file, reason in ((None, "needs an API key: --key-file"), ("wrong.key", "does not accept the key in")):
        done, _ = load(tmp_path, *flags, *(("--key-file", tmp_path / file) if file else ()))
        assert done.returncode == 2, done.stdout + done.stderr
        assert reason in done.stderr
    done, _ = load(tmp_path, "--bundle", bundle_folder, "--key-file", tmp_path / "none.key")
    assert done.returncode == 2
    assert "none.key of the key cannot be read" in done.stderr


def test_what_cannot_be_done_is_told(tmp_path: Path) -> None:
    done, _ = load(tmp_path, "--bundle", tmp_path / "none")
    assert done.returncode == 2
    assert "is no bundle" in done.stderr
    done = subprocess.run(
        [python(), "-m", "loadtest", "capacity", "--target-rate", "10", "--p99", "50", "--model", tmp_path / "none"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert "./run load --scenario ramp makes one" in done.stderr


@pytest.mark.slow
def test_another_machine_and_a_host_that_is_away_are_refused(bundle_folder: Path, tmp_path: Path) -> None:
    for host, reason in (("http://192.0.2.1:80", "is not this machine"), ("http://127.0.0.1:1", "does not answer")):
        done, summary = load(tmp_path, "--bundle", bundle_folder, "--texts", 64, "--host", host)
        assert (done.returncode, summary) == (2, None)
        assert reason in done.stderr


@pytest.mark.slow
def test_ctrl_c_ends_it_with_what_was_seen_and_no_verdict(bundle_folder: Path, tmp_path: Path) -> None:
    command = [python(), "-m", "loadtest", "--results", tmp_path / "results", "--bundle", bundle_folder]
    started = subprocess.Popen(
        [str(one) for one in (*command, "--texts", 64, "--time", "60s")], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        # A shell that puts a command into the background has it ignore Ctrl-C; this one is in the foreground.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert started.stdout is not None
    said = started.stdout.readline()
    while "for this run" not in said:
        assert started.poll() is None, said
        said += started.stdout.readline()
    url = said.split("load: http://")[1].split()[0]
    while not re.search(r'requests_total{.*route="/v1/predict".* [1-9]', httpx.get(f"http://{url}/metrics").text):
        assert started.poll() is None
        time.sleep(0.2)
    os.killpg(started.pid, signal.SIGINT)
    said += started.communicate(timeout=60)[0]
    assert started.returncode == 1, said
    assert "STOPPED before its end: no verdict" in said
    assert "Traceback" not in said
    summary = json.loads((tmp_path / "results" / "summary.json").read_text())
    assert not summary["complete"]
    assert not summary["passed"]
    assert 0 < summary["seconds"] < 40
