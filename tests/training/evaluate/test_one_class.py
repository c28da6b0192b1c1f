"""Rows of one class only: what cannot be said of them is null, with the reason, wherever it is shown."""

import json
import re
from pathlib import Path

import pytest

from models.bundle.read import Bundle
from tests.conftest import TITANIC
from tests.training.commands import run_here
from training.data.source import DataError
from training.promote.eligibility import read_for_both


def survivors(path: Path) -> Path:
    header, *lines = TITANIC.read_text().splitlines(keepends=True)
    path.write_text("".join([header, *[line for line in lines if line.split(",")[1] == "1"][:50]]))
    return path


def test_what_needs_two_classes_is_null_with_its_reason(tiny_bundle: Bundle, tmp_path: Path) -> None:
    data, page = survivors(tmp_path / "rows.csv"), tmp_path / "report.html"
    written = ("--json", tmp_path / "e.json", "--report", page, "--plots", tmp_path / "plots")
    done = run_here("evaluate", "--bundle", tiny_bundle.folder, "--data", data, *written)
    assert done.returncode == 0, done.stderr
    evaluation = json.loads((tmp_path / "e.json").read_bytes())
    for side in ("calibrated", "raw"):
        scores = evaluation[side]
        assert (scores["auc"]["value"], scores["auc"]["reason"]) == (None, "the rows are all of one class")
        assert (scores["recall"]["died"]["value"], scores["recall"]["died"]["reason"]) == (None, "no rows")
        assert "reason" not in scores["recall"]["survived"]
        assert 0 <= scores["accuracy"]["value"] <= 1
    assert evaluation["sets"]["by_class"]["died"]["reason"] == "no rows"
    shown = [done.stdout, page.read_text(), *(one.read_text() for one in (tmp_path / "plots").iterdir())]
    assert "the rows are all of one class" in page.read_text()
    for text in shown:
        assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_such_rows_decide_no_promotion(tiny_bundle: Bundle, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="all of 'survived': rows of two classes at least are needed"):
        read_for_both(survivors(tmp_path / "rows.csv"), tiny_bundle, tiny_bundle)
