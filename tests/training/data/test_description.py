import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from models.schema import TITANIC as TITANIC_TABLE
from models.schema import schema_of
from models.text import Renderer
from tests.conftest import TITANIC
from tests.titanic import SCHEMA
from tests.training.data.tables import every_kind, outcomes, write_csv
from training.data.description import describe_file, find_schema, packaged_schema, read_description
from training.data.source import DataError
from training.data.table import read_table
from training.data.toml.writer import table

INFERRED = ("type", "levels", "minimum", "maximum", "max_length", "bins", "words")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_csv(tmp_path, every_kind())


def write_toml(path: Path, document: dict[str, Any]) -> Path:
    """A document whose tables are ``label``, ``fields`` and ``examples``."""
    simple = {key: value for key, value in document.items() if key not in ("label", "fields", "examples")}
    lines = [*table("", simple)[1:], *table("[label]", document["label"])]
    for name in ("fields", "examples"):
        for each in document.get(name, ()):
            lines += table(f"[[{name}]]", each)
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_what_is_written_is_the_schema_and_reads_its_own_rows(tmp_path: Path, rows: Path) -> None:
    text, schema, left_out = describe_file(rows, "churned", name="clients")
    assert [sentence.split()[0] for sentence in left_out] == ["customerID", "since", "always"]
    assert structs.replace(schema, examples=()) == schema_of(tomllib.loads(text))
    assert [(field.name, field.type) for field in schema.fields] == [
        ("age_years", "integer"), ("balance", "number"), ("children", "integer"), ("member", "boolean"),
        ("city", "category"), ("note", "text"),
    ]  # fmt: skip
    assert (schema.name, schema.classes, schema.positive) == ("clients", ("not churned", "churned"), "churned")
    assert [field.required for field in schema.fields] == [False, True, True, True, False, True]
    path = tmp_path / "table.toml"
    path.write_text(text, encoding="utf-8")
    assert read_description(path, rows) == schema
    read = read_table(rows, schema)
    assert len(read) == 400
    assert all(map(Renderer(schema), read.rows))


def test_what_is_left_out_can_be_taken_in_by_taking_the_comment_marks_away(tmp_path: Path, rows: Path) -> None:
    text, schema, _ = describe_file(rows, "churned")
    path = tmp_path / "table.toml"
    begin, end = text.index("# Left out."), text.index("# The page offers rows")
    blocks = (block.partition("# [[fields]]") for block in text[begin:end].split("\n\n"))
    taken = "\n\n".join("[[fields]]" + block.replace("\n# ", "\n") for _, found, block in blocks if found)
    path.write_text(text[:begin] + taken + "\n\n" + text[end:], encoding="utf-8")
    names = [field.name for field in read_description(path, rows).fields]
    assert names == [*(field.name for field in schema.fields), "customer_id", "since", "always"]


def test_what_is_deleted_is_worked_out_again(tmp_path: Path, rows: Path) -> None:
    text, schema, _ = describe_file(rows, "churned")
    document = tomllib.loads(text)
    for field in document["fields"]:
        for key in INFERRED:
            field.pop(key, None)
    for key in ("text", "name"):
        del document[key]
    del document["label"]["classes"]
    assert read_description(write_toml(tmp_path / "lean.toml", document), rows) == schema
    (tmp_path / "least.toml").write_text('question = "churned?"\n[label]\ncolumn = "Churned"\n')
    least = read_description(tmp_path / "least.toml", rows)
    assert (least.fields, least.text, least.classes) == (schema.fields, schema.text, schema.classes)


def test_what_is_given_stays(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "t.toml").write_text(
        '[label]\ncolumn = "churned"\nclasses = [{ value = "yes", name = "gone" }, { value = "no", name = "here" }]\n'
        '[[fields]]\nname = "years"\ncolumn = "AGE (YEARS)"\nminimum = 18\nbins = [18, 40, 90]\n'
        '[[fields]]\nname = "children"\ntype = "category"\nwords = { 0 = "none" }\n'
        '[[fields]]\nname = "balance"\nwords = []\nmaximum = 1000000\n'
    )
    schema = read_description(tmp_path / "t.toml", rows)
    years, children, balance = schema.fields
    assert (years.minimum, years.bins, years.type, years.column) == (18, (18, 40, 90), "integer", "AGE (YEARS)")
    assert (children.levels, children.words) == ((0, 1, 2, 3), {"0": "none"})
    assert (balance.words, balance.maximum, balance.minimum) == ((), 1_000_000, 0)
    assert (schema.text, schema.between, schema.unknown) == (("{years}", "{children}", "{balance}"), " ", "unknown")
    assert read_table(rows, schema).labels.mean() == pytest.approx(0.8, abs=0.06)


GOOD = """name = "x"
text = ["{a}"]

[label]
column = "churned"
classes = [{ value = "no", name = "no" }, { value = "yes", name = "yes" }]

[[fields]]
name = "a"
column = "balance"

[[fields]]
name = "kids"
column = "children"
type = "integer"
bins = [0, 1, 2, 3, 4]

[[examples]]
label = "one"
row = { a = 1, kids = 2 }
"""


@pytest.mark.parametrize(
    ("change", "line", "message"),
    [
        (('text = ["{a}"]', 'text = ["{b}"]'), 2, "{b} is no field; there are: a, kids"),
        (('text = ["{a}"]', 'text = ["{a:.2f}"]'), 2, "plain names in braces"),
        (('column = "churned"', 'column = "gone"'), 5, "there is no column gone; there are: customerID, "),
        (('name = "no" }', 'name = "yes" }'), 6, "'yes' is there twice"),
        (('[{ value = "no", name = "no" }, ', "["), 6, "a list of at least 2 items"),
        (('column = "balance"', 'column = "balance "\ntype = "money"'), 11, "one of number, integer, boolean"),
        (('column = "balance"', 'column = "debt"'), 10, "there is no column debt"),
        (('name = "kids"', 'name = "a"'), 13, "'a' is there twice"),
        (('name = "kids"', 'name = "Kids"'), 13, "small letters, digits and _"),
        (
            ('type = "integer"', 'type = "integer"\nbin = 3'),
            16,
            "there is no such key here; there are: name, type, column",
        ),
        (("bins = [0, 1, 2, 3, 4]", "bins = [0, 2, 1]"), 16, "each above the one before"),
        (("bins = [0, 1, 2, 3, 4]", "minimum = 5\nmaximum = 1"), 17, "it is 1, and the minimum 5"),
        (("bins = [0, 1, 2, 3, 4]", 'levels = ["a"]'), 16, "a field of the type integer has none"),
        (("kids = 2", "kids = 2.5"), 20, "kids is 2.5; it must be a whole number"),
        (("kids = 2", "cats = 2"), 20, "row.cats: there is no such key here"),
        (('name = "x"', 'name = "x'), 1, "is not TOML"),
        (('name = "x"', 'name = "x"\nname = "y"'), 2, "is not TOML"),
        (('name = "x"', 'name = "x"\ngroup = "family"'), 2, "there is no column family"),
        (('name = "x"', 'name = "x"\nfeature = "ships"'), 2, "there is no feature ships"),
        (('name = "x"', "name = 3"), 1, "name: it must be a text, and is a whole number"),
        (("[[examples]]", "[[example]]"), 18, "there is no such key here; there are: name, label, "),
        (('column = "churned"', ""), 4, "column is missing"),
    ],
)
def test_a_fault_is_named_with_its_line(
    tmp_path: Path, rows: Path, change: tuple[str, str], line: int, message: str
) -> None:
    path = tmp_path / "table.toml"
    path.write_text(GOOD)
    assert read_description(path, rows).name == "x"
    path.write_text(GOOD.replace(*change))
    with pytest.raises(DataError) as error:
        read_description(path, rows)
    assert f"line {line}" in str(error.value)
    assert message in str(error.value)


def test_files_that_are_no_description_are_named(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "latin.toml").write_bytes('name = "Köln"'.encode("latin-1"))
    for path, message in ((tmp_path / "no.toml", "there is no file"), (tmp_path, "a folder")):
        with pytest.raises(DataError, match=message):
            read_description(path, rows)
    with pytest.raises(DataError, match="not UTF-8"):
        read_description(tmp_path / "latin.toml", rows)


def test_the_schema_of_a_file_is_found_by_its_columns_its_label_or_its_description(tmp_path: Path, rows: Path) -> None:
    assert find_schema(TITANIC) == SCHEMA
    assert find_schema(TITANIC, TITANIC_TABLE).label == SCHEMA.label
    assert find_schema(rows, label="churned").label.column == "churned"
    assert packaged_schema(["Survived", "Pclass"]) is None
    with pytest.raises(DataError, match="--label COLUMN"):
        find_schema(rows)


def test_numbers_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    columns = {"price": ["1.234,5", "2,5"] * 40, "cost": ["1,234", "17"] * 40, "n": list(range(80)), "y": outcomes(80)}
    path = write_csv(tmp_path, columns, ";")
    with pytest.raises(DataError) as error:
        describe_file(path, "y")
    assert "cost holds numbers with other signs ('1,234' on line 2)" in str(error.value)


CELLS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12),
    st.integers().map(str), st.floats().map(str), st.dates().map(str), st.booleans().map(str),
    st.sampled_from(["", "NA", "?", "0", "1", "yes", "no", "007", "1,234", "3.0", "$5", "x" * 300]),
)  # fmt: skip
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
NUMBERS = st.one_of(FLOATS, st.sampled_from([1e308, -1e308, 5e-324, 0.0, 1.7e9])).map(repr)
SMALL = st.one_of(st.integers(-3, 12), st.sampled_from(["", "NA"])).map(str)
COLUMN = st.one_of(*(st.lists(cells, min_size=24, max_size=24) for cells in (CELLS, NUMBERS, SMALL)))
NAMES = st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12), max_size=4)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data(), NAMES, st.sampled_from([("0", "1"), ("yes", "no"), ("a", "b "), ("1.0", "2")]))
def test_any_table_is_described_and_trains_or_is_refused_in_words(
    tmp_path: Path, data: st.DataObject, names: list[str], classes: tuple[str, str]
) -> None:
    columns = {name: data.draw(COLUMN) for name in names if name.strip().casefold() != "y"}
    path = write_csv(tmp_path, {**columns, "y": [classes[number % 3 == 0] for number in range(24)]})
    try:
        text, schema, _ = describe_file(path, "y")
    except DataError as error:
        reason = str(error)
    else:
        reason = ""
        table_file = tmp_path / "table.toml"
        table_file.write_text(text, encoding="utf-8")
        assert read_description(table_file, path) == schema
        read = read_table(path, schema)
        assert (len(read), read.labels.sum()) == (24, 8)
        assert len([*map(Renderer(schema), read.rows)]) == 24
    assert not reason or reason.startswith(str(path))
