"""schemathesis against a real service: whatever the document allows is answered as it says, and the rest refused.

    EVENKEEL_TEST_CASES=20000 ./run test tests/service/test_schema_fuzz.py

sends at least so many requests, other ones each time (the seed is printed); without it about two thousand, always the
same.
"""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from tests.conftest import ROOT
from tests.service.test_real import free_port, start, wait_ready

WANTED = os.environ.get("EVENKEEL_TEST_CASES")
CASES_PER_EXAMPLE = 10
"""Requests that one example per operation comes to, at least: there are valid and faulty ones, of two media types."""


@pytest.mark.slow
def test_no_request_is_answered_otherwise_than_the_document_says(bundle_folder: Path, tmp_path: Path) -> None:
    cases, port = int(WANTED or 1000), free_port()
    # Nobody reads what it writes until it ends, so it writes little: a full pipe would stop it.
    quiet = ["--grace-seconds", 0, "--log-requests", "none"]
    process = start("--bundle", bundle_folder, "--port", port, "--store", tmp_path / "s.sqlite", *quiet)
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    # Every check that there is, in all four phases: examples, coverage, fuzzing, stateful (by the document's links).
    flags = ["--checks", "all", "--max-examples", str(cases // CASES_PER_EXAMPLE), "--report", "json", "--no-color"]
    seed = [] if WANTED else ["--seed", "1"]
    where = ["--generation-database", "none", "--report-json-path", "report.json"]
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/schema/openapi.json", *flags, *seed, *where],
        cwd=tmp_path, capture_output=True, text=True, timeout=300 + cases, env={
            **os.environ, "SCHEMATHESIS_HOOKS": "tests.service.schema_fuzz", "PYTHONPATH": str(ROOT),
        },
    )  # fmt: skip
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    print(done.stdout[-1500:])
    assert done.returncode == 0, done.stdout + done.stderr
    report = msgspec.json.decode((tmp_path / "report.json").read_bytes())
    assert report["complete"]
    assert (report["failures"], report["errors"], report["test_cases"]["errored"]) == ([], [], 0)
    assert report["operations"]["tested"] == report["operations"]["total"]
    assert {phase["status"] for phase in report["phases"].values()} == {"success"}
    assert report["test_cases"]["generated"] >= cases
    assert "unexpected error" not in stderr
