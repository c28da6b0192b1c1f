import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from models.reference import PredictionBins
from service.drift.detectors import (
    BETS,
    EDGES,
    FIXED,
    FIXED_BETS,
    FLOOR,
    LOGIT_STEPS,
    MAX_SUM,
    MEMORIES,
    TILTS,
    WIDTHS,
    CalibrationDetector,
    RankDetector,
)  # fmt: skip
from service.drift.detectors import _fixed_bets as fixed_bets

SHARES = np.array([0.4, 0.25, 0.2, 0.1, 0.05, 0.0])


def references(runs: int, rows: int, rng: np.random.Generator) -> np.ndarray:
    """Counts (runs, 6) of reference samples, each drawn anew: the truth is never known to a test."""
    return rng.multinomial(rows, SHARES, runs).astype(float)


def test_every_bet_is_fair() -> None:
    assert pytest.approx(np.ones(FIXED.shape[1])) == WIDTHS @ FIXED
    detector = RankDetector(np.array([[5.0, 3.0, 2.0]]), np.random.default_rng(0))
    detector.observe(np.random.default_rng(1).integers(0, 3, (300, 1)))
    assert np.einsum("skm,k->sm", detector.densities, WIDTHS) == pytest.approx(1)


def test_a_rank_lies_among_those_of_its_bin() -> None:
    for seed in range(20):
        detector = RankDetector(np.array([[3.0, 0.0, 1.0]]), np.random.default_rng(seed))
        assert 3 / 5 <= detector.ranks(np.array([[1]]))[0, 0] < 4 / 5
        assert 4 / 6 <= detector.ranks(np.array([[2]]))[0, 0] <= 1
        assert detector.counts.tolist() == [[3, 1, 2]]


def test_ranks_are_uniform_and_independent_even_of_a_tiny_reference() -> None:
    rng = np.random.default_rng(2)
    detector = RankDetector(references(2000, 12, rng), rng)
    ranks = detector.ranks(rng.choice(6, (30, 2000), p=SHARES))
    for row in (0, 1, 10, 29):
        assert stats.kstest(ranks[row], "uniform").pvalue > 1e-3
    assert stats.kstest(ranks.ravel(), "uniform").pvalue > 1e-3
    for lag in (1, 5):
        assert abs(np.corrcoef(ranks[:-lag].ravel(), ranks[lag:].ravel())[0, 1]) < 4 / np.sqrt(30 * 2000)


def test_a_rank_is_not_uniform_given_the_ranks_of_another_field() -> None:
    """Why sums over fields are not averaged: two fields that are copies, one reference row, two live rows.

    Where the first row's two ranks lie in different halves, that row tied with the reference; the second row's rank
    then is never in the middle third, in which a fair bet would expect it once in three times.
    """
    runs, rng = 20_000, np.random.default_rng(3)
    rows = np.repeat(rng.integers(0, 2, (3, runs)), 2, axis=1)
    detector = RankDetector(np.eye(2)[rows[0]], rng)
    first, second = detector.ranks(rows[1:]).reshape(2, runs, 2)
    discordant = (first[:, 0] < 0.5) != (first[:, 1] < 0.5)
    middle = (second[:, 0] > 1 / 3) & (second[:, 0] < 2 / 3)
    assert middle.mean() == pytest.approx(1 / 3, abs=0.02)
    assert middle[discordant].mean() < 0.27


def lower_bound_of_run_length(
    runs: int, run_length: float, rows: int, seed: int, shares: np.ndarray = SHARES, z: float = 2.33
) -> float:
    """Lower bound, at 99 % by default, of the mean time to a false alarm, each run cut at six times the run length."""
    rng = np.random.default_rng(seed)
    detector = RankDetector(rng.multinomial(rows, shares, runs).astype(float), rng)
    longest = int(6 * run_length)
    found = np.full(runs, float(longest))
    for first in range(0, longest, 50):
        high = detector.observe(rng.choice(len(shares), (50, runs), p=shares)) >= run_length
        times = np.where(high.any(axis=0), first + 1 + high.argmax(axis=0), longest)
        found = np.minimum(found, times)
    return float(found.mean() - z * found.std(ddof=1) / np.sqrt(runs))


def shares_of_five_classes(seed: int) -> np.ndarray:
    """How often each cell of predictions of five classes comes up: of top class and tenth of its probability."""
    p = np.random.default_rng(seed).dirichlet([0.9, 0.7, 0.5, 0.4, 0.2], 20_000)
    bins = PredictionBins(tuple("abcde"))
    return np.asarray(np.bincount(bins.of(p), minlength=len(bins.names)) / len(p))


def test_the_average_run_length_is_kept_of_five_classes() -> None:
    shares = shares_of_five_classes(seed=14)
    assert len(shares) == 40
    assert lower_bound_of_run_length(800, 150, 900, seed=15, shares=shares) >= 150


@pytest.mark.slow
def test_the_average_run_length_is_kept_of_five_classes_at_length() -> None:
    shares = shares_of_five_classes(seed=14)
    assert lower_bound_of_run_length(400, 1000, 900, seed=16, shares=shares, z=1.645) >= 1000


def test_the_average_run_length_is_kept() -> None:
    assert lower_bound_of_run_length(1500, 200, 891, seed=4) >= 200


@pytest.mark.slow
@pytest.mark.parametrize(("run_length", "rows"), [(500, 891), (1000, 891), (2000, 891), (1000, 60)])
def test_the_average_run_length_is_kept_at_length(run_length: float, rows: int) -> None:
    assert lower_bound_of_run_length(2000, run_length, rows, seed=5) >= run_length


def test_the_largest_of_fields_keeps_it_too_whatever_ties_them_together() -> None:
    runs, fields, run_length, longest, rng = 800, 4, 100, 600, np.random.default_rng(10)
    detector = RankDetector(np.repeat(references(runs, 60, rng), fields, axis=0), rng)
    found = np.full(runs, float(longest))
    for t in range(1, longest + 1):
        # Copies of one field, whose ranks differ by how ties are broken alone.
        row = np.repeat(rng.choice(6, runs, p=SHARES), fields)
        evidence = detector.observe(row[None])[0].reshape(runs, fields).max(axis=1) / (2 * fields)
        found = np.where(evidence >= run_length, np.minimum(found, t), found)
    assert found.mean() - 2.33 * found.std(ddof=1) / np.sqrt(runs) >= run_length


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 2**32 - 1))
def test_how_rows_are_cut_into_calls_changes_nothing(lengths: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts, bins = references(3, 40, rng), rng.integers(0, 6, (sum(lengths), 3))
    whole = RankDetector(counts, np.random.default_rng(seed)).observe(bins)
    parted = RankDetector(counts, np.random.default_rng(seed))
    parts = np.split(bins, np.cumsum(lengths)[:-1])
    assert np.concatenate([parted.observe(part) for part in parts]).tolist() == whole.tolist()


def test_evidence_stays_finite_whatever_comes() -> None:
    detector = RankDetector(np.array([[100.0, 0.0], [0.0, 100.0]]), np.random.default_rng(6))
    for _ in range(40):
        evidence = detector.observe(np.full((1000, 2), 1))
        assert np.isfinite(evidence).all()
        assert (evidence >= 0).all()
    assert detector.sums.max() <= MAX_SUM


def test_each_variable_begins_again_alone() -> None:
    counts, rng = np.array([[5.0, 5.0], [5.0, 5.0]]), np.random.default_rng(7)
    detector = RankDetector(counts, rng)
    detector.observe(np.zeros((20, 2), int))
    detector.begin(slice(1, 2), counts[1:])
    assert detector.counts.tolist() == [[25, 5], [5, 5]]
    assert detector.sums[1].sum() == 0 < detector.sums[0].sum()


@pytest.mark.parametrize("band", [0.0, 0.05, 0.2])
@pytest.mark.parametrize("p", [1e-9, 0.01, 0.04, 0.3, 0.5, 0.77, 0.96, 1 - 1e-9])
def test_no_rate_within_the_band_makes_a_bet_on_outcomes_favourable(band: float, p: float) -> None:
    for rate in np.linspace(max(0, p - band), min(1, p + band), 9):
        expected = np.zeros_like(CalibrationDetector(band).sums)
        for positive, chance in ((True, rate), (False, 1 - rate)):
            detector = CalibrationDetector(band)
            detector.observe(p, positive)
            assert (detector.sums >= 0).all()
            expected += chance * detector.sums
        assert expected.max() <= 1 + 1e-12


def outcomes_to_alarm(seed: int, band: float, run_length: float, shift: float, longest: int) -> int:
    """Outcomes until the alarm when the truth is ``shift`` away from what is served, in probability."""
    rng, detector = np.random.default_rng(seed), CalibrationDetector(band)
    for t in range(1, longest):
        p = rng.uniform(0.1, 0.8)
        if detector.observe(p, bool(rng.random() < p + shift)) >= run_length:
            return t
    return longest


def test_the_run_length_in_outcomes_is_kept_at_the_edge_of_the_band() -> None:
    times = np.array([outcomes_to_alarm(seed, 0.05, 100, 0.05, 600) for seed in range(120)])
    assert times.mean() - 2.33 * times.std(ddof=1) / np.sqrt(len(times)) >= 100


@pytest.mark.parametrize("shift", [0.2, -0.1])
def test_outcomes_far_from_what_is_served_are_seen(shift: float) -> None:
    times = [outcomes_to_alarm(seed, 0.0, 1e7, shift, 4000) for seed in range(5)]
    assert np.median(times) < (400 if shift == 0.2 else 1600)


def test_over_and_under_confidence_are_seen_though_the_mean_is_right() -> None:
    for truth, served in ((0.7, 0.9), (0.95, 0.75)):
        rng, detector = np.random.default_rng(8), CalibrationDetector(0.05)
        evidence = 0.0
        for _ in range(1000):
            high = rng.random() < 0.5
            positive = bool(rng.random() < (truth if high else 1 - truth))
            evidence = max(evidence, detector.observe(served if high else 1 - served, positive))
        assert evidence > 1e7


OUTCOMES = st.lists(st.tuples(st.floats(0.001, 0.999), st.booleans()), max_size=40)


@given(OUTCOMES, st.floats(0, 0.3))
def test_the_outcomes_test_knows_no_difference_between_the_classes(
    outcomes: list[tuple[float, bool]], band: float
) -> None:
    one, mirrored = CalibrationDetector(band), CalibrationDetector(band)
    for p, positive in outcomes:
        evidence = one.observe(p, positive)
        assert np.isfinite(evidence)
        assert evidence >= 0
        # At ½ itself, and at the middle's edges, a probability belongs to one of two sides.
        if min(abs(p - 0.5), abs(p - 0.2), abs(p - 0.8)) > 1e-9:
            assert mirrored.observe(1 - p, not positive) == pytest.approx(evidence, rel=1e-6)
        else:
            return


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60),
    st.lists(st.integers(0, 30), min_size=4, max_size=4),
    st.integers(0, 2**32 - 1),
)
def test_ranks_lie_in_their_bins_and_the_bags_take_in_every_row(bins: list[int], counts: list[int], seed: int) -> None:
    detector = RankDetector(np.array([counts], float), np.random.default_rng(seed))
    bag = np.array(counts, float)
    for one in bins:
        bag[one] += 1
        (rank,) = detector.ranks(np.array([[one]]))[0]
        assert bag[:one].sum() / bag.sum() <= rank <= bag[: one + 1].sum() / bag.sum()
        assert detector.counts[0].tolist() == bag.tolist()
    evidence = detector.observe(np.array(bins)[:, None])
    assert np.isfinite(evidence).all()
    assert (evidence >= 0).all()
    assert detector.evidence() == pytest.approx(evidence[-1])
    detector.begin(slice(None), np.array([counts], float))
    assert detector.evidence().tolist() == [0]
    assert detector.counts[0].tolist() == counts


def test_the_fixed_bets_are_tilts_of_the_middle_of_each_cell() -> None:
    middles = (EDGES[1:] + EDGES[:-1]) / 2
    for bet, (a, b) in enumerate(TILTS):
        density = np.exp(a * (2 * middles - 1) + b * (2 * middles - 1) ** 2)
        expected = density / (density * WIDTHS).sum()
        assert fixed_bets()[:, bet] == pytest.approx(expected)
        assert FIXED[:, bet] == pytest.approx(expected)
    assert FIXED.shape == (len(WIDTHS), FIXED_BETS)
    assert sum(WIDTHS) == 1


def test_the_sums_of_ranks_are_those_written_out() -> None:
    """Every bet of two variables, row by row, from the ranks: fixed densities, and histograms that forget."""
    bins, counts = np.random.default_rng(11).integers(0, 3, (70, 2)), np.array([[4.0, 5.0, 1.0], [2.0, 0.0, 8.0]])
    detector = RankDetector(counts, np.random.default_rng(12))
    ranks = RankDetector(counts, np.random.default_rng(12)).ranks(bins)
    evidence = detector.observe(bins)
    sums, learned = np.zeros((2, BETS)), np.ones((2, len(WIDTHS), 2))
    for row, pair in enumerate(ranks):
        for variable, rank in enumerate(pair):
            cell = int(np.searchsorted(EDGES, rank, "right")) - 1
            factors = [*FIXED[cell], *(FLOOR + (1 - FLOOR) * learned[variable, cell])]
            sums[variable] = (sums[variable] + 1) * factors
            for bet, memory in enumerate(MEMORIES):
                learned[variable, :, bet] *= 1 - 1 / memory
                learned[variable, cell, bet] += 1 / memory / WIDTHS[cell]
        assert evidence[row] == pytest.approx(sums.mean(axis=1))
    assert detector.sums == pytest.approx(sums)
    assert detector.densities == pytest.approx(learned)


@pytest.mark.parametrize("band", [0.0, 0.05])
@pytest.mark.parametrize("p", [0.03, 0.05, 0.1, 0.2, 0.4, 0.5, 0.6, 0.79, 0.8, 0.95, 0.97])
def test_the_bets_on_outcomes_are_likelihood_ratios(p: float, band: float) -> None:
    def ratios(m: float, sign: int, positive: bool) -> list[float]:
        if not 0 < m < 1:
            return [1.0] * len(LOGIT_STEPS)
        rates = [1 / (1 + (1 - m) / m * np.exp(-sign * step)) for step in LOGIT_STEPS]
        return [rate / m if positive else (1 - rate) / (1 - m) for rate in rates]

    for positive in (True, False):
        higher, lower = ratios(p + band, 1, positive), ratios(p - band, -1, positive)
        middle = (higher, lower) if 0.2 <= p < 0.8 else ([1.0] * 5, [1.0] * 5)
        expected = np.array([higher, lower, *middle, *((lower, higher) if p >= 0.5 else (higher, lower))])
        detector = CalibrationDetector(band)
        assert detector.observe(p, positive) == pytest.approx(expected.mean())
        assert detector.sums == pytest.approx(expected)
        assert detector.observe(p, positive) == pytest.approx(((expected + 1) * expected).mean())
        detector.begin()
        assert detector.sums.tolist() == np.zeros((6, 5)).tolist()


def test_evidence_of_outcomes_stays_finite_whatever_comes() -> None:
    detector = CalibrationDetector(0.0)
    for _ in range(3000):
        assert np.isfinite(detector.observe(1e-6, True))
    assert detector.sums.max() == MAX_SUM
