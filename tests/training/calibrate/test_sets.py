"""Prediction sets by a field: their guarantee by simulation, an oracle, and what becomes of groups of few rows."""

import math
from fractions import Fraction

import numpy as np
import pytest

from models.calibration.conformal import ConformalSets
from models.calibration.logit import softmax
from tests import churn
from training.calibrate.sets import RowGroups, fit_sets, rows_needed
from training.calibrate.sets_choice import CHANCE, SetsBy, binomial_cdf, held_out_coverage

GROUPS = ("north", "south", "east", "unknown")
SHARES = (0.55, 0.3, 0.14, 0.01)
Sample = tuple[np.ndarray, np.ndarray, RowGroups]


def drawn(rng: np.random.Generator, rows: int, classes: int) -> Sample:
    """Probabilities (n, K) that are wrong in another way in each group, labels and groups."""
    groups = rng.choice(len(GROUPS), rows, p=SHARES)
    logits = rng.normal(0, 1.2, (rows, classes))
    truth = softmax(logits + 1.2 * np.outer(groups - 1, np.linspace(-1, 1, classes)))
    y = (rng.random((rows, 1)) > truth.cumsum(axis=1)).sum(axis=1).clip(max=classes - 1)
    return softmax(1.5 * logits), y, RowGroups("region", GROUPS, groups)


def cells(sample: Sample, inside: np.ndarray, classes: int) -> np.ndarray:
    """Of each class (K) in each group (G) the rows whose set holds it, and all of its rows: (2, K, G)."""
    _, y, groups = sample
    held = inside[np.arange(len(y)), y]
    flat = y * len(GROUPS) + groups.of_row
    counts = [np.bincount(flat, weights, minlength=classes * len(GROUPS)) for weights in (held, np.ones(len(y)))]
    return np.array(counts).reshape(2, classes, len(GROUPS))


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("coverage", [0.8, 0.9])
def test_sets_hold_the_class_of_each_classs_rows_in_each_group(classes: int, coverage: float) -> None:
    rng = np.random.default_rng(classes)
    conditional, plain = np.zeros((2, 250, classes, len(GROUPS)))
    for run in range(250):
        p, y, groups = drawn(rng, 500, classes)
        new = drawn(rng, 3000, classes)
        by_group = fit_sets(p, y, coverage, groups).sets(new[0], new[2].of_row)
        for found, inside in ((conditional, by_group), (plain, fit_sets(p, y, coverage).sets(new[0]))):
            held, rows = cells(new, inside, classes)
            found[run] = np.divide(held, rows, out=np.full_like(held, np.nan), where=rows > 0)
    # The last group has too few rows for thresholds of its own: what it gets is the class's.
    mean, error = (f(conditional[..., :3], axis=0) for f in (np.nanmean, np.nanstd))
    assert (mean >= coverage - 4 * error / math.sqrt(250)).all()
    assert (mean <= coverage + 0.06).all()
    # And it is no empty promise: without groups there is one whose rows are missed more often than that.
    assert np.nanmean(plain[..., :3], axis=0).min() < 1 - 1.3 * (1 - coverage)


def test_they_are_mondrian_conformal_sets_by_definition() -> None:
    """A class is in the set where its p-value, (#{scores of its category ≥ own} + 1) / (n + 1), is above 1 − coverage
    (Vovk et al., 2005, section 4.5)."""
    rng = np.random.default_rng(0)
    p, y, groups = drawn(rng, 400, 3)
    p, new = p.round(2), drawn(rng, 200, 3)
    sets = fit_sets(p, y, 0.9, groups)
    inside = sets.sets(new[0].round(2), new[2].of_row)
    scores, fresh = 1 - p, 1 - new[0].round(2)
    for row, group in enumerate(new[2].of_row.tolist()):
        for k in range(3):
            category = scores[(y == k) & (groups.of_row == group), k]
            if len(category) < rows_needed(0.9):
                continue
            above = int((category >= fresh[row, k]).sum())
            assert inside[row, k] == (Fraction(above + 1, len(category) + 1) > Fraction(1, 10))


def test_groups_of_few_rows_share_a_threshold_and_where_even_these_are_few_have_the_classs() -> None:
    assert [rows_needed(coverage) for coverage in (0.8, 0.9, 0.95, 0.55)] == [4, 9, 19, 2]
    of_row = np.array([0] * 20 + [1] * 6 + [2] * 5)
    p = np.linspace(0.3, 0.9, 31)
    sets = fit_sets(np.stack([p, 1 - p], axis=1), np.zeros(31, int), 0.9, RowGroups("f", ("a", "b", "c", "d"), of_row))
    own, shared = np.sort(1 - p[:20])[18], np.sort(1 - p[20:])[10]
    assert [sets.groups[name][0] for name in "abcd"] == [own, shared, shared, shared]
    assert {each[1] for each in sets.groups.values()} == {1.0}, "a class without rows is in every set"
    few = of_row[: 20 + 6]
    sets = fit_sets(np.stack([p, 1 - p], axis=1)[:26], np.zeros(26, int), 0.9, RowGroups("f", ("a", "b"), few))
    assert sets.groups["b"][0] == sets.thresholds[0] == np.sort(1 - p[:26])[24]


def test_held_out_coverage_is_that_of_thresholds_set_by_all_other_rows() -> None:
    p, y, _ = drawn(np.random.default_rng(3), 120, 3)
    y[y == 2] = 1
    y[:6] = 2
    p = p.round(1)
    found = held_out_coverage(p, y, 0.9)
    for row in range(len(y)):
        others = np.arange(len(y)) != row
        inside = fit_sets(p[others], y[others], 0.9).sets(p[row : row + 1])
        assert found[row] == inside[0, y[row]]
    assert found[y == 2].all(), "so few rows are in every set"


def test_a_field_is_chosen_by_chance_in_at_most_one_table_of_twenty() -> None:
    rng, chosen = np.random.default_rng(5), 0
    for _ in range(300):
        p, y, _ = drawn(rng, 300, 2)
        fields = {f"f{n}": RowGroups(f"f{n}", ("a", "b", "c"), rng.integers(0, 2, 300)) for n in range(4)}
        chosen += SetsBy(fields).choose(p, y, 0.9) is not None
    assert chosen / 300 <= CHANCE


def test_the_field_whose_groups_are_missed_is_chosen_and_only_where_it_is_not_named() -> None:
    rng = np.random.default_rng(6)
    p, y, region = drawn(rng, 8000, 2)
    fields = {"region": region, "noise": RowGroups("noise", ("a", "b"), rng.integers(0, 2, 8000))}
    chosen = SetsBy(fields).choose(p, y, 0.9)
    assert chosen is not None
    assert chosen.field == "region"
    named = SetsBy(fields, "noise").choose(p, y, 0.9)
    assert named is not None
    assert named.field == "noise"
    assert SetsBy(fields, "none").choose(p, y, 0.9) is None
    rest = np.arange(7000)
    some = SetsBy(fields).choose(p[rest], y[rest], 0.9, rest)
    assert some is not None
    assert len(some.of_row) == 8000


def test_fields_are_those_that_are_named_or_all_categories_and_booleans() -> None:
    rows = churn.customers(200)
    rng = np.random.default_rng(0)
    p, y = softmax(rng.normal(size=(200, 2))), rng.integers(0, 2, 200)
    by_bill = SetsBy.of(rows, churn.SCHEMA, "bill").fit(p, y, 0.9)
    assert by_bill.by == "bill"
    assert tuple(by_bill.groups) == ("0-20", "20-60", "60-500", "unknown")
    assert len({each[0] for each in by_bill.groups.values()}) > 2
    by_bill.check_schema(churn.SCHEMA)
    assert SetsBy.of(rows, churn.SCHEMA, "none").fit(p, y, 0.9).by is None
    assert set(SetsBy.of(rows, churn.SCHEMA)._groups) == {"city", "plan", "senior"}


def test_the_binomial_law() -> None:
    assert binomial_cdf(3, 10, 0.5) == pytest.approx(sum(math.comb(10, k) for k in range(4)) / 1024)
    assert binomial_cdf(10, 10, 0.9) == 1


@pytest.mark.parametrize(
    "fault",
    [
        {"by": "region"}, {"groups": {"a": (0.5, 0.5)}}, {"by": "region", "groups": {"a": (0.5,)}},
        {"by": "region", "groups": {"a": (0.5, 1.5)}},
    ],
)  # fmt: skip
def test_sets_with_half_of_what_they_need_are_refused(fault: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"groups must be|thresholds one in"):
        ConformalSets(coverage=0.9, thresholds=(0.5, 0.5), **fault)  # type: ignore[arg-type]
