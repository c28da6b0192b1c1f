import hashlib
from pathlib import Path

import numpy as np
import pytest
from msgspec import structs

from models.schema import Schema, schema_of
from models.text import Renderer
from tests.conftest import TITANIC
from tests.titanic import SCHEMA
from training.data.source import DataError
from training.data.table import Table, fold_known, read_table, render_texts

HEADER, FIRST, *_ = TITANIC.read_text().splitlines()
OTHER = FIRST.replace("1,0,3", "2,1,3")
PAIRS = schema_of(
    {
        "name": "pairs", "label": {"column": "y", "classes": [{"value": v, "name": v} for v in ("no", "yes")]},
        "fields": [{"name": "x", "type": "integer", "bins": [0, 9]}, {"name": "word", "type": "text"}], "text": ["{x}"],
    }
)  # fmt: skip


def written(folder: Path, *lines: str) -> Path:
    path = folder / "rows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_real_table(table: Table) -> None:
    assert (len(table), int(table.labels.sum()), table.groups) == (891, 342, None)
    braund = table.rows[0]
    assert (braund.pclass, braund.sex, braund.age, braund.sibsp, braund.fare) == (3, "male", 22, 1, 7.25)
    assert (braund.cabin, braund.embarked) == (None, "S")
    assert sum(row.age is None for row in table.rows) == 177
    assert table.sha256 == hashlib.sha256(TITANIC.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ((), "it is empty"),
        ((HEADER.replace("Fare", "Price"), FIRST), "lacks the columns Fare"),
        ((HEADER.replace("Survived", "Alive"), FIRST), "has no column Survived"),
        ((HEADER.replace("Fare", "Age"), FIRST), "the column Age is there 2 times"),
        ((HEADER.replace("Cabin", "survived"), FIRST), "differ by case alone"),
        ((HEADER, FIRST, OTHER.replace(",22,", ",220,")), "line 3: Age is '220'; it must be a number from 0 to 120"),
        ((HEADER, FIRST, OTHER.replace("male", "man")), "line 3: Sex is 'man'; it must be one of male, female"),
        ((HEADER, FIRST.replace("1,0,3", "1,yes,3"), OTHER, OTHER.replace(",1,3", ",maybe,3")), "line 4: Survived is"),
        ((HEADER, FIRST, "", OTHER.replace("male", "man")), "line 4: Sex"),
        ((HEADER, FIRST, OTHER[:-3]), "line 3: has 10 cells, the header has 12"),
        ((HEADER, FIRST, OTHER.replace(",22,", ",22,,")), "line 3: has 13 cells, the header has 12"),
        ((HEADER, FIRST), "1 row, all of 'died'"),
        ((HEADER, FIRST, FIRST, OTHER), "only 1 of 'survived'"),
        ((HEADER, *[FIRST.replace("male", "x")] * 30), "lines 2, 3, 4 and 27 more: Sex is 'x'"),
    ],
)
def test_faults_are_told_by_line_and_column(tmp_path: Path, lines: tuple[str, ...], message: str) -> None:
    path = written(tmp_path, *lines) if lines else tmp_path / "rows.csv"
    if not lines:
        path.write_bytes(b"")
    with pytest.raises(DataError) as error:
        read_table(path, SCHEMA)
    assert message in str(error.value)


def test_what_is_no_file_of_rows_is_named(tmp_path: Path) -> None:
    for path, message in ((tmp_path / "nothing.csv", "there is no file"), (tmp_path, "is no regular file")):
        with pytest.raises(DataError, match=message):
            read_table(path, SCHEMA)


def test_what_is_scored_needs_neither_every_column_nor_every_class(tmp_path: Path) -> None:
    path = written(tmp_path, "y,X", "yes,1", "no,2.0", "no,NA")
    table = read_table(path, PAIRS, fitting=False)
    assert [(row.x, row.word) for row in table.rows] == [(1, None), (2, None), (None, None)]
    assert table.labels.tolist() == [1, 0, 0]
    with pytest.raises(DataError, match="lacks the columns word"):
        read_table(path, PAIRS)


def test_rows_without_a_label_are_left_out_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "y,x,word", "yes,1,a", ",2,b", "no,3,c", "NA,oops,d", "yes,4,e", "no,5,f")
    table = read_table(path, PAIRS)
    assert ([row.x for row in table.rows], table.labels.tolist()) == ([1, 3, 4, 5], [1, 0, 1, 0])
    assert (table.unlabelled, table.note) == (2, "2 rows without a label are left out")
    assert read_table(written(tmp_path, "y,x,word", "yes,1,a", "no,3,c"), PAIRS, fitting=False).note == ""
    with pytest.raises(DataError, match="line 3: y is 'perhaps'; it must be no or yes"):
        read_table(written(tmp_path, "y,x,word", "yes,1,a", "perhaps,2,b"), PAIRS)


def test_text_has_no_unknown_but_the_empty_one(tmp_path: Path) -> None:
    path = written(tmp_path, "y;x;word", "yes;3.0;Null", "no;;NA", "1;nan;", "0; 4 ; a ")
    rows = read_table(path, PAIRS).rows
    assert [(row.x, row.word) for row in rows] == [(3, "Null"), (None, "NA"), (None, None), (4, "a")]


def test_groups_are_numbered_and_a_row_without_one_is_its_own(tmp_path: Path) -> None:
    path = written(tmp_path, "y,x,word,who", "yes,1,a,ann", "no,1,a,", "no,2,b, ann ", "yes,3,c,")
    schema = structs.replace(PAIRS, group="who")
    groups = read_table(path, schema).groups
    assert groups is not None
    assert groups.tolist() == [0, 1, 0, 2]
    without = written(tmp_path, "y,x,word", "yes,1,a", "no,1,a", "no,2,b", "yes,3,c")
    assert read_table(without, schema, fitting=False).groups is None
    with pytest.raises(DataError, match="has no column who"):
        read_table(without, schema)


def turned(schema: Schema) -> Schema:
    """The same with its classes in the other order."""
    classes = tuple(reversed(schema.label.classes))
    return structs.replace(schema, label=structs.replace(schema.label, classes=classes))


def test_the_order_of_the_classes_is_the_schemas(table: Table) -> None:
    assert (read_table(TITANIC, turned(SCHEMA)).labels == 1 - table.labels).all()


def test_a_fold_knows_of_the_others_only(table: Table) -> None:
    renderer, folds = Renderer(SCHEMA), np.arange(len(table)) % 4
    known = fold_known(renderer, table.rows, table.labels, folds)
    changed = fold_known(renderer, table.rows, np.where(folds == 2, 1 - table.labels, table.labels), folds)
    assert len(known) == 4
    assert known[2] == changed[2]
    assert known[1] != changed[1]
    (texts,) = render_texts(renderer, table.rows, [known[2]])
    assert sum(text.startswith(("women", "men")) for text in texts) > 200
    assert fold_known(renderer, table.rows, table.labels, folds, known=False) == (None,) * 4


def test_without_a_feature_all_models_read_the_same_texts(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "y,x,word", "yes,1,a", "no,2,b", "yes,3,a", "no,4,b"), PAIRS)
    folds = np.array([0, 1, 0, 1])
    texts = render_texts(Renderer(PAIRS), table.rows, fold_known(Renderer(PAIRS), table.rows, table.labels, folds))
    assert texts == [["1", "2", "3", "4"]] * 2
