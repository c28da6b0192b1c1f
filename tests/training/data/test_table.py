import hashlib
from pathlib import Path

import numpy as np
import pytest

from models.text import render
from tests.conftest import TITANIC
from training.data.table import DataError, Table, fold_companions, read_table

HEADER, FIRST, *_ = TITANIC.read_text().splitlines()
OTHER = FIRST.replace("1,0,3", "2,1,3")


def written(folder: Path, *lines: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_real_table(table: Table) -> None:
    assert (len(table), int(table.labels.sum())) == (891, 342)
    braund = table.passengers[0]
    assert (braund.pclass, braund.sex, braund.age, braund.sibsp, braund.fare) == (3, "male", 22, 1, 7.25)
    assert (braund.cabin, braund.embarked) == (None, "S")
    assert sum(passenger.age is None for passenger in table.passengers) == 177
    assert table.sha256 == hashlib.sha256(TITANIC.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "cannot be read as CSV"),
        ((HEADER.replace("Fare", "Price"), FIRST), "lacks the columns Fare"),
        ((HEADER, FIRST, OTHER.replace(",22,", ",220,")), r"line 3: .*<= 120.* `\$\.age`"),
        ((HEADER, FIRST, OTHER.replace("male", "man")), r"line 3: .*`\$\.sex`"),
        ((HEADER, FIRST, OTHER.replace(",22,", ",nan,")), "line 3"),
        ((HEADER, FIRST.replace("1,0,3", "1,yes,3"), OTHER), "line 2: Survived is 'yes'"),
        ((HEADER, FIRST), "both outcomes are needed"),
        ((HEADER, *[FIRST.replace("male", "x")] * 30), "and 20 more"),
    ],
)
def test_faults_are_told_by_line_and_column(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    path = written(tmp_path, *lines) if lines else tmp_path / "rows.csv"
    if not lines:
        path.write_bytes(b"")
    with pytest.raises(DataError, match=message):
        read_table(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no file .*nothing\.csv"):
        read_table(tmp_path / "nothing.csv")


def test_a_fold_is_told_of_the_others_companions_only(table: Table) -> None:
    folds = np.arange(len(table)) % 4
    known = fold_companions(table.passengers, table.labels, folds)
    changed = fold_companions(table.passengers, np.where(folds == 2, 1 - table.labels, table.labels), folds)
    assert len(known) == 4
    assert known[2] == changed[2]
    assert known[1] != changed[1]
    texts = [render(one, known[2]) for one in table.passengers]
    assert sum(text.startswith(("women", "men")) for text in texts) > 200
