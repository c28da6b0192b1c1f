import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.csv_table import MAX_CELL_CHARACTERS, CsvError, CsvRow, CsvTable


def read(content: bytes, separator: str | None = None) -> CsvTable:
    return CsvTable(io.BufferedReader(io.BytesIO(content)), separator)  # type: ignore[arg-type]


def rows(content: bytes) -> list[CsvRow]:
    return list(read(content))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_separators_and_line_ends_are_found(separator: str, end: str, mark: str) -> None:
    lines = (["name", "size"], ["Zoë", "1,5" if separator != "," else "1.5"], ["北京", ""])
    table = read((mark + end.join(map(separator.join, lines))).encode())
    assert (table.header, table.separator) == (lines[0], separator)
    assert list(table) == [CsvRow(2, lines[1]), CsvRow(3, lines[2])]


def test_a_decimal_comma_is_no_separator_and_one_column_has_none() -> None:
    assert read(b"a;b\n1,5;2,5\n3,5;4,5\n").header == ["a", "b"]
    assert read(b"text\nhello, you\nand you\n").header == ["text"]
    assert read(b"a:b\n1:2\n", ":").header == ["a", "b"]
    assert read(b"sep=|\na|b\n1|2\n").header == ["a", "b"]


def test_lines_are_an_editors() -> None:
    content = b'a,b\n\n1,"two\nlines"\n  \n3,4\n,\n"5\n\n\n",6\n7,8'
    assert [row.line for row in rows(content)] == [3, 6, 7, 8, 12]
    assert [row.cells for row in rows(b'a\n\n""\n1\n')] == [[""], ["1"]]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (b"1", "has 1 cell, the header has 2"),
        (b"1,2,3", "has 3 cells, the header has 2 (a comma inside a cell needs quotes"),
        (b"1,2,", "has 3 cells"),
        (b"caf\xe9,2", "is not UTF-8: its byte 0xe9 is \xe9 in Latin-1; save the file as UTF-8"),
        (b"1,\x00", "holds a NUL character"),
        (b'"x"y,2', "quotation marks that do not pair"),
        (b'1,"x', "quotation marks that do not pair"),
        (b'1,"' + b"x" * 1_000_000 + b'"', "more than 131,072 characters"),
        (b"1," + b"x" * 10_000_000, "is longer than 8,388,608 characters"),
    ],
)
def test_a_faulty_row_is_named_by_its_line_and_the_others_are_read(line: bytes, fault: str) -> None:
    good, bad, *rest = rows(b"a,b\n1,2\n" + line + b"\n3,4\n5,6\n")
    assert good == CsvRow(2, ["1", "2"])
    assert (bad.line, bad.cells) == (3, [])
    assert fault in bad.fault
    assert rest == [CsvRow(4, ["3", "4"]), CsvRow(5, ["5", "6"])]


def test_a_quote_that_is_never_closed_costs_one_row() -> None:
    content = b'a,b\n1,"x\n' + b"2,y\n" * 100_000
    first, *others = rows(content)
    assert "is a quotation mark not closed?" in first.fault
    assert [row.line for row in others] == list(range(3, 100_003))
    assert not any(row.fault for row in others)


def test_a_last_row_that_is_cut_is_named() -> None:
    assert "it is cut short" in rows(b"a,b,c\n1,2,3\n4,5")[-1].fault
    assert rows(b"a,b,c\n1,2,3\n4,5,6")[-1].fault == ""


def test_a_mark_inside_a_cell_is_a_mark() -> None:
    assert rows(b'a,b\n5" pipe, "x, ""y"""\n') == [CsvRow(2, ['5" pipe', 'x, "y"'])]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"\n \n", "it is empty"),
        (b",\n1,2\n", "names no column"),
        ("a,b\n1,2\n".encode("utf-16"), "it is UTF-16; save it as UTF-8"),
        ("a,b\n1,2\n".encode("utf-16-le"), "it is UTF-16; save it as UTF-8"),
        ("größe,b\n".encode("latin-1"), "line 1 is not UTF-8: its byte 0xf6 is ö in Latin-1"),
        (b"PK\x03\x04...", "a workbook or a zip archive"),
        (b"\x1f\x8b...", "compressed by gzip"),
        (b"a, b ,a\n", "the column a is there 2 times"),
        (b"Age,age\n", "the columns Age and age differ by case alone"),
    ],
)
def test_a_file_that_is_no_table_is_one_sentence(content: bytes, message: str) -> None:
    with pytest.raises(CsvError, match=message):
        read(content)


@pytest.mark.parametrize("separator", ["", "ab", "a", '"', "\n", "."])
def test_a_separator_that_cannot_be_one_is_refused(separator: str) -> None:
    with pytest.raises(CsvError, match="the separator is"):
        read(b"a,b\n", separator)


CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)


@given(st.lists(st.lists(CELL, min_size=2, max_size=2), max_size=8), st.sampled_from(",;\t|"))
def test_whatever_is_written_is_read(cells: list[list[str]], separator: str) -> None:
    def quoted(row: list[str]) -> str:
        return separator.join('"' + cell.replace('"', '""') + '"' for cell in row)

    table = read("\n".join(map(quoted, [["a", "b"], *cells])).encode(), separator)
    assert [row.cells for row in table] == cells


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_else(content: bytes) -> None:
    try:
        table = read(content)
    except CsvError:
        return
    assert all((len(row.cells) == len(table.header)) != bool(row.fault) for row in table)


def test_the_limit_of_a_cell_is_the_modules() -> None:
    assert rows(b"a,b\n1," + b"x" * MAX_CELL_CHARACTERS + b"\n")[0].fault == ""
