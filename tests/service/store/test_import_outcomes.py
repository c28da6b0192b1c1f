"""Outcomes out of a CSV: by value or by class name, what is not taken told by line."""

from pathlib import Path

import pytest

from service.uuid7 import uuid7
from tests import churn
from tests.service.store.commands import command, fill, read
from tests.service.store.test_store import rows, where

__all__ = ["where"]


def test_outcomes_are_imported_and_what_is_not_taken_is_told_by_line(where: str, tmp_path: Path) -> None:
    a, b, c, d = fill(where, [None] * 4)
    source = tmp_path / "late.csv"
    source.write_text(
        f'ID,note,SURVIVED\n{a},,1\n{b},"two\nlines",false\n{c},,\n\n{uuid7()},,1\nnobody,,0\n{a},,0\n{d},,perhaps\n{d},1\n'
        f"{a.upper()},,Survived\n"
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
        "9": "another outcome",
        "10": "Survived is 'perhaps'; it must be 0 or 1",
        "11": "2 cells",
    }.items():
        assert part in reasons[line]
    source.write_text(f"id,Survived\n{a},1\n{b},0\n")
    done = command("outcomes", "import", source, "--store", where)
    assert (done.returncode, done.stderr) == (0, "outcomes: 0 new, 2 known before\n")
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix == ".csv") == ["late.csv"]
    assert [outcome for _, outcome in rows(where)] == ["survived", "died", None, None]


def test_outcomes_of_two_tables_come_under_their_own_column_or_under_outcome(where: str, tmp_path: Path) -> None:
    passengers, customers = fill(where, [None] * 2), fill(where, [None] * 3, "c1", churn.SCHEMA)
    source = tmp_path / "late.csv"
    source.write_text(
        f"Churned?,outcome,prediction_id\nyes,,{customers[0]}\n,died,{passengers[0]}\nNO,,{customers[1]}\n"
    )
    done = command("outcomes", "import", source, "--store", where)
    assert (done.returncode, done.stderr) == (0, "outcomes: 3 new, 0 known before\n")
    source.write_text(f"id,outcome\n{customers[2]},stays\n{passengers[1]},leaves\n{customers[0]},leaves\n")
    done = command("outcomes", "import", source, "--store", where)
    assert done.stderr.startswith("outcomes: 1 new, 1 known before\n")
    (rejected,) = read(tmp_path / "late.rejected.csv")
    assert rejected == {"line": "3", "reason": "Survived is 'leaves'; it must be 0 or 1"}
    source.write_text(f"id,Churned?\n{passengers[1]},Yes\n")
    command("outcomes", "import", source, "--store", where)
    (rejected,) = read(tmp_path / "late.rejected.csv")
    assert rejected["reason"] == "the outcomes of its table are in the column Survived, which is not there"
    kept = {prediction.id: outcome for prediction, outcome in rows(where)}
    assert [kept[id] for id in customers] == ["leaves", "stays", "stays"]
    assert [kept[id] for id in passengers] == ["died", None]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "in.csv cannot be read: it is empty"),
        ("Survived,key\n", "one column id is needed, in any case; the columns are: Survived, key"),
        ("id,fate\n", "one column Survived or outcome is needed, in any case; the columns are: id, fate"),
        ("id,Survived,survived\n", "cannot be read: the columns Survived and survived differ by case alone"),
        ("PAR1", "cannot be read: it is Parquet, in spite of its name"),
        (None, "No such file"),
    ],
    ids=range(6),
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
