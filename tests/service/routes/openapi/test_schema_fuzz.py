"""schemathesis against a real service: whatever the document allows is answered as it says, and the rest refused.

    EVENKEEL_TEST_CASES=20000 ./run test tests/service/routes/openapi/test_schema_fuzz.py

sends at least so many requests, other ones each time (the seed is printed); without it about two thousand, always the
same.
"""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import msgspec
import pytest

from service.http.keys import SCOPES, new_key, write_keys
from tests.conftest import ROOT
from tests.deploy.programs import free_port
from tests.service.test_real import start, wait_ready

WANTED = os.environ.get("EVENKEEL_TEST_CASES")
ENDLESS = "/v1/drift/events"
CONFIGURATION = """
[auth.openapi.key]
api_key = "{key}"

[checks]
enabled = true

# A stream answers each line by itself, so no line is a reason to refuse all (as_many_lines_are_answered_as_are_sent).
[[operations]]
include-operation-id = "predictStream"
checks.negative_data_rejection.enabled = false

# Which tensors go together no schema can say: of those that it allows few are rows.
[[operations]]
include-operation-id = ["oipInfer", "oipInferOfVersion"]
checks.positive_data_acceptance.enabled = false
"""
CASES_PER_EXAMPLE = 10
"""Requests that one example per operation comes to, at least: there are valid and faulty ones, of two media types."""


@pytest.mark.slow
def test_no_request_is_answered_otherwise_than_the_document_says(bundle_folder: Path, tmp_path: Path) -> None:
    cases, port = int(WANTED or 1000), free_port()
    # Nobody reads what it writes until it ends, so it writes little: a full pipe would stop it.
    quiet = ["--grace-seconds", 0, "--log-requests", "none"]
    key, entry = new_key("fuzz", SCOPES)
    write_keys(tmp_path / "keys.json", [entry])
    kept = ["--store", tmp_path / "s.sqlite", "--keys", tmp_path / "keys.json"]
    process = start("--bundle", bundle_folder, "--port", port, *kept, *quiet)
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    served = httpx.get(f"{url}/v1/model", headers={"X-API-Key": key}).json()
    # Every check that there is, in all four phases: examples, coverage, fuzzing, stateful (by the document's links).
    flags = ["--max-examples", str(cases // CASES_PER_EXAMPLE), "--report", "json", "--no-color"]
    seed = [] if WANTED else ["--seed", "1"]
    where = ["--generation-database", "none", "--report-json-path", "report.json", "--exclude-path", ENDLESS]
    (tmp_path / "schemathesis.toml").write_text(CONFIGURATION.format(key=key))
    done = subprocess.run(
        [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/schema/openapi.json", *flags, *seed, *where],
        cwd=tmp_path, capture_output=True, text=True, timeout=300 + cases, env={
            **os.environ, "SCHEMATHESIS_HOOKS": "tests.service.routes.openapi.schema_fuzz", "PYTHONPATH": str(ROOT),
            "EVENKEEL_TEST_MODEL": f"{served['name']} {served['version']}",
        },
    )  # fmt: skip
    process.terminate()
    _, stderr = process.communicate(timeout=30)
    print(done.stdout[-1500:])
    assert done.returncode == 0, done.stdout + done.stderr
    report = msgspec.json.decode((tmp_path / "report.json").read_bytes())
    assert report["complete"]
    assert (report["failures"], report["errors"], report["test_cases"]["errored"]) == ([], [], 0)
    assert report["operations"]["tested"] == report["operations"]["total"] - 1  # all but the endless
    assert {phase["status"] for phase in report["phases"].values()} == {"success"}
    assert report["test_cases"]["generated"] >= cases
    assert "unexpected error" not in stderr
