"""Groups follow the schema, and a group whose probabilities are wrong is seen."""

import numpy as np
import pytest

from models.text import Renderer
from tests import churn
from tests.titanic import SCHEMA, Passenger
from training.data.table import Table
from training.evaluate import groups
from training.evaluate.groups import MAX_GROUPS, group_title, members
from training.evaluate.subgroups import score_subgroups


def test_passengers_are_grouped_by_their_schema(table: Table) -> None:
    known = Renderer(SCHEMA).feature.learn(table.rows, table.labels)  # type: ignore[union-attr]
    found = members(table.rows, SCHEMA, [known] * len(table))
    titles = [group_title(*key) for key in found]
    assert len(titles) == len(set(titles)) <= MAX_GROUPS
    assert titles[:10] == [
        "pclass: first class", "pclass: second class", "pclass: third class", "sex: male", "sex: female",
        "age: under 13", "age: 13 to 25", "age: 25 to 50", "age: 50 and over", "age: unknown",
    ]  # fmt: skip
    assert [title for title in titles if title.startswith("sibsp")] == [
        "sibsp: 0", "sibsp: 1", "sibsp: 2 to 3", "sibsp: 4 and over"
    ]  # fmt: skip
    for attribute in ("pclass", "sex", "age", "sibsp", "fare"):
        rows = np.concatenate([held for key, held in found.items() if key[0] == attribute])
        assert sorted(rows.tolist()) == list(range(len(table)))
    ages = {12.9: "under 13", 13: "13 to 25", 24.5: "13 to 25", 25: "25 to 50", 50: "50 and over", None: "unknown"}
    people = [Passenger(pclass=2, sex="male", age=age) for age in ages]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(groups, "MIN_GROUP_ROWS", 1)
        alone = members(people, SCHEMA, [None] * len(people))
    for row, band in enumerate(ages.values()):
        assert row in alone["age", band]
    companions = [row for row, one in enumerate(table.rows) if "women and children" in Renderer(SCHEMA)(one, known)]
    told = np.concatenate([found["women_and_children", f"women and children {word}"] for word in ("survived", "died")])
    assert set(told.tolist()) <= set(companions)
    assert set(companions).isdisjoint(found["women_and_children", "none"])


def test_other_tables_are_grouped_by_theirs() -> None:
    rows = churn.customers(900)
    found = members(rows, churn.SCHEMA, [None] * 900)
    cities = [group for attribute, group in found if attribute == "city"]
    assert cities == ["other"]  # Of each of the others there are too few rows.
    assert found["city", "other"].tolist() == [i for i, row in enumerate(rows) if row.city not in churn.CITIES[:7]]
    assert [group for attribute, group in found if attribute == "plan"] == [
        "small plan", "plan", "large plan", "unknown"
    ]  # fmt: skip
    assert [group for attribute, group in found if attribute == "senior"] == ["false", "senior", "unknown"]
    assert [group for attribute, group in found if attribute == "tenure"] == [
        "under 6", "6 to 23", "24 and over", "unknown"
    ]  # fmt: skip
    assert not any(attribute in ("note", "probability") for attribute, _ in found)


def test_subgroups_count_and_see_a_group_that_is_wrong(table: Table) -> None:
    female = np.array([one.sex == "female" for one in table.rows])
    rates = np.where(female, table.labels[female].mean(), table.labels[~female].mean())
    wrong = np.where(female, rates - 0.2, rates)
    held = members(table.rows, SCHEMA, [None] * len(table))
    found = {one.title: one for one in score_subgroups(held, table.labels, rates, wrong, np.random.default_rng(0))}
    assert found["sex: female"].rows == 314
    assert found["sex: female"].observed.value == pytest.approx(233 / 314)
    assert found["sex: female"].calibrated.excess.value == pytest.approx(0, abs=1e-12)
    assert found["sex: female"].raw.excess.value == pytest.approx(0.2)
    assert found["sex: female"].raw.excess_p < 1e-6 < found["sex: male"].raw.excess_p
    assert found["sex: female"].raw.calibration_error.p_value < 0.01
    assert found["pclass: first class"].calibrated.excess_p < 0.05


def test_a_group_of_the_same_rows_is_there_once() -> None:
    rows = [
        churn.Customer(city=churn.CITIES[row % 2], senior=bool(row % 2), plan=5 if row % 3 else 2) for row in range(90)
    ]
    assert [group_title(*key) for key in members(rows, churn.SCHEMA, [None] * 90)] == [
        "city 00", "city 01", "plan: small plan", "plan"
    ]  # fmt: skip
