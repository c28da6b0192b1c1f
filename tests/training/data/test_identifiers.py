import keyword
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.identifiers import identifier, identifiers, table_name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Age", "age"), ("MonthlyCharges", "monthly_charges"), ("customerID", "customer_id"), ("HTTPCode", "http_code"),
        ("Größe (cm)", "grosse_cm"), ("od280/od315", "od280_od315"), ("2019", "n_2019"), ("class", "class_"),
        ("  a  b ", "a_b"), ("Éléments", "elements"), ("возраст", "column_3"), ("年齢", "column_3"), ("%", "column_3"),
    ],
)  # fmt: skip
def test_a_columns_name_as_an_identifier(name: str, expected: str) -> None:
    assert identifier(name, 2) == expected


@given(st.lists(st.text(max_size=70), max_size=10, unique_by=lambda name: name.strip().casefold()))
def test_identifiers_are_that_and_none_is_there_twice(names: list[str]) -> None:
    found = identifiers(names)
    assert len(set(found)) == len(names)
    assert all(re.fullmatch(r"[a-z][a-z0-9_]{0,59}", name) and not keyword.iskeyword(name) for name in found)


def test_no_identifier_is_another_columns_name() -> None:
    assert identifiers(["a b", "a_b", "A-B"]) == ["a_b_2", "a_b", "a_b_3"]


@given(st.text(max_size=150))
def test_a_tables_name_is_what_a_bundle_may_be_called(stem: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", table_name(stem))
