"""python -m service score, as a user calls it: a real bundle, files of every kind."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from models.files import rejected_path
from service.scoring.columns import ADDED
from tests.conftest import ROOT, TITANIC


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "service", "score", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120)


def read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_row_gets_what_the_predictor_says(bundle_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    done = run(TITANIC, out, "--bundle", bundle_folder)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr
    rows, given = read(out), read(TITANIC)
    assert [{k: v for k, v in row.items() if k not in ADDED} for row in rows] == given
    code = f"""
import json
from pathlib import Path
from models.predictor import Predictor
from training.data.table import read_table
found = Predictor.load({str(bundle_folder)!r}).predict(read_table(Path({str(TITANIC)!r})).passengers)
print(json.dumps([[p.probability, *p.confidence.interval, p.confidence.typicality] for p in found]))
"""
    expected = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True, timeout=120))
    columns = ("probability", "interval_low", "interval_high", "typicality")
    for row, numbers in zip(rows, expected, strict=True):
        assert [float(row[name]) for name in columns] == pytest.approx(numbers, abs=1e-5)
        assert (row["survived"] == "true") == (float(row["probability"]) >= 0.5)
        assert set(filter(None, row["prediction_set"].split("|"))) <= {"died", "survived"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv"]


def test_bad_rows_are_told_by_line_and_the_others_scored(bundle_folder: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes(
        b'sex,PCLASS,note,Age\nmale,3,"two\nlines",22\nmale,4,,\n\nfemale,1,,\xff\nfemale,1,ok,97\nmale,2\nmale,,x,3\n'
        b"male,2,,old\n" + b'male,3,"' + b"x" * 200_000 + b'",1\nfemale,2,last,30\n'
    )
    done = run(source, out, "--bundle", bundle_folder)
    assert done.returncode == 1
    assert "6 rows rejected" in done.stderr
    rows = read(out)
    assert [row["note"] for row in rows] == ["two\nlines", "ok", "last"]
    assert rows[1]["warnings"].startswith("age: 97 is outside")
    reasons = {row["line"]: row["reason"] for row in read(rejected_path(out))}
    assert list(reasons) == ["4", "6", "8", "9", "10", "11"]
    for line, part in {"4": "pclass", "6": "UTF-8", "8": "has 2 cells", "9": "pclass", "10": "age"}.items():
        assert part in reasons[line]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "Pclass and Sex are missing"),
        (b"a,b\n1,2\n", "Pclass and Sex are missing; there are: a, b"),
        (b"pclass,sex,Sex\n", "the column Sex is there 2 times"),
        (b"pclass,sex,probability\n", "has a column probability already"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_scored_is_one_sentence(
    bundle_folder: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    if content is not None:
        source.write_bytes(content)
    out.write_text("as it was")
    done = run(source, out, "--bundle", bundle_folder)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert out.read_text() == "as it was"
    assert len(list(tmp_path.iterdir())) == 1 + source.exists()


def test_wrong_use_is_exit_2_and_the_input_is_never_overwritten(bundle_folder: Path, tmp_path: Path) -> None:
    assert run().returncode == 2
    source = tmp_path / "in.csv"
    source.write_text("pclass,sex\n1,male\n")
    rejected = tmp_path / "out.rejected.csv"
    rejected.write_text(source.read_text())
    weights = bundle_folder / "model.safetensors"
    for read_file, written in ((source, source), (rejected, tmp_path / "out.csv"), (source, weights)):
        before = weights.stat()
        done = run(read_file, written, "--bundle", bundle_folder)
        assert done.returncode == 1
        assert "would overwrite" in done.stderr
        assert read_file.read_text() == "pclass,sex\n1,male\n"
        assert weights.stat() == before
    assert run(source, tmp_path / "o.csv", "--bundle", tmp_path).returncode == 1


def test_a_pipe_gets_the_rows_and_stays_a_pipe(bundle_folder: Path, tmp_path: Path) -> None:
    source, pipe = tmp_path / "in.csv", tmp_path / "pipe.csv"
    source.write_text("pclass,sex\n1,male\n9,male\n")
    os.mkfifo(pipe)
    process = subprocess.Popen(
        command(source, pipe, "--bundle", bundle_folder), cwd=tmp_path, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    rows = read(pipe)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, len(rows)) == (1, 1), stderr
    assert "1 rows rejected; pipe.rejected.csv says why" in stderr
    assert pipe.is_fifo()
    assert [row["line"] for row in read(tmp_path / "pipe.rejected.csv")] == ["3"]


def test_a_target_prevalence_shifts_the_odds_by_one_factor(bundle_folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("pclass,sex,age\n1,female,38\n3,male,22\n2,male,4\n")
    assert run(source, tmp_path / "own.csv", "--bundle", bundle_folder).returncode == 0
    target = ("--target-prevalence", "0.1")
    assert run(source, tmp_path / "other.csv", "--bundle", bundle_folder, *target).returncode == 0
    data = json.loads((bundle_folder / "manifest.json").read_bytes())["origin"]["data"]
    factor = (0.1 / 0.9) / (data["survived"] / (data["rows"] - data["survived"]))
    for own, other in zip(read(tmp_path / "own.csv"), read(tmp_path / "other.csv"), strict=True):
        p, q = float(own["probability"]), float(other["probability"])
        assert q / (1 - q) == pytest.approx(factor * p / (1 - p))
        assert float(other["interval_low"]) <= q <= float(other["interval_high"])
        assert other["prediction_set"] == own["prediction_set"]
    for wrong in ("0", "1", "nan", "some"):
        done = run(source, tmp_path / "o.csv", "--target-prevalence", wrong)
        assert done.returncode == 2
        assert f"'{wrong}' is not a share above 0 and below 1" in done.stderr


@pytest.mark.slow
def test_a_stop_leaves_nothing(bundle_folder: Path, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    with source.open("w") as file:
        file.write("pclass,sex,fare\n")
        file.writelines(f"{1 + n % 3},male,{n / 1000}\n" for n in range(900_000))
    process = subprocess.Popen(command(source, out, "--bundle", bundle_folder), cwd=ROOT, stderr=subprocess.PIPE)
    partial = tmp_path / f".out.csv.{process.pid}"
    for _ in range(600):
        if partial.exists() and partial.stat().st_size > 2_000_000:
            break
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 1
    assert b"nothing was written" in stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv"]
