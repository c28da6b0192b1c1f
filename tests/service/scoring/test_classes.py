"""Files of a table of three classes: columns for each class, in CSV and in Parquet, and no shift of two."""

import csv
import json
import subprocess
from pathlib import Path

import pytest

from models.bundle.read import Bundle
from models.predictor import Predictor
from service.scoring.columns import added_columns
from service.scoring.csv import score_csv
from service.scoring.parquet import added_types
from tests import cluster, penguins
from tests.conftest import ROOT
from tests.service.scoring.test_csv import run

ADDED = (
    "outcome", "probability_Gentoo", "interval_low_Gentoo", "interval_high_Gentoo", "probability_Adelie",
    "interval_low_Adelie", "interval_high_Adelie", "probability_Chinstrap", "interval_low_Chinstrap",
    "interval_high_Chinstrap", "prediction_set", "typicality", "warnings",
)  # fmt: skip
COLUMNS = {field.name: field.in_table for field in penguins.SCHEMA.fields}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "in.csv"
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow([*COLUMNS.values(), "note"])
        for number, row in enumerate(penguins.table(80, seed=5).rows):
            sex = None if row.female is None else ("male", "female")[row.female]
            out.writerow([row.island, row.bill, row.flipper, sex, number])
    return path


def test_every_class_has_its_columns(penguins_bundle: Bundle, source: Path, tmp_path: Path) -> None:
    assert added_columns(penguins.SPECIES) == ADDED
    predictor, out = Predictor.load(penguins_bundle.folder), tmp_path / "out.csv"
    assert score_csv(source, out, tmp_path / "rejected.csv", predictor) == (80, 0)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert tuple(rows[0])[-len(ADDED) :] == ADDED
    answers = predictor.predict(penguins.table(80, seed=5).rows)
    for row, answer in zip(rows, answers, strict=True):
        intervals = answer.confidence.intervals
        assert isinstance(intervals, dict)
        for number, name in enumerate(penguins.SPECIES):
            found = tuple(float(row[f"{column}_{name}"]) for column in ("probability", "interval_low", "interval_high"))
            assert found == pytest.approx((answer.probabilities[number], *intervals[name]), abs=1e-5)
        assert row["outcome"] == answer.outcome
        assert row["prediction_set"] == "|".join(answer.confidence.prediction_set)
    assert {row["outcome"] for row in rows} == set(penguins.SPECIES)


def test_each_column_has_a_type_in_parquet(penguins_bundle: Bundle, source: Path, tmp_path: Path) -> None:
    kinds = [kind for kind, _ in added_types(penguins.SPECIES)]
    assert kinds == ["string", *["double"] * 9, "string", "double", "string"]
    given, out, expected = tmp_path / "in.parquet", tmp_path / "out.parquet", tmp_path / "out.csv"
    predictor = Predictor.load(penguins_bundle.folder)
    score_csv(source, expected, tmp_path / "rejected.csv", predictor)
    code = """
import json, sys
from pathlib import Path
import pyarrow.csv, pyarrow.parquet as pq
from models.predictor import Predictor
from service.scoring.parquet import score_parquet
source, given, out, bundle = map(Path, sys.argv[1:])
options = pyarrow.csv.ConvertOptions(strings_can_be_null=True)
pq.write_table(pyarrow.csv.read_csv(source, convert_options=options), given)
score_parquet(given, out, out.with_suffix(".rejected"), Predictor.load(bundle))
table = pq.read_table(out)
print(json.dumps([[str(field.type) for field in table.schema], table.to_pylist()]))
"""
    command = [cluster.python(), "-c", code, source, given, out, penguins_bundle.folder]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    types, rows = json.loads(done.stdout)
    assert types[-len(kinds) :] == kinds
    for row, text in zip(rows, csv.DictReader(expected.read_text().splitlines()), strict=True):
        for name in ADDED:
            if isinstance(row[name], float):
                assert row[name] == pytest.approx(float(text[name]), abs=1e-5)
            else:
                assert row[name] == text[name]


def test_a_prevalence_of_three_classes_is_refused_in_a_sentence(
    penguins_bundle: Bundle, source: Path, tmp_path: Path
) -> None:
    done = run(source, tmp_path / "out.csv", "--bundle", penguins_bundle.folder, "--target-prevalence", 0.5)
    assert done.returncode == 1
    assert (
        done.stderr == f"score: a target prevalence is of the positive of two classes; {penguins_bundle.name} has 3\n"
    )
