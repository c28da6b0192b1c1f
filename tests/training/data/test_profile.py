import csv
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.training.data.tables import write_csv
from training.data.kinds import Kind, kind_of
from training.data.profile import profile_table
from training.data.source import DataError


@pytest.mark.parametrize(
    ("kind", "cells"),
    [
        (Kind.UNKNOWN, ["", "NA", "nan", "NULL", "?", "-", "#N/A", "Unknown"]),
        (Kind.INTEGER, ["0", "-3", "3.0", "1e5", "+7", "-0", "123456789012345"]),
        (Kind.NUMBER, ["0.5", "-.5", "1e-9", "2.50", "1e20", "-1e308"]),
        (Kind.CODE, ["007", "00", "12345678901234567890"]),
        (Kind.MARKED, ["1,234", "1,234.56", "3,5", "$5", "€ 1.000,00", "12 %", "-4,2", "1 234"]),
        (Kind.DATE, ["2024-01-31", "31.1.2024", "1/31/24", "2012-12-11T01:20:01Z", "Jan 5, 2024", "5 January 2024"]),
        (Kind.TEXT, ["a", "inf", "1_000", "1,2,3", "A5", "5kg", "10.0.0.1", "2024-13", "x" * 1000, "1e400"]),
    ],
)
def test_what_a_cell_looks_like(kind: Kind, cells: list[str]) -> None:
    assert {cell: kind_of(cell) for cell in cells} == dict.fromkeys(cells, kind)


def test_every_cell_is_counted(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    few = rng.choice(["a", " a ", "b", "", "NA"], 5000).tolist()
    many = rng.random(5000).round(6).tolist()
    profile = profile_table(write_csv(tmp_path, {"few": few, "many": many}))
    column, numbers = profile.columns
    assert column.counts == Counter(text.strip() for text in few if text)
    assert column.levels() == Counter(text.strip() for text in few if text not in ("", "NA"))
    assert (column.empty, column.unknown) == (few.count(""), few.count("NA"))
    assert (numbers.counts, numbers.known) == (None, 5000)
    assert (numbers.minimum, numbers.maximum) == (min(many), max(many))
    assert profile.rows == len(profile.sample) == 5000
    assert sorted(profile.numbers(numbers)) == sorted(many)


def test_examples_have_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('a,b\n1,"x\ny"\n\n2,z\nodd,z\n')
    column = profile_table(path).columns[0]
    assert column.examples == {Kind.INTEGER: [(2, "1"), (5, "2")], Kind.TEXT: [(6, "odd")]}


def test_the_sample_of_a_long_table_is_even(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.data.profile.SAMPLE_ROWS", 1000)
    profile = profile_table(write_csv(tmp_path, {"a": list(range(30_000)), "b": [0] * 30_000}))
    numbers = profile.numbers(profile.columns[0])
    assert len(numbers) == len(set(numbers)) == 1000
    # The mean of 1000 of 0 … 29,999 has a standard error of 274.
    assert abs(numbers.mean() - 15_000) < 4 * 274
    assert (np.histogram(numbers, 5)[0] > 140).all()


def test_repeated_rows_are_counted(tmp_path: Path) -> None:
    profile = profile_table(write_csv(tmp_path, {"a": [1, 2, 1, 1, 3], "b": ["x", "x", "x", "y", "x"]}))
    assert profile.repeated == 1


def test_faulty_rows_are_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n3\n4,5,6\n")
    with pytest.raises(DataError, match="line 3: has 1 cell"):
        profile_table(path)
    path.write_text("a,b\n")
    with pytest.raises(DataError, match="a header and no rows"):
        profile_table(path)


def peak_mib(path: Path) -> float:
    code = f"""
import resource
from pathlib import Path
from training.data.profile import profile_table
profile_table(Path({str(path)!r}))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
    return float(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True))


@pytest.mark.slow
def test_memory_does_not_grow_with_the_rows(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    peaks = []
    for rows in (25_000, 150_000):
        path = tmp_path / f"{rows}.csv"
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "x", "word", "text"])
            writer.writerows(
                (number, value, "ab"[number % 2], f"{value} is a text of some length that no other row has")
                for number, value in enumerate(rng.random(rows).tolist())
            )
        peaks.append(peak_mib(path))
    # A hash of each of the 125,000 further rows may be kept, at about 100 bytes.
    assert peaks[1] - peaks[0] < 25
