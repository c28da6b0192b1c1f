"""POST /v1/outcomes, the import and the export, and the whole loop from a prediction to a training that reads it."""

import csv
import json
import math
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from litestar.testing import TestClient
from models.passenger import COLUMNS

from models.bundle.read import Bundle
from service.settings import Settings
from service.store.databases import database
from service.store.prediction_log import LoggedPrediction, PredictionLog, time_ms_of
from service.uuid7 import uuid7
from tests.conftest import ROOT
from tests.deploy.programs import free_port
from tests.service.serving import make_app
from tests.service.store.test_store import rows, wait_until, where
from tests.service.test_app import ALLISON, Deterministic, problem, samples
from tests.service.test_real import start, wait_ready
from training.data.table import Table, read_table

__all__ = ["where"]


@contextmanager
def serving(bundle: Bundle, store: str, **options: Any) -> Iterator[TestClient[Any]]:
    settings = Settings(timeout_seconds=10, store=store, store_inputs="passenger", **options)
    app = make_app(settings, lambda _: Deterministic(bundle))
    with TestClient(app, raise_server_exceptions=False) as client:
        wait_until(lambda: client.get("/health/ready").status_code == 200)
        yield client


@pytest.fixture
def client(tiny_bundle: Bundle, where: str) -> Iterator[TestClient[Any]]:
    with serving(tiny_bundle, where) as client:
        yield client


def predict(client: Any, count: int = 1) -> list[dict[str, Any]]:
    passengers = [{**ALLISON, "age": float(n % 60)} for n in range(count)]
    found: list[dict[str, Any]] = client.post("/v1/predict/batch", json={"passengers": passengers}).json()[
        "predictions"
    ]
    return found


def send(client: Any, *outcomes: tuple[str, bool]) -> Any:
    return client.post("/v1/outcomes", json={"outcomes": [{"id": id, "survived": s} for id, s in outcomes]})


def test_each_outcome_is_answered(client: TestClient[Any]) -> None:
    a, b, c = (one["id"] for one in predict(client, 3))
    missing = uuid7()
    response = send(client, (a, True), (b, False), (missing, True), (a, True), (b, True))
    assert response.status_code == 200
    assert response.json() == {"counted": 2, "repeated": 1, "unknown": [missing], "conflicting": [b]}
    assert send(client, (a, True), (c.upper(), False)).json() == {
        "counted": 1, "repeated": 1, "unknown": [], "conflicting": [],
    }  # fmt: skip


def test_one_prediction_alone_and_message_pack(client: TestClient[Any]) -> None:
    id = client.post("/v1/predict", json=ALLISON).json()["id"]
    headers = {"Content-Type": "application/msgpack", "Accept": "application/msgpack"}
    body = msgspec.msgpack.encode({"outcomes": [{"id": id, "survived": True}]})
    response = client.post("/v1/outcomes", content=body, headers=headers)
    assert msgspec.msgpack.decode(response.content)["counted"] == 1


def test_the_counters_are_those_of_the_definitions(client: TestClient[Any], tiny_bundle: Bundle) -> None:
    version = ("version", tiny_bundle.version)
    before = samples(client)
    cells = [labels for name, labels in before if name == "evenkeel_outcomes_total"]
    assert len(cells) == 20
    assert all(before["evenkeel_outcomes_total", labels] == 0 for labels in cells)
    predictions = predict(client, 60)
    fates = {one["id"]: n % 3 == 0 for n, one in enumerate(predictions)}
    for _ in range(2):
        send(client, *fates.items())
    send(client, *((id, not fate) for id, fate in fates.items()), ("nobody", True))
    found = samples(client)
    for low in range(10):
        for fate in (False, True):
            labels = frozenset(
                {version, ("bin", f"{low / 10:.1f}-{(low + 1) / 10:.1f}"), ("survived", str(fate).lower())}
            )
            expected = sum(
                fates[one["id"]] == fate and low / 10 <= one["probability"] < (low + 1) / 10 for one in predictions
            )
            assert found["evenkeel_outcomes_total", labels] == expected
    losses = [-math.log(one["probability"] if fates[one["id"]] else 1 - one["probability"]) for one in predictions]
    errors = [(one["probability"] - fates[one["id"]]) ** 2 for one in predictions]
    assert found["evenkeel_outcome_log_loss_sum_total", frozenset({version})] == pytest.approx(sum(losses))
    assert found["evenkeel_outcome_brier_sum_total", frozenset({version})] == pytest.approx(sum(errors))
    for result, count in {"counted": 60, "repeated": 60, "conflicting": 60, "unknown": 1}.items():
        assert found["evenkeel_outcomes_received_total", frozenset({("result", result)})] == count
    assert found["evenkeel_store_up", frozenset()] == 1
    for reason in ("queue_full", "refused", "stopped"):
        assert found["evenkeel_store_dropped_total", frozenset({("reason", reason)})] == 0


def test_after_a_restart_with_another_bundle_old_predictions_count_for_their_version(
    tiny_bundle: Bundle, where: str
) -> None:
    with serving(tiny_bundle, where) as client:
        (one,) = predict(client)
    successor = msgspec.structs.replace(tiny_bundle, version="0" * 12)
    with serving(successor, where) as client:
        predict(client)
        wait_until(lambda: sum(name == "evenkeel_outcomes_total" for name, _ in samples(client)) == 40)
        assert send(client, (one["id"], True)).json()["counted"] == 1
        found = samples(client)
        assert found["evenkeel_outcome_brier_sum_total", frozenset({("version", tiny_bundle.version)})] > 0
        assert found["evenkeel_outcome_brier_sum_total", frozenset({("version", "0" * 12)})] == 0


@pytest.mark.parametrize(
    ("body", "pointers"),
    [
        ({}, ["/outcomes"]),
        ({"outcomes": []}, ["/outcomes"]),
        ({"outcomes": [{"id": "x", "survived": True}] * 1025}, ["/outcomes"]),
        ({"outcomes": [{"id": "x"}]}, ["/outcomes/0/survived"]),
        ({"outcomes": [{"id": "x", "survived": 1}]}, ["/outcomes/0/survived"]),
        ({"outcomes": [{"id": "x", "survived": "true"}]}, ["/outcomes/0/survived"]),
        ({"outcomes": [{"id": "x", "survived": None}]}, ["/outcomes/0/survived"]),
        ({"outcomes": [{"id": 3, "survived": True}]}, ["/outcomes/0/id"]),
        ({"outcomes": [{"id": "", "survived": True}]}, ["/outcomes/0/id"]),
        ({"outcomes": [{"id": "x" * 65, "survived": True}]}, ["/outcomes/0/id"]),
        ({"outcomes": [{"id": "x", "survived": True, "sruvived": 1}]}, ["/outcomes/0/sruvived"]),
        ({"outcomes": [{"id": "x", "survived": True}, {"id": "y"}], "more": 1}, ["/more", "/outcomes/1/survived"]),
    ],
    ids=range(12),
)
def test_bodies_are_strict_and_a_faulty_one_takes_nothing(
    tiny_bundle: Bundle, tmp_path: Path, body: Any, pointers: list[str]
) -> None:
    with serving(tiny_bundle, str(tmp_path / "s.sqlite")) as client:
        found = problem(client.post("/v1/outcomes", json=body), 422)
        assert sorted(fault["pointer"] for fault in found["errors"]) == pointers
        problem(client.post("/v1/outcomes", content=b"{", headers={"Content-Type": "application/json"}), 400)
        problem(client.post("/v1/outcomes", content=b"{}", headers={"Content-Type": "text/plain"}), 415)


def test_strange_ids_are_unknown_and_nothing_breaks(client: TestClient[Any]) -> None:
    strange = ["\x00", "ü" * 40, "'; DROP TABLE evenkeel_predictions; --", "{" + uuid7() + "}", "%s", "?"]
    assert send(client, *((id, True) for id in strange)).json()["unknown"] == strange
    assert client.post("/v1/predict", json=ALLISON).status_code == 200


def test_without_a_store_there_are_no_outcomes(tiny_bundle: Bundle) -> None:
    with serving(tiny_bundle, "none") as client:
        (one,) = predict(client)
        assert math.isnan(samples(client)["evenkeel_store_up", frozenset()])
        assert "without a store" in problem(send(client, (one["id"], True)), 404)["detail"]


def test_while_the_store_is_unusable_predictions_go_on(tiny_bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "s.sqlite"
    path.mkdir()
    with serving(tiny_bundle, str(path)) as client:
        wait_until(lambda: "store" in client.get("/health/ready").json()["detail"])
        (one,) = predict(client)
        response = send(client, (one["id"], True))
        problem(response, 503)
        assert int(response.headers["Retry-After"]) >= 1
        ready = client.get("/health/ready")
        assert ready.status_code == 200
        assert "outcomes are refused, the store is unusable" in ready.json()["detail"]
        assert samples(client)["evenkeel_store_up", frozenset()] == 0
        path.rmdir()
        wait_until(lambda: client.get("/health/ready").json()["detail"] == "")
        assert send(client, (one["id"], True)).json()["counted"] == 1


def command(*arguments: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-W", "error", "-m", "service", *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=120)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def fill(where: str, passengers: list[str | None]) -> list[str]:
    """Log these predictions; their ids."""
    held = database(where)
    held.open()
    ids = sorted(uuid7() for _ in passengers)
    PredictionLog(held).insert(
        [LoggedPrediction(id, time_ms_of(id), "v1", one, 0.5, 0.25) for id, one in zip(ids, passengers, strict=True)]
    )
    held.close()
    return ids


def test_outcomes_are_imported_and_what_is_not_taken_is_told_by_line(where: str, tmp_path: Path) -> None:
    a, b, c, d = fill(where, [None] * 4)
    source = tmp_path / "late.csv"
    source.write_text(
        f'ID,note,SURVIVED\n{a},,1\n{b},"two\nlines",false\n{c},,\n\n{uuid7()},,1\nnobody,,0\n{a},,0\n{d},,perhaps\n{d},1\n'
        f"{a.upper()},,TRUE\n"
    )
    done = command("outcomes", "import", source, "--store", where)
    assert done.returncode == 1, done.stderr
    assert "2 new, 1 known before" in done.stderr
    assert "5 rejected" in done.stderr
    reasons = {row["line"]: row["reason"] for row in read(tmp_path / "late.rejected.csv")}
    assert list(reasons) == ["7", "8", "9", "10", "11"]
    for line, part in {
        "7": "no prediction",
        "8": "no prediction",
        "9": "opposite",
        "10": "perhaps",
        "11": "2 cells",
    }.items():
        assert part in reasons[line]
    source.write_text(f"id,Survived\n{a},1\n{b},0\n")
    done = command("outcomes", "import", source, "--store", where)
    assert (done.returncode, done.stderr) == (0, "outcomes: 0 new, 2 known before\n")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".csv") == ["late.csv"]
    assert [survived for _, survived in rows(where)] == [True, False, None, None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "one column id is needed"),
        ("id,fate\n", "one column Survived is needed, in any case; the columns are: id, fate"),
        ("id,Survived,survived\n", "one column Survived"),
        (None, "No such file"),
    ],
)
def test_a_file_of_no_outcomes_is_one_sentence(tmp_path: Path, content: str | None, message: str) -> None:
    store, source = str(tmp_path / "s.sqlite"), tmp_path / "in.csv"
    fill(store, [])
    if content is not None:
        source.write_text(content)
    done = command("outcomes", "import", source, "--store", store)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


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
    held = database(where, create=False)
    held.open()
    PredictionLog(held).label([(ids[0], True), (ids[1], False)])
    held.close()
    out = tmp_path / "out.csv"
    done = command("export", out, "--store", where)
    assert done.returncode == 0, done.stderr
    assert "4 predictions, 2 with an outcome" in done.stderr
    assert "2 of them without the passenger's fields" in done.stderr
    found = read(out)
    assert [row["id"] for row in found] == ids
    assert [row["Survived"] for row in found] == ["1", "0", "", ""]
    assert [row["passenger_sha256"] for row in found] == ["", "", "0" * 64, ""]
    assert found[0]["Name"] == 'Ü, "Miss"\nB'
    assert (found[0]["Pclass"], found[0]["Age"], found[0]["Cabin"], found[1]["Pclass"]) == ("1", "2.0", "", "")
    assert (found[0]["version"], found[0]["probability"], found[0]["uncalibrated_probability"]) == ("v1", "0.25", "0.5")
    command("export", out, "--store", where, "--labelled-only")
    assert [row["id"] for row in read(out)] == ids[:2]
    command("export", out, "--store", where, "--labelled-only", "--with-passengers")
    assert [row["id"] for row in read(out)] == ids[:1]
    command("export", out, "--store", where, "--since", found[0]["time"])
    assert len(read(out)) == 4
    command("export", out, "--store", where, "--since", "2999-01-01")
    assert read(out) == []


def test_the_loop_closes(bundle_folder: Path, table: Table, tmp_path: Path) -> None:
    """Predictions of a real service, their outcomes, an export, and the training's commands reading it."""
    store, out, port = tmp_path / "s.sqlite", tmp_path / "out.csv", free_port()
    flags = ("--store", store, "--store-inputs", "passenger", "--grace-seconds", 0)
    process = start("--bundle", bundle_folder, "--port", port, *flags)
    url = f"http://127.0.0.1:{port}"
    wait_ready(url, process)
    passengers = [msgspec.to_builtins(one) for one in table.passengers[:300]]
    predictions = httpx.post(f"{url}/v1/predict/batch", json={"passengers": passengers}, timeout=60).json()[
        "predictions"
    ]
    fates = [(one["id"], bool(label)) for one, label in zip(predictions, table.labels.tolist(), strict=False)]
    body = {"outcomes": [{"id": id, "survived": survived} for id, survived in fates]}
    assert httpx.post(f"{url}/v1/outcomes", json=body).json()["counted"] == 300
    assert command("export", out, "--store", store, "--labelled-only").returncode == 0
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    again = read_table(out)
    by_id = {row["id"]: row for row in read(out)}
    assert len(again) == 300
    for (id, survived), one, given in zip(fates, predictions, table.passengers, strict=False):
        assert by_id[id]["Survived"] == str(int(survived))
        assert float(by_id[id]["probability"]) == one["probability"]
        assert by_id[id]["Name"] == given.name
    assert set(COLUMNS.values()) < set(by_id[id])
    evaluated = tmp_path / "evaluation.json"
    line = [sys.executable, "-m", "training", "evaluate", "--bundle", bundle_folder, "--data", out, "--json", evaluated]
    done = subprocess.run(list(map(str, line)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert '"rows": 300' in evaluated.read_text()


@pytest.mark.slow
def test_an_export_can_be_trained_on(table: Table, small_csv: Path, tmp_path: Path) -> None:
    store, out, bundle = str(tmp_path / "s.sqlite"), tmp_path / "out.csv", tmp_path / "bundle"
    count = len(read_table(small_csv))
    ids = fill(store, [msgspec.json.encode(one).decode() for one in table.passengers[:count]])
    held = database(store)
    held.open()
    PredictionLog(held).label([(id, bool(label)) for id, label in zip(ids, table.labels.tolist(), strict=False)])
    held.close()
    assert command("export", out, "--store", store, "--labelled-only", "--with-passengers").returncode == 0
    assert read_table(out).passengers == table.passengers[:count]
    line = [
        sys.executable,
        "-m",
        "training",
        "fit",
        "--data",
        out,
        "--folds",
        3,
        "--epochs",
        1,
        "--quiet",
        "--out",
        bundle,
    ]
    done = subprocess.run(list(map(str, line)), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (bundle / "manifest.json").exists()
