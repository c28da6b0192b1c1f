"""A bundle whose alarms mean something: its reference is what it would predict itself."""

from pathlib import Path

import httpx
import msgspec
import numpy as np
import pytest

from loadtest.traffic.rows import read_labelled
from models.bundle.read import read_bundle
from models.bundle.write import write_bundle
from models.reference import build_reference
from tests.deploy.programs import running_service
from tests.titanic import DATA, ROWS, SCHEMA

LABELLED = read_labelled(SCHEMA, DATA, 240)
"""The tests' bundle is made from these of the passengers; the later ones are another mix than its reference."""


@pytest.fixture(scope="session")
def settled_bundle(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tests' bundle with another reference. Trained on so few rows for so short a time, the finished model predicts
    otherwise than the held-out models that its reference is of, and the prediction stream would rightly say so."""
    folder = tmp_path_factory.mktemp("settled")
    rows = [row for row, _ in LABELLED]
    with running_service(bundle_folder, folder) as service:
        answer = httpx.post(f"{service}/v1/predict/batch", json={"rows": rows}, timeout=120).raise_for_status()
    probabilities = np.array([one["probability"] for one in answer.json()["predictions"]])
    reference = build_reference(probabilities, ROWS.check(rows), SCHEMA)
    contents: dict[str, bytes | Path] = {
        file.name: file for file in bundle_folder.iterdir() if file.is_file() and file.name != "manifest.json"
    }
    contents["reference.json"] = msgspec.json.encode(reference)
    return write_bundle(folder / "titanic", contents, read_bundle(bundle_folder).manifest.origin).folder
