"""The export, and the whole loop from a prediction to a training that reads it."""

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from service.store.databases import database
from service.store.export import Cells
from service.store.prediction_log import LabelledPrediction, LoggedPrediction
from tests import churn
from tests.conftest import ROOT
from tests.deploy.programs import free_port
from tests.service.store.commands import command, fill, label, read
from tests.service.store.test_store import where
from tests.service.test_app import ALLISON
from tests.service.test_real import start, wait_ready
from tests.titanic import COLUMNS, LABELS, SCHEMA
from training.data.table import Table, read_table

__all__ = ["where"]


def plain(rows: Sequence[Any]) -> list[dict[str, Any]]:
    """Rows of two tables of one schema are of types of their own."""
    return [msgspec.structs.asdict(row) for row in rows]


def test_wrong_use_is_exit_2_and_a_missing_store_is_not_made(tmp_path: Path) -> None:
    assert command("outcomes").returncode == 2
    assert command("export").returncode == 2
    assert command("export", tmp_path / "o.csv", "--since", "yesterday").returncode == 2
    (tmp_path / "in.csv").write_text("id,Survived\n")
    for arguments in (("export", tmp_path / "o.csv"), ("outcomes", "import", tmp_path / "in.csv")):
        done = command(*arguments, "--store", tmp_path / "s.sqlite")
        assert done.returncode == 1
        assert "there is no file" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_no_command_writes_over_the_store(tmp_path: Path) -> None:
    store, rejected = tmp_path / "s.rejected.csv", tmp_path / "s.csv"
    fill(str(store), [None])
    rejected.write_text("id,Survived\nnone,1\n")
    for arguments in (("export", store), ("outcomes", "import", rejected)):
        done = command(*arguments, "--store", store)
        assert done.returncode == 1
        assert "would overwrite" in done.stderr
    assert store.read_bytes().startswith(b"SQLite format 3")


def test_the_export_has_what_was_asked_for(where: str, tmp_path: Path) -> None:
    passenger = json.dumps({**ALLISON, "name": 'Ü, "Miss"\nB', "cabin": None})
    ids = fill(where, [passenger, None, "sha256:" + "0" * 64, passenger])
    label(where, (ids[0], "survived"), (ids[1], "died"))
    out = tmp_path / "out.csv"
    done = command("export", out, "--store", where)
    assert done.returncode == 0, done.stderr
    assert "4 predictions, 2 with an outcome" in done.stderr
    assert "2 of them without the passenger's fields" in done.stderr
    found = read(out)
    assert [row["id"] for row in found] == ids
    assert [row["Survived"] for row in found] == ["1", "0", "", ""]
    assert [row["row_sha256"] for row in found] == ["", "", "0" * 64, ""]
    assert found[0]["Name"] == 'Ü, "Miss"\nB'
    assert (found[0]["Pclass"], found[0]["Age"], found[0]["Cabin"], found[1]["Pclass"]) == ("1", "2.0", "", "")
    assert (found[0]["version"], found[0]["probability"], found[0]["uncalibrated_probability"]) == ("v1", "0.25", "0.5")
    command("export", out, "--store", where, "--labelled-only")
    assert [row["id"] for row in read(out)] == ids[:2]
    command("export", out, "--store", where, "--labelled-only", "--with-rows")
    assert [row["id"] for row in read(out)] == ids[:1]
    command("export", out, "--store", where, "--since", found[0]["time"])
    assert len(read(out)) == 4
    command("export", out, "--store", where, "--since", "2999-01-01")
    assert read(out) == []


def test_an_export_is_of_one_table(where: str, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    fill(where, [])
    passengers, customers = fill(where, [None] * 2), fill(where, [None] * 3, "c1", churn.SCHEMA)
    done = command("export", out, "--store", where)
    assert done.returncode == 1
    assert done.stderr == (
        "export: the store holds predictions of the tables churn, titanic: choose one with --table\n"
    )
    done = command("export", out, "--store", where, "--table", "wine")
    assert "no predictions of the table wine; there are: churn, titanic" in done.stderr
    assert not out.exists()
    assert command("export", out, "--store", where, "--table", "churn").returncode == 0
    assert [row["id"] for row in read(out)] == customers
    assert command("export", out, "--store", where, "--table", "titanic").returncode == 0
    assert [row["id"] for row in read(out)] == passengers


def test_before_any_prediction_there_is_no_table(where: str, tmp_path: Path) -> None:
    held = database(where)
    held.open()
    held.close()
    done = command("export", tmp_path / "out.csv", "--store", where)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "holds no predictions yet" in done.stderr


def test_why_nothing_has_fields_is_said(tmp_path: Path) -> None:
    store, out = str(tmp_path / "s.sqlite"), tmp_path / "out.csv"
    fill(store, ["", ""], "c1", churn.SCHEMA)
    done = command("export", out, "--store", store, "--with-rows")
    assert (done.returncode, read(out)) == (0, [])
    assert f"0 predictions, 0 with an outcome, to {out}\n" in done.stderr
    assert "2 others were kept without the customer's fields: serve with --store-inputs row" in done.stderr


def test_the_export_is_a_table_of_the_schema(tmp_path: Path) -> None:
    """Of another schema: what is read back is what was predicted, to the last bit, with its outcomes."""
    store, out, made = str(tmp_path / "s.sqlite"), tmp_path / "out.csv", churn.table(200)
    ids = fill(store, [msgspec.json.encode(row).decode() for row in made.rows], "c1", churn.SCHEMA)
    names = [churn.SCHEMA.classes[number] for number in made.labels]
    label(store, *zip(ids, names, strict=True))
    done = command("export", out, "--store", store, "--labelled-only", "--with-rows")
    assert done.stderr == f"export: 200 predictions, 200 with an outcome, to {out}\n"
    again = read_table(out, churn.SCHEMA)
    assert plain(again.rows) == plain(made.rows)
    assert again.labels.tolist() == made.labels.tolist()
    found = read(out)
    assert {row["Churned?"] for row in found} == {"No", "Yes"}
    assert {row["senior"] for row in found} == {"n", "y", ""}
    # The table has a field that is called probability: what was predicted is beside it under another name.
    assert [row["prediction_probability"] for row in found] == ["0.25"] * 200
    assert {row["probability"] for row in found} == {""}
    turned = msgspec.structs.replace(churn.SCHEMA.label, classes=churn.SCHEMA.label.classes[::-1])
    other = read_table(out, msgspec.structs.replace(churn.SCHEMA, label=turned))
    assert other.labels.tolist() == (1 - made.labels).tolist()


def test_what_a_field_or_a_class_was_called_before_stops_no_export() -> None:
    logged = LoggedPrediction("id", 0, "old", '{"city":"city 00","gone":1,"senior":true}', 0.5, 0.25)
    cells = Cells(churn.SCHEMA)
    found = dict(zip(cells.header, cells(LabelledPrediction(logged, "departs")), strict=True))
    assert (found["city"], found["senior"], found["Plan"], found["Churned?"]) == ("city 00", "y", None, "departs")


def test_the_loop_closes(bundle_folder: Path, table: Table, tmp_path: Path) -> None:
    """Predictions of a real service, their outcomes, an export, and the training's commands reading it."""
    store, out, port = tmp_path / "s.sqlite", tmp_path / "out.csv", free_port()
    flags = ("--store", store, "--store-inputs", "row", "--grace-seconds", 0)
    process = start("--bundle", bundle_folder, "--port", port, *flags)
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    given = [msgspec.to_builtins(row) for row in table.rows[:300]]
    predictions = httpx.post(f"{url}/v1/predict/batch", json={"rows": given}, timeout=60).json()["predictions"]
    names = [LABELS[number] for number in table.labels[:300]]
    body = {"outcomes": [{"id": one["id"], "outcome": name} for one, name in zip(predictions, names, strict=True)]}
    assert httpx.post(f"{url}/v1/outcomes", json=body).json()["counted"] == 300
    assert command("export", out, "--store", store, "--labelled-only").returncode == 0
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    again = read_table(out, SCHEMA)
    by_id = {row["id"]: row for row in read(out)}
    assert len(again) == 300
    for one, label_of_row, row in zip(predictions, table.labels, table.rows, strict=False):
        assert by_id[one["id"]]["Survived"] == str(label_of_row)
        assert float(by_id[one["id"]]["probability"]) == one["probability"]
        assert by_id[one["id"]]["Name"] == row.name
    assert set(COLUMNS.values()) < set(by_id[predictions[0]["id"]])
    evaluated = tmp_path / "evaluation.json"
    line = [sys.executable, "-m", "training", "evaluate", "--bundle", bundle_folder, "--data", out, "--json", evaluated]
    done = subprocess.run(list(map(str, line)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert '"rows": 300' in evaluated.read_text()


@pytest.mark.slow
def test_an_export_can_be_trained_on(table: Table, small_csv: Path, tmp_path: Path) -> None:
    store, out, bundle = str(tmp_path / "s.sqlite"), tmp_path / "out.csv", tmp_path / "bundle"
    count = len(read_table(small_csv, SCHEMA))
    ids = fill(store, [msgspec.json.encode(row).decode() for row in table.rows[:count]])
    label(store, *((id, LABELS[number]) for id, number in zip(ids, table.labels, strict=False)))
    assert command("export", out, "--store", store, "--labelled-only", "--with-rows").returncode == 0
    assert plain(read_table(out, SCHEMA).rows) == plain(table.rows[:count])
    flags = ("--data", out, "--folds", 3, "--seeds", 1, "--epochs", 1, "--quiet", "--out", bundle)
    line = [sys.executable, "-m", "training", "fit", *flags]
    done = subprocess.run(list(map(str, line)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (bundle / "manifest.json").exists()
