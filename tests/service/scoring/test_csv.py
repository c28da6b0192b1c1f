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

from models.bundle.read import Bundle
from models.files import rejected_path
from service.scoring.columns import ADDED
from tests import churn
from tests.conftest import ROOT, TITANIC


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-W", "error", "-m", "service", "score", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=120)


def read(path: Path, separator: str = ",") -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=separator))


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
predictor = Predictor.load({str(bundle_folder)!r})
found = predictor.predict(read_table(Path({str(TITANIC)!r}), predictor.bundle.schema).rows)
print(json.dumps([[p.probability, *p.confidence.interval, p.confidence.typicality] for p in found]))
"""
    expected = json.loads(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True, timeout=120))
    columns = ("probability", "interval_low", "interval_high", "typicality")
    for row, numbers in zip(rows, expected, strict=True):
        assert [float(row[name]) for name in columns] == pytest.approx(numbers, abs=1e-5)
        assert row["outcome"] == ("survived" if float(row["probability"]) >= 0.5 else "died")
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
    for line, part in {
        "4": "Pclass is '4'; it must be one of 1, 2, 3",
        "6": "UTF-8",
        "8": "has 2 cells",
        "9": "Pclass is ''",
        "10": "Age is 'old'",
    }.items():
        assert part in reasons[line]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "in.csv cannot be read: it is empty"),
        (b"a,b\n1,2\n", "Pclass and Sex are missing; there are: a, b"),
        (b"pclass,sex,Sex\n", "the columns sex and Sex differ by case alone"),
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
    factor = (0.1 / 0.9) / (data["classes"]["survived"] / data["classes"]["died"])
    for own, other in zip(read(tmp_path / "own.csv"), read(tmp_path / "other.csv"), strict=True):
        p, q = float(own["probability"]), float(other["probability"])
        assert q / (1 - q) == pytest.approx(factor * p / (1 - p))
        assert float(other["interval_low"]) <= q <= float(other["interval_high"])
        assert other["prediction_set"] == own["prediction_set"]
    for wrong in ("0", "1", "nan", "some"):
        done = run(source, tmp_path / "o.csv", "--target-prevalence", wrong)
        assert done.returncode == 2
        assert f"'{wrong}' is not a share above 0 and below 1" in done.stderr


def write_customers(path: Path, count: int) -> list[dict[str, str]]:
    """A table of customers with columns in another order, a label, and a column that is no field."""
    rows = churn.customers(count)
    with path.open("w", newline="", encoding="utf-16" if path.suffix == ".16" else "utf-8") as file:
        out = csv.writer(file, delimiter=";")
        out.writerow(["Churned?", "NOTE", "months here", "plan", "City", "who", "senior", "bill", "probability"])
        for number, row in enumerate(rows):
            senior = "" if row.senior is None else "ny"[row.senior]
            plan = "" if row.plan is None else f"{row.plan}.0"
            out.writerow(["Yes", row.note, row.tenure, plan, row.city, number, senior, row.bill, ""])
    return [] if path.suffix == ".16" else read(path, ";")


def test_a_file_of_another_table(churn_bundle: Bundle, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    given = write_customers(source, 150)
    done = run(source, out, "--bundle", churn_bundle.folder)
    assert done.returncode == 0, done.stderr
    rows = read(out, ";")
    added = ("outcome", "prediction_probability", *ADDED[2:])
    assert tuple(rows[0]) == (*given[0], *added)
    assert [{name: row[name] for name in given[0]} for row in rows] == given
    for row in rows:
        assert row["outcome"] == ("leaves" if float(row["prediction_probability"]) >= 0.5 else "stays")
        assert set(filter(None, row["prediction_set"].split("|"))) <= {"stays", "leaves"}
    assert len({row["prediction_probability"] for row in rows}) > 1


def test_rows_of_another_table_are_refused_in_its_words(churn_bundle: Bundle, tmp_path: Path) -> None:
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_text(
        "city,Plan,senior,Months here,bill\ncity 00,3,,,\nCity 00,,,,\ncity 01,,maybe,,\ncity 02,,,2.5,\n"
        'city 03,,,,"1,234"\n,,,,\ncity 59,10,Y,3,7\n'
    )
    done = run(source, out, "--bundle", churn_bundle.folder)
    assert done.returncode == 1
    assert [row["reason"] for row in read(rejected_path(out))] == [
        "Plan is '3'; it must be one of 2, 5, 10, or unknown",
        "city is 'City 00'; it must be one of "
        + ", ".join(churn.CITIES[:20])
        + " and 40 more (did you mean 'city 00'?)",
        "senior is 'maybe'; it must be n or y, or unknown",
        "Months here is '2.5'; it must be a whole number of at least 0, or unknown",
        "bill is '1,234'; it must be a number from 0 to 500, or unknown "
        "(thousands separators are not read; write 1234)",
        "city is ''; it must be one of " + ", ".join(churn.CITIES[:20]) + " and 40 more (it is required)",
    ]
    assert [row["city"] for row in read(out)] == ["city 59"]
    source.write_text("Plan,bill\n2,3\n")
    done = run(source, out, "--bundle", churn_bundle.folder)
    assert done.stderr == "score: the column city is missing; there are: Plan, bill\n"
    source.write_text("city,prediction_probability\n")
    done = run(source, out, "--bundle", churn_bundle.folder)
    assert "has a column prediction_probability already" in done.stderr
    write_customers(tmp_path / "wide.16", 3)
    done = run(tmp_path / "wide.16", out, "--bundle", churn_bundle.folder)
    assert "wide.16 cannot be read: it is UTF-16" in done.stderr


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
