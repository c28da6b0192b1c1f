import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster import python, variables
from tests.conftest import ROOT
from training.data.source import MAX_FAULTS, DataError, Faults, open_source, plain_cell, sha256_of_data


def test_a_csv_is_read_by_line_and_its_separator_known(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a;b\n\n1;2\n")
    with open_source(path) as source:
        assert (source.header, source.unit, source.separator) == (["a", "b"], "line", ";")
        assert [(number, cells) for number, cells, _ in source] == [(3, ["1", "2"])]
    with open_source(path, ",") as source:
        assert source.header == ["a;b"]


def test_parquet_is_known_by_its_first_bytes_and_needs_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b"PAR1 and more")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match="is Parquet, which needs pyarrow"), open_source(path):
        pass


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"), open_source(tmp_path / "none.csv"):
        pass
    with pytest.raises(DataError, match="is a folder"), open_source(tmp_path):
        pass
    with pytest.raises(DataError, match="is no regular file"):
        sha256_of_data(Path("/dev/null"))


def test_a_typed_value_is_what_a_csv_would_have() -> None:
    values = [None, float("nan"), 3.0, 2.5, 7, True, "x"]
    assert [plain_cell(value) for value in values] == ["", "", "3", "2.5", "7", "True", "x"]


def test_faults_are_listed_up_to_a_number_and_the_rest_is_counted() -> None:
    faults = Faults(Path("rows.csv"), "line")
    faults.check()
    for number in range(MAX_FAULTS + 5):
        faults.add(number, f"x is {number}")
    for number in (20, 1000, 1010, 1020, 1030):
        faults.add(number, "x is 3")
    with pytest.raises(DataError) as error:
        faults.check()
    head, *lines = str(error.value).splitlines()
    assert head == "rows.csv has faults:"
    assert lines[3] == "  lines 3, 20, 1000 and 3 more: x is 3"
    assert lines[9:] == ["  line 9: x is 9", "  and 5 more"]


PARQUET = """
import sys, datetime, decimal, tomllib
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from models.schema import schema_of
from training.data.description import describe_file, read_description
from training.data.table import read_table
folder, n = Path(sys.argv[1]), 200
path = folder / "rows.csv"  # Known by its first bytes, whatever it is called.
pq.write_table(pa.table({
    "whole": pa.array([None if i % 7 == 0 else i % 50 for i in range(n)], pa.int64()),
    "float": [i % 50 / 4 for i in range(n)],
    "gaps": pa.array([float("nan") if i % 9 == 0 else i % 40. for i in range(n)]),
    "flag": [i % 3 == 0 for i in range(n)],
    "word": pa.array([["a", "b", None][i % 3] for i in range(n)]).dictionary_encode(),
    "when": [datetime.datetime(2024, 1, 1 + i % 28) for i in range(n)],
    "day": [datetime.date(2024, 1, 1 + i % 28) for i in range(n)],
    "price": [decimal.Decimal(i % 30) / 4 for i in range(n)], "list": [[i % 3] for i in range(n)],
    "y": [i % 4 == 1 for i in range(n)],
}), path)
text, schema, _ = describe_file(path, "y")
print({field.name: field.type for field in schema.fields})
table = read_table(path, schema)
print(len(table), table.labels.sum(), table.rows[7])
(folder / "table.toml").write_text(text)
assert read_description(folder / "table.toml", path) == schema
path.write_bytes(path.read_bytes()[:-50])
try:
    read_table(path, schema)
except ValueError as error:
    print(str(error).partition(": ")[0].rpartition(" ")[0])
"""


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    done = subprocess.run(
        [python(), "-c", PARQUET, str(tmp_path)], cwd=ROOT, env=variables(), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    types, rows, cut = done.stdout.splitlines()
    assert types == str(
        {
            "whole": "integer", "float": "number", "gaps": "integer", "flag": "boolean", "word": "category",
            "price": "number", "list": "category",
        }
    )  # fmt: skip
    assert rows == "200 50 Row(whole=None, float=1.75, gaps=7, flag=False, word='b', price=1.75, list='[1]')"
    assert cut == f"{tmp_path / 'rows.csv'} cannot be read as"
