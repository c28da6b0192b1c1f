"""Each diagnostic's guarantee by simulation, and against brute force."""

import math
import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.bins.input_binner import InputBinner
from models.calibration.confidence import CalibrationRecord, entropy_bits
from models.calibration.conformal import ConformalSets
from models.calibration.logit import class_probabilities, logit, sigmoid
from models.calibration.maps import CalibrationMap
from models.calibration.prior_shift import PriorShift
from models.calibration.typicality import BLOCK, Typicality  # fmt: skip
from models.reference import MAX_ROWS
from tests.titanic import SCHEMA, Passenger
from training.calibrate.maps import fit_temperature, fit_venn_abers, log_losses
from training.calibrate.record import fit_typicality
from training.calibrate.sets import fit_sets
from training.data.table import Table

SIZES = tuple(len(bins.names) for bins in SCHEMA.input_bins)
SMALL_ROW = st.tuples(*(st.integers(0, min(1, size - 1)) for size in SIZES))
input_bins = InputBinner(SCHEMA).array


def typicality_of(rows: Sequence[Any]) -> Typicality:
    return fit_typicality(rows, SCHEMA, np.random.default_rng(0))


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_cover_each_class_on_fresh_rows(coverage: float) -> None:
    rng = np.random.default_rng(1)
    held: list[list[float]] = [[], []]
    for _ in range(300):
        z = rng.normal(-0.5, 1.5, 700)
        p, y = class_probabilities(sigmoid(1.7 * z)), (rng.random(700) < sigmoid(z)).astype(int)
        sets = fit_sets(p[:500], y[:500], coverage).sets(p[500:])
        for label in (0, 1):
            held[label] += sets[y[500:] == label, label].tolist()
    for label in (0, 1):
        assert np.mean(held[label]) == pytest.approx(coverage, abs=0.012)


@pytest.mark.parametrize("rows", [40, 300])
def test_venn_abers_is_calibrated_by_the_end_that_the_label_picks(rows: int) -> None:
    """P(y = 1 | p_y) = p_y at any number of rows, here in fifths of p_y, for a score that is far from calibrated."""
    rng, repeats = np.random.default_rng(3), 1200 if rows == 40 else 250
    sums, low = np.zeros((repeats, 5)), np.zeros(repeats)
    for repeat in range(repeats):
        z = rng.normal(-0.5, 1.5, rows + 60)
        y = (rng.random(rows + 60) < sigmoid(z)).astype(int)
        p0, p1 = fit_venn_abers(3 * z[:rows] + 4, y[:rows]).interval(3 * z[rows:] + 4)
        picked, new = np.where(y[rows:] == 1, p1, p0), y[rows:]
        sums[repeat] = np.bincount(np.minimum((picked * 5).astype(int), 4), weights=new - picked, minlength=5)
        low[repeat] = (new - p0).mean()
    error = sums.std(axis=0, ddof=1) / math.sqrt(repeats)
    # In one of the five fifths it would fail with one seed in 3,000.
    assert (np.abs(sums.mean(axis=0)) < 4 * error).all()
    # The lower end alone is no calibrated probability: the check above could have failed.
    assert low.mean() > 4 * low.std(ddof=1) / math.sqrt(repeats)


@pytest.mark.parametrize(("coverage", "rows", "rank"), [(0.55, 99, 55), (0.68, 74, 51), (0.9, 99, 90), (0.9, 98, 90)])
def test_the_rank_of_a_threshold_is_that_of_exact_arithmetic(coverage: float, rows: int, rank: int) -> None:
    """⌈(n + 1) · coverage⌉ (Vovk et al., 2005), where 100 · 0.55 in floats is a little more than 55."""
    scores = (np.arange(rows) + 1) / 1000
    p = np.vstack([class_probabilities(scores), class_probabilities(np.array([0.5]))])
    threshold = fit_sets(p, np.append(np.zeros(rows, int), 1), coverage).thresholds[0]
    assert threshold == 1 - p[rank - 1, 0]


def test_too_few_rows_of_a_class_give_a_set_that_always_holds_it() -> None:
    sets = fit_sets(class_probabilities(np.array([0.1, 0.2, 0.9])), np.array([0, 0, 1]), 0.9)
    assert sets.sets(class_probabilities(np.array([0.001, 0.999])))[:, 1].all()


def test_typicality_equals_brute_force(table: Table) -> None:
    bag = input_bins(table.rows[:80])
    typicality = typicality_of(table.rows[:80])
    fresh = input_bins(table.rows[80:120])
    for row, found in zip(fresh, typicality.p_values(fresh), strict=True):
        whole = np.vstack([bag, row])
        scores = np.zeros(len(whole))
        for column in whole.T:
            scores -= np.log(np.array([(column == one).mean() for one in column]))
        assert found == pytest.approx((scores >= scores[-1] - 1e-9).sum() / len(whole))


@given(bag=st.lists(SMALL_ROW, min_size=1, max_size=6), row=SMALL_ROW)
def test_typicality_equals_brute_force_where_bins_are_shared_by_one_or_none(
    bag: list[tuple[int, ...]], row: tuple[int, ...]
) -> None:
    patterns = sorted(set(bag))
    found = Typicality(SIZES, tuple(patterns), tuple(bag.count(one) for one in patterns)).p_values(np.array([row]))[0]
    whole = [*bag, row]
    scores = [
        -sum(math.log(sum(other[field] == value for other in whole)) for field, value in enumerate(one))
        for one in whole
    ]  # fmt: skip
    assert found == sum(one >= scores[-1] - 1e-9 for one in scores) / len(whole)


def test_typicality_of_fresh_rows_is_a_p_value(table: Table) -> None:
    rows = input_bins(table.rows)
    rng, found = np.random.default_rng(2), []
    for _ in range(40):
        order = rng.permutation(len(rows))
        patterns, weights = np.unique(rows[order[:700]], axis=0, return_counts=True)
        bag = Typicality(SIZES, tuple(map(tuple, patterns.tolist())), tuple(weights.tolist()))
        found.append(bag.p_values(rows[order[700:]]))
    p = np.concatenate(found)
    for level in (0.05, 0.1, 0.3, 0.6):
        # Super-uniform, within four standard errors of the 891 rows' own sampling.
        assert (p <= level).mean() <= level + 4 * math.sqrt(level * (1 - level) / len(rows))


def test_typicality_of_each_row_among_the_others_is_super_uniform_without_any_tolerance(table: Table) -> None:
    """The p-value of a row is its rank in the bag of all, so the guarantee holds for a whole table exactly."""
    rows = input_bins(table.rows[:200])
    p = np.empty(len(rows))
    for row in range(len(rows)):
        patterns, weights = np.unique(np.delete(rows, row, axis=0), axis=0, return_counts=True)
        bag = Typicality(SIZES, tuple(map(tuple, patterns.tolist())), tuple(weights.tolist()))
        p[row] = bag.p_values(rows[row : row + 1])[0]
    for level in np.unique(p):
        assert (p <= level).sum() <= level * len(rows) + 1e-9
    assert (p <= 0.1).mean() > 0.05, "and it is not so by always saying 1"


def test_an_odd_row_is_untypical(record: CalibrationRecord, table: Table) -> None:
    odd = Passenger(pclass=1, sex="male", age=1, sibsp=8, parch=9, fare=900, embarked="Q")
    common = Passenger(pclass=3, sex="male", name="A, Mr. B", age=28, fare=7.5, ticket="1", embarked="S")
    low, high = record.typicality.p_values(input_bins([odd, common]))
    assert low < 0.01
    assert high > 0.5


def test_entropy_at_the_edges() -> None:
    assert entropy_bits((0.5, 0.5)) == pytest.approx(1.0)
    assert 0 <= entropy_bits((1 - 1e-300, 1e-300)) < 1e-290


def test_the_record_survives_json(record: CalibrationRecord) -> None:
    assert msgspec.json.decode(msgspec.json.encode(record), type=CalibrationRecord) == record


FIRST, LAST = (0,) * len(SIZES), tuple(size - 1 for size in SIZES)
LENGTHS = "patterns and weights must be of equal length, and at least one"
WEIGHTS = f"weights must be from 1 to {MAX_ROWS}"
OUTSIDE = "a bin number is outside its field's bins"


@pytest.mark.parametrize(
    ("patterns", "weights", "message"),
    [
        ((), (), LENGTHS), ((FIRST,), (1, 1), LENGTHS), ((FIRST, LAST), (1,), LENGTHS),
        ((FIRST, LAST), (1, 0), WEIGHTS), ((FIRST, LAST), (MAX_ROWS + 1, 1), WEIGHTS),
        ((FIRST[1:],), (1,), f"a pattern must hold {len(SIZES)} bin numbers"),
        ((FIRST, (*FIRST, 0)), (1, 1), f"a pattern must hold {len(SIZES)} bin numbers"),
        (((*LAST[:-1], SIZES[-1]),), (1,), OUTSIDE), (((-1, *LAST[1:]),), (1,), OUTSIDE),
    ],
)  # fmt: skip
def test_a_bag_that_is_none_is_refused(
    patterns: tuple[tuple[int, ...], ...], weights: tuple[int, ...], message: str
) -> None:
    assert Typicality(SIZES, (FIRST, LAST), (1, MAX_ROWS)).weights == (1, MAX_ROWS)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Typicality(SIZES, patterns, weights)


@pytest.mark.parametrize(
    ("coverage", "thresholds"),
    [(0.0, (0.5, 0.5)), (1.0, (0.5, 0.5)), (0.9, (-0.1, 0.5)), (0.9, (1.1, 0.5)), (0.9, (0.5, -0.1)), (0.9, (0.5, 1.1)),
     (0.9, ()), (0.9, (0.5,))],
)  # fmt: skip
def test_thresholds_that_are_none_are_refused(coverage: float, thresholds: tuple[float, ...]) -> None:
    half = np.array([[0.5, 0.5]])
    assert ConformalSets(coverage=0.9, thresholds=(0, 1)).sets(half).tolist() == [[False, True]]
    assert ConformalSets(coverage=0.9, thresholds=(1, 0)).sets(half).tolist() == [[True, False]]
    assert ConformalSets(coverage=0.9, thresholds=(0.5, 1, 0)).sets(np.array([[0.5, 0.2, 0.3]])).tolist() == [
        [True, True, False]
    ]
    with pytest.raises(ValueError, match=r"^coverage must be inside \(0, 1\), and thresholds one in \[0, 1\] for each"):
        ConformalSets(coverage=coverage, thresholds=thresholds)


def test_a_class_whose_score_is_at_its_threshold_is_in_the_set() -> None:
    sets = ConformalSets(coverage=0.9, thresholds=(0.25, 0.5))
    found = sets.sets(class_probabilities(np.array([0.25, 0.2500001, 0.4999999, 0.5, 0.75]))).tolist()
    assert found == [[True, False], [False, False], [False, False], [False, True], [False, True]]


def test_rows_of_several_blocks_are_those_of_one_by_one(table: Table) -> None:
    typicality, rows = typicality_of(table.rows[:400]), input_bins(table.rows[:150])
    few = typicality.p_values(rows)
    assert len(np.unique(few)) > 50
    times = BLOCK // (len(typicality.patterns) * rows.shape[1]) // len(rows) + 2
    assert typicality.p_values(np.tile(rows, (times, 1))).tolist() == few.tolist() * times
    assert typicality.p_values(rows[:0]).shape == (0,)
    assert input_bins([]).shape == (0, len(SIZES))


BAGS = st.lists(st.tuples(*(st.integers(0, size - 1) for size in SIZES)), min_size=1, max_size=12)


@given(BAGS, BAGS, st.integers(1, 5))
def test_a_row_in_the_bag_twice_is_two_rows(
    bag: list[tuple[int, ...]], fresh: list[tuple[int, ...]], times: int
) -> None:
    ones = Typicality(SIZES, tuple(bag) * times, (1,) * len(bag) * times)
    many = Typicality(SIZES, tuple(bag), (times,) * len(bag))
    found = many.p_values(np.array(fresh))
    assert found.tolist() == ones.p_values(np.array(fresh)).tolist()
    rows = len(bag) * times
    assert ((found >= 1 / (rows + 1) - 1e-12) & (found <= 1)).all()
    # A rank among the bag and itself.
    assert found * (rows + 1) == pytest.approx((found * (rows + 1)).round())


def drawn(rng: np.random.Generator, rows: int, prevalence: float) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels of a population: the rows of either class look the same at any prevalence."""
    y = (rng.random(rows) < prevalence).astype(int)
    return np.where(y == 1, rng.normal(1.0, 1.5, rows), rng.normal(-1.0, 1.5, rows)), y


@pytest.mark.parametrize("target", [0.08, 0.384, 0.75])
def test_the_shift_is_right_on_rows_resampled_to_another_prevalence(target: float) -> None:
    rng = np.random.default_rng(5)
    z, y = drawn(rng, 100_000, 0.384)
    right = 2 / 1.5**2 * z + math.log(0.384 / 0.616)
    plain = CalibrationMap((fit_temperature(3 * right, y),))
    shifted = plain.shifted(PriorShift(training=float(y.mean()), target=target))
    pool, labels = drawn(rng, 50_000, 0.384)
    n = 30_000
    survived = rng.binomial(n, target)
    rows = np.concatenate(
        [rng.choice(np.flatnonzero(labels == 1), survived), rng.choice(np.flatnonzero(labels == 0), n - survived)]
    )
    known, labels = 2 / 1.5**2 * pool[rows] + logit(np.array(target)), labels[rows]
    p = shifted.probabilities(3 * (2 / 1.5**2 * pool[rows] + math.log(0.384 / 0.616)))
    error = (labels - p).std() / math.sqrt(n)
    assert (labels - p).mean() == pytest.approx(0, abs=4 * error)
    excess = log_losses(p, labels) - log_losses(sigmoid(known), labels)
    assert abs(excess.mean()) < 4 * excess.std() / math.sqrt(n) + 2e-4
    for low, high in ((0, 0.1), (0.1, 0.3), (0.3, 0.7), (0.7, 1)):
        inside = (p >= low) & (p < high)
        spread = math.sqrt((p[inside] * (1 - p[inside])).mean() / inside.sum())
        assert (labels - p)[inside].mean() == pytest.approx(0, abs=4 * spread + 0.01)
    if target != 0.384:
        wrong = plain.probabilities(3 * (2 / 1.5**2 * pool[rows] + math.log(0.384 / 0.616)))
        assert abs((labels - wrong).mean()) > 20 * error
        assert log_losses(wrong, labels).mean() > log_losses(p, labels).mean() + 0.02


def test_a_calibration_file_without_its_later_fields_is_read(record: CalibrationRecord) -> None:
    content = {
        "rows": 3,
        "map": {"steps": [
            {"step": "focal_inverse", "gamma": 2.0, "smoothing": 0.1, "alpha_negative": 0.38, "alpha_positive": 0.62},
            {"step": "temperature", "temperature": 1.2},
        ]},
        "candidates": [{"name": "focal_inverse+temperature", "parameters": 1, "log_loss": 0.42, "worse_by": 0.0,
                        "standard_error": 0.0, "chosen": True}],
        "venn_abers": {"scores": [0.5], "p0": [0.0, 0.1, 0.2], "p1": [0.5, 0.6, 1.0]},
        "conformal": {"coverage": 0.9, "thresholds": [0.49, 0.85]},
        "typicality": msgspec.to_builtins(record.typicality),
    }  # fmt: skip
    read = msgspec.json.decode(msgspec.json.encode(content), type=CalibrationRecord)
    assert [name for name, _ in read.map.trace(np.zeros(1))] == ["model", "focal_inverse", "temperature"]
    assert read.map_rule == "least"
