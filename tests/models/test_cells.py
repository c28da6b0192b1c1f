"""Cells → values: one rule whatever the cell came from, and sentences that say what is accepted."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cells import CellError, accepts, parse_cell, parse_value
from models.schema import Field

AGE = Field(name="age", column="Age", type="number", minimum=0, maximum=120, bins=(0, 120))
COUNT = Field(name="count", type="integer", minimum=0, maximum=20, bins=(0, 20), required=True)
FREE = Field(name="free", type="integer", bins=(0, 20))
CLASS = Field(name="pclass", type="category", levels=(1, 2, 3))
CITY = Field(name="city", type="category", levels=("Bern", "New York", "NA", "07"))
SENIOR = Field(name="senior", type="boolean")
SPELLED = Field(name="churn", type="boolean", levels=("Bleibt", "Geht"))
NEEDED = Field(name="needed", type="text", required=True)
NAME = Field(name="name", type="text", max_length=10)


@pytest.mark.parametrize(
    ("field", "cell", "value"),
    [
        (AGE, " 38 ", 38.0), (AGE, "0.42", 0.42), (AGE, "1e1", 10.0), (AGE, "", None), (AGE, "NA", None),
        (AGE, "NaN", None), (AGE, " n/a", None), (AGE, "null", None), (AGE, "None", None),
        (COUNT, "3", 3), (COUNT, "3.0", 3), (COUNT, "+3", 3), (COUNT, "2e1", 20),
        (CLASS, "3", 3), (CLASS, "3.0", 3), (CLASS, "", None), (CITY, "NA", "NA"), (CITY, "07", "07"),
        (CITY, " New York ", "New York"), (CITY, "nan", None),
        (SENIOR, "yes", True), (SENIOR, "No", False), (SENIOR, "1.0", True), (SENIOR, "FALSE", False),
        (SENIOR, "", None),
        (SPELLED, "geht", True), (SPELLED, "Bleibt", False),
        (NAME, "Null", "Null"), (NAME, "NA", "NA"), (NAME, "  ", None), (NAME, "1,234", "1,234"),
    ],
)  # fmt: skip
def test_cells_of_text(field: Field, cell: str, value: Any) -> None:
    found = parse_cell(field, cell)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("field", "value", "wanted"),
    [
        (COUNT, 3.0, 3), (COUNT, 3, 3), (AGE, 3, 3.0), (AGE, math.nan, None), (AGE, None, None), (AGE, "38", 38.0),
        (CLASS, 3.0, 3), (CLASS, 3, 3), (CITY, 7.0, None), (SENIOR, 1.0, True), (SENIOR, True, True),
        (SENIOR, 0, False),
        (NAME, 349909, "349909"), (NAME, 349909.0, "349909"), (NAME, "x", "x"),
    ],
)  # fmt: skip
def test_values_of_any_type(field: Field, value: Any, wanted: Any) -> None:
    if field is CITY:
        with pytest.raises(CellError, match=r"city is 7\.0; it must be one of Bern"):
            parse_value(field, value)
        return
    found = parse_value(field, value)
    assert found == wanted
    assert type(found) is type(wanted)


@pytest.mark.parametrize(
    ("field", "cell", "said"),
    [
        (AGE, "abc", "Age is 'abc'; it must be a number from 0 to 120, or unknown"),
        (AGE, "-1", "Age is '-1'; it must be a number from 0 to 120, or unknown"),
        (AGE, "inf", "Age is 'inf'; it must be a number from 0 to 120, or unknown"),
        (AGE, "1_0", "Age is '1_0'; it must be a number from 0 to 120, or unknown"),
        (AGE, "1,234", "Age is '1,234'; it must be a number from 0 to 120, or unknown (thousands separators are not"
                       " read; write 1234)"),
        (AGE, "12,5", "Age is '12,5'; it must be a number from 0 to 120, or unknown (decimals have a point; write"
                      " 12.5)"),
        (NEEDED, " ", "needed is ' '; it must be a text (it is required)"),
        (COUNT, "", "count is ''; it must be a whole number from 0 to 20 (it is required)"),
        (COUNT, "2.5", "count is '2.5'; it must be a whole number from 0 to 20"),
        (FREE, "x", "free is 'x'; it must be a whole number, or unknown"),
        (CLASS, "4", "pclass is '4'; it must be one of 1, 2, 3, or unknown"),
        (CITY, "new  york", "city is 'new  york'; it must be one of Bern, New York, NA, 07, or unknown"
                            " (did you mean 'New York'?)"),
        (SENIOR, "maybe", "senior is 'maybe'; it must be false or true, or unknown"),
        (SPELLED, "yes", "churn is 'yes'; it must be Bleibt or Geht, or unknown"),
        (NAME, "x" * 11, "name is 'xxxxxxxxxxx'; it must be a text of at most 10 characters, or unknown (it has 11)"),
        (NAME, "a\0b", "name is 'a\\x00b'; it must be a text of at most 10 characters, or unknown (it holds a NUL"
                       " character)"),
    ],
)  # fmt: skip
def test_what_is_refused_is_shown_with_what_is_accepted(field: Field, cell: str, said: str) -> None:
    with pytest.raises(CellError) as refused:
        parse_cell(field, cell)
    assert str(refused.value) == said


def test_many_levels_and_long_values_are_cut() -> None:
    towns = Field(name="town", type="category", levels=tuple(f"t{number}" for number in range(30)))
    assert accepts(towns).endswith("t19 and 10 more, or unknown")
    with pytest.raises(CellError, match="x…; it must be"):
        parse_cell(towns, "x" * 1000)


@given(st.floats(0, 120))
def test_any_number_in_bounds_is_itself(number: float) -> None:
    assert parse_cell(AGE, repr(number)) == parse_value(AGE, number) == number


@given(st.text(max_size=30))
def test_any_cell_is_a_value_or_a_sentence(cell: str) -> None:
    for field in (AGE, COUNT, CLASS, CITY, SENIOR, SPELLED, NAME):
        try:
            value = parse_cell(field, cell)
        except CellError:
            continue
        assert value is None or parse_value(field, value) == value
