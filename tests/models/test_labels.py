import pytest

from models.labels import LabelReader
from models.schema import ClassName, Label


def label(*values: str) -> Label:
    return Label(column="kind", classes=tuple(ClassName(value=value, name=f"class {value}") for value in values))


@pytest.mark.parametrize(
    ("values", "cells"),
    [
        (("0", "1"), ("1", "1.0", " 1 ", "1e0", "True", "yes", "class 1", "CLASS 1")),
        (("no", "yes"), ("yes", "Yes", " YES ", "y", "true", "1", "1.0")),
        (("False", "True"), ("True", "true", "TRUE ", "1")),
        (("1", "2"), ("2", "2.0", "02", "+2")),
        (("b", "a"), ("a", "A", " a")),
        (("1.5", "2.50"), ("2.5", "2.500")),
        (("a", "A"), ("A",)),
    ],
)
def test_a_value_is_one_in_any_spelling(values: tuple[str, str], cells: tuple[str, ...]) -> None:
    read = LabelReader(label(*values))
    assert [read(cell) for cell in cells] == [1] * len(cells)
    assert read(values[0]) == 0


@pytest.mark.parametrize("cell", ["2", "maybe", "", "NA", "1_0", "nan", "inf"])
def test_what_is_no_class_is_none(cell: str) -> None:
    assert LabelReader(label("0", "1"))(cell) is None
    assert "it must be 0 or 1" in LabelReader(label("0", "1")).fault(cell)


def test_the_words_of_truth_are_one_value_only_between_two_of_them() -> None:
    assert LabelReader(label("1", "2"))("yes") is None
    assert LabelReader(label("no", "yes", "maybe"))("0") is None
    assert LabelReader(label("1", "yes"))("true") is None


def test_a_value_goes_before_a_name() -> None:
    turned = Label(column="x", classes=(ClassName(value="a", name="b"), ClassName(value="b", name="a")))
    assert [LabelReader(turned)(cell) for cell in "ab"] == [0, 1]


def test_of_many_classes_the_first_are_named() -> None:
    read = LabelReader(label(*map(str, range(30))))
    assert read.fault("x") == "kind is 'x'; it must be " + ", ".join(map(str, range(20))) + " or 10 more"


def test_a_cell_is_missing_where_it_is_spelled_so_and_no_class_is() -> None:
    read = LabelReader(label("none", "some"))
    assert [read.is_missing(cell) for cell in ("", " ", "NA", "nan", "none", "None", "x")] == [True] * 4 + [False] * 3
