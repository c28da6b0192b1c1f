"""The store's commands in processes of their own, and stores that are filled for them."""

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from models.schema import Schema
from service.store.databases import database
from service.store.prediction_log import LoggedPrediction, PredictionLog, time_ms_of
from service.uuid7 import uuid7
from tests.conftest import ROOT
from tests.titanic import SCHEMA


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", "-m", "service", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill(where: str, inputs: Sequence[str | None], version: str = "v1", schema: Schema = SCHEMA) -> list[str]:
    """Log predictions of a version, of which so much of the row is kept; their ids."""
    held = database(where)
    held.open()
    ids = sorted(uuid7() for _ in inputs)
    log = PredictionLog(held)
    log.see_versions({version: schema}, 0)
    log.insert(
        [LoggedPrediction(id, time_ms_of(id), version, one, 0.5, 0.25) for id, one in zip(ids, inputs, strict=True)]
    )
    held.close()
    return ids


def label(where: str, *outcomes: tuple[str, str]) -> None:
    held = database(where, create=False)
    held.open()
    PredictionLog(held).label(outcomes)
    held.close()
