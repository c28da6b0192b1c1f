"""Rows of a type made from a schema."""

import math
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.cells import CellError
from models.rows import RowError, Rows
from models.schema import schema_of
from tests.models.strategies import PASSENGERS
from tests.titanic import COLUMNS, ROWS, Passenger

CHURN = Rows(schema_of({
    "name": "churn", "row": "customer", "text": ["{tenure}"],
    "label": {"column": "Churn", "classes": [{"value": "No", "name": "stays"}, {"value": "Yes", "name": "leaves"}]},
    "fields": [
        {"name": "tenure", "type": "integer", "minimum": 0, "bins": [0, 12, 72], "required": True},
        {"name": "charges", "column": "Monthly charges", "type": "number", "bins": [0, 50, 100]},
        {"name": "contract", "type": "category", "levels": ["monthly", "yearly"], "required": True},
        {"name": "senior", "type": "boolean", "default": False},
        {"name": "comment", "type": "text"},
    ],
}))  # fmt: skip


def test_the_type_is_the_schemas() -> None:
    row = CHURN.struct(tenure=1, contract="monthly")
    assert type(row).__name__ == "Customer"
    assert msgspec.structs.asdict(row) == {
        "tenure": 1, "charges": None, "contract": "monthly", "senior": False, "comment": None,
    }  # fmt: skip
    assert Rows(CHURN.schema).struct is CHURN.struct
    assert tuple(COLUMNS) == Passenger.__struct_fields__
    assert hash(row) == hash(CHURN.struct(tenure=1, contract="monthly"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"tenure": 1, "contract": "daily"}', "Invalid enum value 'daily'"),
        ('{"tenure": 1.0, "contract": "monthly"}', "Expected `int`, got `float`"),
        ('{"tenure": -1, "contract": "monthly"}', "Expected `int` >= 0"),
        ('{"contract": "monthly"}', "missing required field `tenure`"),
        ('{"tenure": 1, "contract": "monthly", "senior": "no"}', r"Expected `bool \\| null`"),
        ('{"tenure": 1, "contract": "monthly", "age": 3}', "unknown field `age`"),
    ],
)
def test_json_is_strict(body: str, said: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=said.replace("\\\\", "\\")):
        msgspec.json.decode(body, type=CHURN.struct)


def test_columns_are_found_by_either_name_in_any_case() -> None:
    assert CHURN.find_columns(["Contract", "x", "MONTHLY CHARGES", "tenure "]) == {
        "contract": 0, "charges": 2, "tenure": 3,
    }  # fmt: skip
    with pytest.raises(RowError, match="the columns tenure and contract are missing; there are: a, b"):
        CHURN.find_columns(["a", "b"])
    with pytest.raises(RowError, match="the column Monthly charges is there 2 times"):
        CHURN.find_columns(["tenure", "contract", "charges", "Monthly Charges"])


def test_cells_become_a_row() -> None:
    row = CHURN.parse({"tenure": "3.0", "contract": "yearly", "senior": "", "comment": "NA"})
    assert row == CHURN.struct(tenure=3, contract="yearly", senior=False, comment="NA")
    with pytest.raises(CellError, match="contract is None; it must be one of monthly, yearly \\(it is required\\)"):
        CHURN.parse({"tenure": "3"})
    assert CHURN.convert({"tenure": 3.0, "contract": "yearly", "charges": math.nan}) == CHURN.struct(
        tenure=3, contract="yearly"
    )


def test_rows_are_checked_whatever_made_them() -> None:
    good = {"tenure": 1, "contract": "monthly"}
    assert CHURN.check([good, CHURN.struct(**good)]) == [CHURN.struct(**good)] * 2
    for row, said in (
        ({**good, "charges": "5"}, "row 1: charges is '5'; it must be a number, or unknown"),
        (CHURN.struct(tenure=-1, contract="monthly"), "row 1: tenure is -1; it must be a whole number of at least 0"),
        ({**good, "x": 1}, "row 1: Object contains unknown field `x`"),
        (7, "row 1 is a int; it must be a Customer or a mapping of its fields"),
    ):
        with pytest.raises(RowError, match=said):
            CHURN.check([good, row])


def test_a_typical_row_is_within_the_bounds() -> None:
    assert CHURN.check([CHURN.typical()]) == [CHURN.typical()]
    assert ROWS.typical().name == "Brown, Mrs. James Joseph (Margaret Tobin)"


@given(PASSENGERS)
def test_any_row_comes_back_from_json(row: Any) -> None:
    assert msgspec.json.decode(msgspec.json.encode(row), type=Passenger) == row
    assert ROWS.check([row]) == [row]


@given(st.dictionaries(st.sampled_from(["tenure", "charges", "contract", "senior", "comment"]), st.text(max_size=9)))
def test_any_cells_are_a_row_or_a_sentence(cells: dict[str, str]) -> None:
    try:
        row = CHURN.parse(cells)
    except CellError:
        return
    assert CHURN.check([row]) == [row]
