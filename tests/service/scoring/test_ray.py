"""python -m service score --engine ray, as a user calls it: the same bytes as one process, whatever happens."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from models.bundle.read import Bundle
from service.scoring.columns import ADDED, ScoreError
from service.scoring.partitions import Content, Partition, ScoringSettings, find_partitions
from tests import cluster
from tests.conftest import ROOT
from tests.service.scoring.test_csv import run as score_here

HEADER = ["PassengerId", "Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Cabin", "Embarked", "Name"]


def command(*arguments: object) -> list[str]:
    return [str(cluster.python()), "-m", "service", "score", "--engine", "ray", *map(str, arguments)]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=240, env=cluster.variables()
    )  # fmt: skip


def drawn_rows(rows: int, seed: int) -> list[list[Any]]:
    """Passengers with every field drawn on its own, as `HEADER` has them; None where a field is unknown."""
    rng = random.Random(seed)
    draw = rng.choice
    return [
        [
            row, draw((1, 2, 3)), draw(("male", "female")), draw((None, round(rng.uniform(0, 80), 1))), draw((0, 1, 5)),
            draw((0, 2)), draw((None, round(rng.uniform(0, 500), 4))), draw((None, "C85", "E46", "T")),
            draw((None, "S", "C", "Q")), draw((None, "Braund, Mr. Owen", "Heikkinen, Miss. Laina", "Rice, Master. E")),
        ]
        for row in range(rows)
    ]  # fmt: skip


def write_csv(path: Path, rows: list[list[Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEADER, *rows])
    return path


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def parquet(code: str, *paths: Path) -> Any:
    """What a piece of code with pyarrow prints as JSON, in the environment that has it; paths are its arguments."""
    whole = "import json, sys, pyarrow as pa, pyarrow.parquet as pq\n" + code
    command = [cluster.python(), "-c", whole, *paths]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout or "null")


def as_parquet(table: Path, destination: Path) -> None:
    """The CSV's rows with types, several row groups, a column of lists, and a class and an age that are none."""
    code = """
import pyarrow.csv
table = pa.csv.read_csv(sys.argv[1], convert_options=pa.csv.ConvertOptions(strings_can_be_null=True))
classes = table["Pclass"].to_pylist(); classes[7] = 4
ages = table["Age"].to_pylist(); ages[5000] = 121.0
table = table.set_column(1, "pclass", pa.array([float(one) for one in classes]))
table = table.set_column(3, "Age", pa.array(ages))
table = table.append_column("more", pa.array([[row, row] for row in range(len(classes))]))
pq.write_table(table, sys.argv[2], row_group_size=3000)
"""
    parquet(code, table, destination)


@pytest.mark.slow
def test_a_folder_is_scored_as_one_process_scores_its_files_and_only_once(tiny_bundle: Bundle, tmp_path: Path) -> None:
    given, out = tmp_path / "in", tmp_path / "out"
    large = write_csv(given / "large.csv", drawn_rows(10_000, 0))
    bad = given / "deep" / "bad.csv"
    bad.parent.mkdir()
    bad.write_bytes(b'sex,PCLASS,note\nmale,3,"two\nlines"\nmale,4,\nfemale,1,\xff\nfemale,1,ok\nmale,2\n')
    as_parquet(large, given / "typed.parquet")
    (given / "none.csv").write_text("a,b\n1,2\n")
    (given / "_hidden.csv").write_text("not looked at")
    bundle = ("--bundle", tiny_bundle.folder)

    done = run(given, out, *bundle)
    assert done.returncode == 1
    assert "none.csv: the columns Pclass and Sex are missing" in done.stderr
    assert "1 files are not done" in done.stderr
    assert "Traceback" not in done.stderr
    for source in (large, bad):
        name = source.relative_to(given)
        alone = tmp_path / "alone.csv"
        score_here(source, alone, *bundle, "--threads", 1)
        assert (out / name).read_bytes() == alone.read_bytes(), name
    rejected = tmp_path / "alone.rejected.csv"
    assert (out / "_scored" / "deep" / "bad.csv" / "rejected.csv").read_bytes() == rejected.read_bytes()
    assert not (out / "_scored" / "large.csv" / "rejected.csv").exists()
    score_here(large, alone, *bundle)
    for ours, theirs in zip(read_csv(out / "large.csv"), read_csv(alone), strict=True):
        assert float(ours["probability"]) == pytest.approx(float(theirs["probability"]), abs=1e-5)

    rows = parquet("print(json.dumps(pq.read_table(sys.argv[1]).to_pylist()))", out / "typed.parquet")
    same = [row for row in read_csv(out / "large.csv") if row["PassengerId"] not in ("7", "5000")]
    assert [one["more"][0] for one in rows] == [int(one["PassengerId"]) for one in same]
    for typed, text in zip(rows, same, strict=True):
        for name in ("probability", "interval_low", "interval_high", "typicality"):
            assert typed[name] == pytest.approx(float(text[name]), abs=1e-5)
        assert (typed["outcome"], typed["prediction_set"]) == (text["outcome"], text["prediction_set"])
    reasons = {row["row"]: row["reason"] for row in read_csv(out / "_scored" / "typed.parquet" / "rejected.csv")}
    assert list(reasons) == ["8", "5001"]
    assert reasons["8"] == "Pclass is 4.0; it must be one of 1, 2, 3"
    assert reasons["5001"] == "Age is 121.0; it must be a number from 0 to 120, or unknown"

    kept = (out / "typed.parquet").stat().st_mtime_ns
    (given / "none.csv").unlink()
    bad.write_bytes(b"sex,pclass\nmale,3\n")
    (out / "large.csv").write_bytes(large.read_bytes())
    before = (out / "_scored" / "large.csv" / "record.json").read_bytes()
    again = run(given, out, *bundle)
    assert again.returncode == 1  # The rows of typed.parquet that were refused still are.
    assert "1 files were done before" in again.stderr
    assert (out / "typed.parquet").stat().st_mtime_ns == kept
    assert len(read_csv(out / "deep" / "bad.csv")) == 1
    assert not (out / "_scored" / "deep" / "bad.csv" / "rejected.csv").exists()
    assert (out / "_scored" / "large.csv" / "record.json").read_bytes() == before
    score_here(large, alone, *bundle, "--threads", 1)
    assert (out / "large.csv").read_bytes() == alone.read_bytes()


@pytest.mark.slow
def test_a_killed_worker_loses_no_row_and_doubles_none(tiny_bundle: Bundle, tmp_path: Path) -> None:
    given, out, alone = tmp_path / "in", tmp_path / "out", tmp_path / "alone.csv"
    for number in range(3):
        write_csv(given / f"{number}.csv", drawn_rows(20_000, number))
    options = ("--bundle", tiny_bundle.folder, "--cache-rows", 0)
    with subprocess.Popen(
        command(given, out, *options), cwd=ROOT, stderr=subprocess.PIPE, text=True, env=cluster.variables()
    ) as process:  # fmt: skip
        killed = None
        while killed is None and process.poll() is None:
            # The half-written file of a worker carries its process's id.
            written = [path for path in out.glob(".[0-9].csv.*") if path.stat().st_size]
            if written:
                killed = int(written[0].suffix[1:])
                os.kill(killed, signal.SIGKILL)
            time.sleep(0.002)
        _, stderr = process.communicate(timeout=240)
    assert killed is not None
    assert process.returncode == 0, stderr
    assert "60000 rows of 3 files" in stderr
    for number in range(3):
        score_here(given / f"{number}.csv", alone, *options, "--threads", 1)
        assert (out / f"{number}.csv").read_bytes() == alone.read_bytes()
    assert sorted(path.name for path in out.iterdir()) == ["0.csv", "1.csv", "2.csv", "_scored"]


def test_a_file_that_kills_its_workers_is_given_up(tiny_bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    source = write_csv(tmp_path / "in" / "a.csv", drawn_rows(5, 0))
    code = f"""
import json
from pathlib import Path
from service.scoring.partitions import ScoringSettings
from service.scoring.ray import FileScorer, ScoringRun
bundle, out = Path({str(tiny_bundle.folder)!r}), Path({str(out)!r})
run = ScoringRun(source=Path({str(source.parent)!r}), destination=out, bundle=bundle)
worker = FileScorer(run, ScoringSettings(bundle={tiny_bundle.version!r}, target_prevalence=None))
row = {{"source": {str(source)!r}, "destination": str(out), "name": "a.csv"}}
for deaths in range(4):
    (out / f".a.csv.{{deaths + 1}}").touch()
given_up = worker(row)
(out / ".a.csv.1").unlink()
print(json.dumps([given_up, worker(row)]), flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    given_up, scored = json.loads(done.stdout)
    assert "its worker died 4 times" in given_up["error"]
    assert (scored["error"], scored["scored"], scored["before"]) == ("", 5, False)


def test_without_ray_it_says_how_to_get_it(tiny_bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "in.csv"
    source.write_text("pclass,sex\n1,male\n")
    arguments = ("--engine", "ray", source, tmp_path / "out", "--bundle", tiny_bundle.folder)
    done = score_here(*arguments)
    assert done.returncode == 1
    assert "Ray is not installed" in done.stderr
    assert "./run setup cluster" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    folder = score_here(tmp_path, tmp_path / "o.csv", "--bundle", tiny_bundle.folder)
    assert folder.returncode == 1
    assert "is a folder; --engine ray scores the files of a folder" in folder.stderr
    wrong = subprocess.run(
        [sys.executable, "-m", "service", "score", source, tmp_path / "o.csv", "--workers", "2"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert wrong.returncode == 2
    assert "are for --engine ray" in wrong.stderr


def test_which_files_are_scored_and_where_to(tmp_path: Path) -> None:
    given, out = tmp_path / "in", tmp_path / "out"
    for name in ("b.CSV", "a.parquet", "deep/c.csv", "notes.txt", "_success.csv", ".d.csv", "_deep/e.csv"):
        path = given / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    found = find_partitions(given, out)
    assert [one.name for one in found] == ["a.parquet", "b.CSV", "deep/c.csv"]
    assert [one.output.relative_to(out).as_posix() for one in found] == [one.name for one in found]
    assert [one.is_parquet for one in found] == [True, False, False]
    assert [one.name for one in find_partitions(given / "b.CSV", out)] == ["b.CSV"]
    for destination in (given, given / "out"):
        with pytest.raises(ScoreError, match="would mix with the input"):
            find_partitions(given, destination)
    with pytest.raises(ScoreError, match="is a file"):
        find_partitions(given / "deep", given / "notes.txt")
    with pytest.raises(ScoreError, match=r"there is no .csv or .parquet file"):
        find_partitions(given / "notes.txt", out)
    with pytest.raises(FileNotFoundError):
        find_partitions(tmp_path / "nowhere", out)


def written(source: Path, output: Path, rejects: Path) -> tuple[int, int]:
    output.write_text(source.read_text().upper())
    rejects.write_text("line,reason\n")
    return 2, 1


def test_a_file_is_done_while_it_and_what_was_written_of_it_are_as_they_were(tmp_path: Path) -> None:
    settings = ScoringSettings(bundle="0" * 12, target_prevalence=None)
    source = tmp_path / "in" / "a.csv"
    source.parent.mkdir()
    source.write_text("rows")
    one = Partition(source, tmp_path / "out", "a.csv")
    assert one.done(settings) is None
    record = one.score(settings, written)
    assert (record.scored, record.rejected, record.source) == (2, 1, Content.of(source))
    assert one.done(settings) == record
    assert one.done(ScoringSettings(bundle="1" * 12, target_prevalence=None)) is None
    assert one.done(ScoringSettings(bundle="0" * 12, target_prevalence=0.2)) is None
    for path in (source, one.output, one.rejects, one.record):
        whole = path.read_bytes()
        path.write_bytes(whole[:-2])
        assert one.done(settings) is None, path
        path.unlink()
        assert one.done(settings) is None, path
        path.write_bytes(whole)
    # Another time stamp alone is no other content.
    os.utime(source, (0, 0))
    assert one.done(settings) == record
    partial = one.output.with_name(".a.csv.123")
    partial.write_text("half")
    assert one.deaths() == 1
    one.sweep()
    assert one.deaths() == 0
    assert one.done(settings) == record

    def changing(source: Path, output: Path, rejects: Path) -> tuple[int, int]:
        counts = written(source, output, rejects)
        source.write_text("other rows")
        return counts

    with pytest.raises(ScoreError, match="changed while it was read"):
        one.score(settings, changing)
    assert one.done(settings) is None


def test_the_added_columns_have_a_type_each() -> None:
    from service.scoring.parquet import ADDED_TYPES

    assert tuple(ADDED_TYPES) == ADDED
