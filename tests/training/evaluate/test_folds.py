"""Rows that are held out: stratified, each once, and never apart from rows that they are equal to or belong to."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedKFold

from tests.training.commands import run_here
from training.data.table import Table
from training.evaluate import folds as module
from training.evaluate.folds import (
    FEW_FOLDS,
    FOLDS,
    MANY_ROWS,
    TRAINED_ON,
    VERY_MANY_ROWS,
    Units,
    choose_folds,
    find_units,
    make_folds,
)


def test_without_equal_rows_the_folds_are_scikit_learns(table: Table) -> None:
    units = find_units(table.rows, table.groups)
    assert units.single
    assert not units.note
    expected = np.empty(len(table), np.int64)
    splitter = StratifiedKFold(5, shuffle=True, random_state=3)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(table)), table.labels)):
        expected[held_out] = fold
    assert np.array_equal(make_folds(table.labels, 5, 3, units), expected)
    assert np.array_equal(make_folds(table.labels, 5, 3), expected)


def test_every_row_twice_is_told_and_copies_stay_together(table: Table) -> None:
    rows, labels = (*table.rows, *table.rows), np.concatenate([table.labels, table.labels])
    units = find_units(rows, None)
    assert units.note == "every row is there twice or more, and equal rows are held out together"
    folds = make_folds(labels, 5, 0, units)
    assert np.array_equal(folds[: len(table)], folds[len(table) :])
    counts = np.array([[np.sum((folds == fold) & (labels == label)) for label in (0, 1)] for fold in range(5)])
    assert (np.ptp(counts, axis=0) <= 2).all()


def test_equal_fields_with_different_labels_and_groups_that_share_them_are_one_unit() -> None:
    rows = ["a", "b", "a", "c", "d", "e"]
    assert find_units(rows * 9, None).of_row.max() + 1 == 54, "too few different rows: divided like others"
    many = [f"row {number}" for number in range(60)]
    units = find_units(["a", "b", "a", *many], np.array([0, 1, 2, 1, *range(3, 62)]))
    together = units.of_row[[0, 2]], units.of_row[[1, 3]]
    assert all(len(set(each.tolist())) == 1 for each in together)
    assert len(np.unique(units.of_row)) == 61
    assert "2 of 63 rows are there twice" in units.note


@given(
    st.lists(st.tuples(st.integers(0, 40), st.booleans()), min_size=30, max_size=120),
    st.integers(2, 5),
    st.integers(0, 3),
)
def test_no_unit_is_divided_and_every_fold_has_every_class(
    members: list[tuple[int, bool]], folds: int, seed: int
) -> None:
    of_row = np.unique([unit for unit, _ in members], return_inverse=True)[1]
    labels = np.array([int(label) for _, label in members])
    assume(0 < labels.sum() < len(labels))
    units = Units(of_row=of_row)
    try:
        assigned = make_folds(labels, folds, seed, units)
    except ValueError:
        # With so few units of a class there may be no such folds.
        assert min(len(np.unique(of_row[labels == label])) for label in (0, 1)) < 3 * folds
        return
    assert set(assigned.tolist()) == set(range(folds))
    for unit in range(int(of_row.max()) + 1):
        assert len(set(assigned[of_row == unit].tolist())) == 1
    for label in (0, 1):
        counts = np.bincount(assigned[labels == label], minlength=folds)
        assert counts.min() > 0
        if len(np.unique(of_row)) == len(of_row):
            assert np.ptp(counts) <= 1


def test_many_rows_are_divided_evenly_with_a_few_equal_ones_among_them() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random(20_000) < 0.02).astype(int)
    of_row = np.arange(20_000)
    of_row[100:400] = of_row[:300] // 3
    assigned = make_folds(labels, 5, 0, Units(of_row=np.unique(of_row, return_inverse=True)[1]))
    for label in (0, 1):
        assert np.ptp(np.bincount(assigned[labels == label])) <= 4


def test_one_fold_is_a_part_that_is_held_out_once() -> None:
    labels = np.arange(1000) % 10 // 9
    held = make_folds(labels, 1, 0)
    assert sorted(np.unique(held).tolist()) == [TRAINED_ON, 0]
    assert (held == 0).sum() == 200
    assert labels[held == 0].sum() == 20
    large = make_folds(np.arange(200_000) % 2, 1, 0)
    assert (large == 0).sum() == module.MAX_HELD_OUT


def test_how_many_folds_follows_from_the_rows() -> None:
    def chosen(rows: int, rare: int = 10**9, asked: int | None = None) -> int:
        labels = (np.arange(rows) < min(rare, rows // 2)).astype(int)
        return choose_folds(labels, Units(of_row=np.arange(rows)), asked, ("a", "b"))

    assert chosen(MANY_ROWS - 1) == FOLDS == 5
    assert chosen(MANY_ROWS) == FEW_FOLDS
    assert chosen(VERY_MANY_ROWS) == 1
    assert chosen(1000, rare=7) == 3
    assert chosen(1000, rare=4) == 2
    assert chosen(1000, rare=7, asked=7) == 7
    with pytest.raises(
        ValueError, match=r"too few different rows .*: 3 of 'b'; at least 4 of each class are needed: add some, or join"
    ):
        chosen(1000, rare=3)
    with pytest.raises(ValueError, match="folds is 8; it must be at least 1"):
        chosen(1000, rare=7, asked=8)
    with pytest.raises(ValueError, match="folds is 0"):
        chosen(1000, asked=0)
    labels = np.repeat([0, 1], [100, 40])
    units = Units(of_row=np.concatenate([np.arange(100), 100 + np.arange(40) % 2]))
    with pytest.raises(ValueError, match="2 of 'b'"):
        choose_folds(labels, units, None, ("a", "b"))


def test_of_several_classes_the_rare_ones_are_named_and_each_fold_has_all() -> None:
    classes = tuple("abcdefghijklmn")
    labels = np.repeat(np.arange(14), [40, 3, 1, *[2] * 11])
    units = Units(of_row=np.arange(len(labels)))
    with pytest.raises(ValueError, match=r"3 of 'b', 1 of 'c', 2 of 'd', .*, 2 of 'k' and 3 more; at least 4"):
        choose_folds(labels, units, None, classes)
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    folds = make_folds(labels, 5, 0)
    counts = np.array([np.bincount(labels[folds == fold], minlength=3) for fold in range(5)])
    assert counts.tolist() == [[12, 6, 2]] * 5
    with pytest.raises(ValueError, match="0 of 'd'"):
        choose_folds(labels, Units(of_row=np.arange(100)), None, tuple("abcd"))


def test_a_held_out_part_has_two_rows_of_each_class_at_least() -> None:
    labels = np.repeat([0, 1], [VERY_MANY_ROWS, 9])
    assert choose_folds(labels, Units(of_row=np.arange(len(labels))), None, ("a", "b")) == FEW_FOLDS
    for rare in (4, 9, 30):
        labels = np.repeat([0, 1], [VERY_MANY_ROWS, rare])
        assert ((make_folds(labels, 1, 0) == 0) & (labels == 1)).sum() >= 2


def test_help_says_from_which_rows_on() -> None:
    help_text = " ".join(run_here("fit", "--help").stdout.split())
    assert f"(default: {FOLDS}, {FEW_FOLDS} from {MANY_ROWS:,} rows on, 1 from {VERY_MANY_ROWS:,} on)" in help_text


@pytest.mark.parametrize("positives", [0, 1, 3])
def test_too_few_of_a_class_are_refused_before_training(tmp_path: Path, positives: int) -> None:
    data = tmp_path / "few.csv"
    lines = [
        "size,color,bought",
        *(f"{n * 37 % 91},{'red' if n % 3 else 'blue'},{'yes' if n < positives else 'no'}" for n in range(60)),
    ]
    data.write_text("\n".join(lines))
    done = run_here("fit", "--data", data, "--label", "bought", "--out", tmp_path / "b")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "at least" in done.stderr or "one class" in done.stderr or "two" in done.stderr, done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["few.csv"]
