from pathlib import Path

import numpy as np
import pytest

from tests.training.data.tables import described, every_kind, outcomes
from training.data.describing import Description
from training.data.source import DataError

N = 300
RNG = np.random.default_rng(3)
NOISE = RNG.normal(size=N).round(3).tolist()
Y = outcomes(N)


def types(description: Description) -> dict[str, str]:
    return {each.field["column"]: each.field["type"] for each in description.fields}


def said(description: Description, column: str) -> tuple[bool, str]:
    """Whether a column is left out, and all that is said of it."""
    (found,) = (each for each in description.fields if each.field["column"] == column)
    return found.left_out, "; ".join(caveat.sentence for caveat in found.caveats)


def repeated(values: list[object]) -> list[object]:
    return (values * N)[:N]


def test_a_type_for_every_column(tmp_path: Path) -> None:
    found = described(
        tmp_path, y=Y, number=NOISE, whole=[f"{value}.0" for value in RNG.integers(0, 99, N)], gaps=repeated(["3", ""]),
        truth=repeated(["Y", "n"]), zero_one=repeated([0, 1, "NA"]), few=repeated(["a", "b", "c"]),
        many=[f"v{value % 120}" for value in range(N)], wide=repeated([f"w{value}" for value in range(30)]),
        text=[f"some words {value}" for value in NOISE], zip=[f"{value:05d}" for value in RNG.integers(0, 9999, N)],
    )  # fmt: skip
    assert types(found) == {
        "number": "number", "whole": "integer", "gaps": "integer", "truth": "boolean", "zero_one": "boolean",
        "few": "category", "many": "text", "wide": "category", "text": "text", "zip": "text",
    }  # fmt: skip


def test_a_category_of_many_values_needs_many_rows_of_each(tmp_path: Path) -> None:
    cities = [f"city {value % 120}" for value in range(2400)]
    assert types(described(tmp_path, y=outcomes(2400), city=cities)) == {"city": "category"}
    assert types(described(tmp_path, y=outcomes(600), city=cities[:600])) == {"city": "text"}


@pytest.mark.parametrize(
    ("cells", "left_out", "sentence"),
    [
        (["x"] * N, True, "is 'x' in every row"),
        (["", "NA"] * (N // 2), True, "has no value in any row"),
        (list(range(N)), True, "has a value of its own in each row"),
        ([f"u{value}" for value in range(N)], True, "has a value of its own in each row"),
        ([10**17 + 7 * value for value in range(N)], True, "has a value of its own in each row"),
        ([f"2024-01-{value % 28 + 1:02d}" for value in range(N)], True, "holds dates ('2024-01-01' on line 2, "),
        (["1,500", "20"] * (N // 2), True, "holds numbers with other signs ('1,500' on line 2)"),
        ([f"{value:.1f} €" for value in NOISE], True, "holds numbers with other signs"),
        (["reason" * value for value in Y], True, "gives the label away (area under the ROC curve 1.0000 alone)"),
        ([1 + value / 10 for value in Y], True, "gives the label away"),
        ([*map(str, range(N - 2)), "lost", "lost"], False, "2 of 300 cells are no numbers ('lost' on line 300)"),
        (["ab", "AB ", "a b"] * (N // 3), False, "differ by case or blanks alone: 'ab' and 'AB' and 'a b'"),
        (["a"] * (N - 1) + ["b"], False, "is 'a' in all but 1 of 300 rows"),
        (["a", "", "b", "NA"] * (N // 4), False, "is unknown in 50 % of the rows"),
        ([f"words no {value}" for value in range(N)], False, "is a text of up to 12 characters"),
    ],
)  # fmt: skip
def test_what_looks_wrong_is_said_and_what_teaches_nothing_is_left_out(
    tmp_path: Path, cells: list[object], left_out: bool, sentence: str
) -> None:
    found = said(described(tmp_path, y=Y, other=NOISE, thing=cells), "thing")
    assert found[0] == left_out
    assert sentence in found[1]


def test_names_help_to_tell_ids_from_numbers(tmp_path: Path) -> None:
    unique = RNG.permutation(10_000)[:N].tolist()
    found = described(tmp_path, y=Y, order_no=unique, income=unique, clientId=repeated([f"c{v}" for v in range(100)]))
    assert said(found, "order_no")[0]
    assert said(found, "income") == (
        False,
        "has a value of its own in each row; if it is an id, delete it here and in `text`",
    )
    assert 'group = "clientId"' in said(found, "clientId")[1]


def test_bounds_have_room_and_levels_are_by_frequency(tmp_path: Path) -> None:
    ages = RNG.integers(18, 81, N).tolist()
    found = described(tmp_path, y=Y, age=[18, 80, *ages[2:]], change=NOISE, level=["b"] * 200 + ["a"] * 100)
    age, change, level = (each.field for each in found.fields)
    assert (age["minimum"], age["maximum"], age["required"], age["unit"]) == (0, 150, True, "")
    assert change["minimum"] < 2 * min(NOISE) < 0 < 2 * max(NOISE) < change["maximum"]
    assert age["bins"][0] == 18
    assert age["bins"][-1] == 80
    assert level["levels"] == ["b", "a"]


def test_a_few_whole_numbers_have_a_bin_each(tmp_path: Path) -> None:
    (found,) = described(tmp_path, y=Y, n=repeated([0, 1, 2, 5])).fields
    assert found.field["bins"] == [0, 1, 2, 5, 6]
    assert "words" not in found.field


@pytest.mark.parametrize(
    "cells", [[1.7e9 + 0.5, 1.7e9 + 0.25], [5e-324, 0.0], [1.7e308, -1.7e308], [-1e15, 1e15 + 2], [3.5, 3.5]]
)
def test_bins_of_any_two_numbers_rise(tmp_path: Path, cells: list[float]) -> None:
    bins = described(tmp_path, y=Y, other=NOISE, x=repeated([*map(repr, cells), ""])).fields[1].field["bins"]
    assert len(bins) >= 2
    assert bins == sorted(set(bins))


@pytest.mark.parametrize(
    ("cells", "classes"),
    [
        (["no"] * 9 + ["yes"], [("no", "not y"), ("yes", "y")]),
        (["yes"] * 9 + ["no"], [("yes", "y"), ("no", "not y")]),
        (["1.0", "0.0", "1"] * 4, [("1.0", "y"), ("0.0", "not y")]),
        (["TRUE", "False"] * 4, [("False", "not y"), ("TRUE", "y")]),
        (["good", "bad"] * 5, [("bad", "bad"), ("good", "good")]),
        (["10", "9", "2"] * 5, [("2", "2"), ("9", "9"), ("10", "10")]),
        (["yes", "no", "1", "0", "Y"] * 5, [("yes", "y"), ("no", "not y")]),
    ],
)
def test_classes_of_the_label(tmp_path: Path, cells: list[str], classes: list[tuple[str, str]]) -> None:
    found = described(tmp_path, y=cells, x=NOISE[: len(cells)])
    named = [(each["value"], each["name"]) for each in found.label["classes"]]
    assert named == classes


def test_of_several_classes_order_and_rare_ones_are_spoken_of(tmp_path: Path) -> None:
    cells = ["mid"] * 20 + ["low"] * 10 + ["high"] * 7 + ["odd"] * 3
    found = described(tmp_path, y=cells, x=NOISE[: len(cells)])
    assert [each["name"] for each in found.label["classes"]] == ["high", "low", "mid", "odd"]
    notes = " ".join(found.label_notes)
    assert "7 × high (18 %), 10 × low (25 %), 20 × mid (50 %), 3 × odd (7.5 %)." in notes
    assert "Their order is that of the page and of all tables" in notes
    assert "Of high there are only 7 rows: too few to learn from." in notes
    assert "Of odd there are only 3 rows: `fit` refuses fewer than 4: add some" in notes
    assert "positive" not in notes


def test_few_whole_numbers_are_classes(tmp_path: Path) -> None:
    found = described(tmp_path, y=[number % 30 for number in range(N)], x=NOISE)
    assert [each["name"] for each in found.label["classes"]] == [str(number) for number in range(30)]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ([1] * N, "has only the value '1'"),
        ([""] * N, "has no value at all"),
        (NOISE, r"is a number with 2\d\d different values, and to predict a number is regression"),
        ([round(abs(x) * 20) for x in NOISE], "different values, and to predict a number is regression"),
        ([f"w{x}" for x in NOISE], "may have 2 to 100"),
        (["a" * 150, "b"] * (N // 2), "a class has a short name"),
    ],
)
def test_a_label_that_is_none_is_refused(tmp_path: Path, label: list[object], message: str) -> None:
    with pytest.raises(DataError, match=message):
        described(tmp_path, y=label, x=NOISE)


def test_nothing_to_learn_from_is_said_with_the_reasons(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"anything can be learned from:\n  a is 'x' in every row\n  b has a value of its"
    ):
        described(tmp_path, y=Y, a=["x"] * N, b=list(range(N)))
    with pytest.raises(DataError, match=r"anything can be learned from$"):
        described(tmp_path, y=Y)
    with pytest.raises(DataError, match="has no column z; it has y"):
        described(tmp_path, "z", y=Y)


def test_notes_about_the_table_and_the_label(tmp_path: Path) -> None:
    found = described(tmp_path, y=["0"] * 60 + ["1"] * 2 + [""] * 3, x=[1] * 33 + [2] * 32)
    assert "cell by cell: 61 (94 %)" in " ".join(found.notes)
    notes = " ".join(found.label_notes)
    assert "60 × 0 (97 %), 2 × 1 (3.2 %)" in notes
    assert "Of 1 there are only 2 rows" in notes
    assert "Without a label: 3 rows" in notes


def test_examples_are_made_up(tmp_path: Path) -> None:
    columns = every_kind()
    found = described(tmp_path, "churned", **columns)
    rows = [each["row"] for each in found.examples]
    assert rows[0]["note"] == "a text"
    assert all(18 <= row["age_years"] <= 90 for row in rows)
    assert {each["label"] for each in found.examples} <= {"typical row", "typical of churned", "typical of not churned"}


def test_no_more_fields_than_a_table_may_have(tmp_path: Path) -> None:
    found = described(tmp_path, y=outcomes(30), **{f"x{number}": NOISE[:30] for number in range(230)})
    assert sum(not each.left_out for each in found.fields) == len(found.schema.fields) == 200
    assert "beyond the 200 fields" in said(found, "x229")[1]
