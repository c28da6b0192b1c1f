import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy import stats

from service.drift.label_free import (
    FINE_BINS,
    Estimate,
    chi_square_tail,
    expected_accuracy,
    expected_prevalence,
    fine_bin,
    prevalence_differs,
    shift_fit,
    shifted_prevalence,
    stability_index,
    tenth_means,
)

TRAINING = 0.384


def binned(probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    places = [fine_bin(float(p)) for p in probabilities]
    return np.bincount(places, minlength=FINE_BINS), np.bincount(places, probabilities, FINE_BINS)


def population(rows: int, prevalence: float, seed: int) -> np.ndarray:
    """Probabilities, calibrated at `TRAINING`, of rows of which another share is positive.

    Scores are normal given the fate, at ±1: the logit of the fate is then 2 · score + the prior's.
    """
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=rows) + np.where(rng.random(rows) < prevalence, 1, -1)
    return np.asarray(1 / (1 + np.exp(-2 * scores - np.log(TRAINING / (1 - TRAINING)))))


@given(st.floats(1e-300, 1 - 1e-16), st.floats(1e-300, 1 - 1e-16))
def test_fine_bins_rise_with_probability(p: float, q: float) -> None:
    low, high = sorted((p, q))
    assert 0 <= fine_bin(low) <= fine_bin(high) < FINE_BINS


def test_a_fine_bin_begins_at_a_half() -> None:
    assert (fine_bin(0.5), fine_bin(0.4999)) == (FINE_BINS // 2, FINE_BINS // 2 - 1)


def test_expected_shares_are_means_whatever_the_bins() -> None:
    p = population(3000, 0.4, seed=0)
    counts, sums = binned(p)
    assert expected_prevalence(counts, sums).value == pytest.approx(p.mean())
    assert expected_accuracy(counts, sums).value == pytest.approx(np.maximum(p, 1 - p).mean())


def test_their_intervals_hold_what_happens() -> None:
    p = population(400, TRAINING, seed=1)
    prevalence, accuracy = (one(*binned(p)).interval for one in (expected_prevalence, expected_accuracy))
    y = np.random.default_rng(2).random((4000, 400)) < p
    for (low, high), found in ((prevalence, y.mean(1)), (accuracy, (y == (p >= 0.5)).mean(1))):
        assert ((low <= found) & (found <= high)).mean() == pytest.approx(0.95, abs=0.015)


def em(probabilities: np.ndarray, training: float) -> float:
    """Saerens, Latinne & Decaestecker (2002), equation 2.9, on the rows themselves."""
    prevalence = training
    for _ in range(5000):
        one, zero = prevalence / training * probabilities, (1 - prevalence) / (1 - training) * (1 - probabilities)
        prevalence = float((one / (one + zero)).mean())
    return prevalence


@pytest.mark.parametrize("prevalence", [0.1, 0.384, 0.7])
def test_the_prevalence_is_what_em_finds(prevalence: float) -> None:
    p = population(2000, prevalence, seed=3)
    assert shifted_prevalence(*binned(p), TRAINING).value == pytest.approx(em(p, TRAINING), abs=2e-3)


@pytest.mark.parametrize("prevalence", [0.02, 0.25, 0.8])
def test_its_interval_holds_the_truth(prevalence: float) -> None:
    found = [shifted_prevalence(*binned(population(500, prevalence, seed)), TRAINING).interval for seed in range(400)]
    assert np.mean([low <= prevalence <= high for low, high in found]) == pytest.approx(0.95, abs=0.03)


def test_it_reaches_the_ends() -> None:
    counts, sums = binned(np.full(500, 0.01))
    estimate = shifted_prevalence(counts, sums, TRAINING)
    assert estimate.value < 1e-6
    assert estimate.interval[0] <= estimate.value < estimate.interval[1] < 0.05


def test_the_training_rows_are_a_sample_too() -> None:
    sharp = Estimate(0.40, (0.399, 0.401))
    assert not prevalence_differs(sharp, TRAINING, 891)
    assert prevalence_differs(sharp, TRAINING, 1_000_000)
    assert prevalence_differs(Estimate(0.5, (0.46, 0.54)), TRAINING, 891)


@pytest.mark.parametrize("x", [0.0, 0.5, 7.3, 40.0, 900.0])
def test_the_tail_of_chi_square(x: float) -> None:
    for degrees in (1, 2, 3, 8, 11, 40):
        assert chi_square_tail(x, degrees) == pytest.approx(stats.chi2.sf(x, degrees), rel=1e-9)


def tenths(p: np.ndarray) -> np.ndarray:
    return np.histogram(p, 10, (0, 1))[0]


def test_a_shift_explains_itself_and_nothing_else() -> None:
    fits, others = [], []
    for seed in range(150):
        reference = tenths(population(891, TRAINING, seed))
        for found, live in ((fits, population(2000, 0.6, seed + 1000)), (others, np.full(2000, 0.55))):
            counts, sums = binned(live)
            prevalence = shifted_prevalence(counts, sums, TRAINING).value
            found.append(shift_fit(tenths(live), reference, tenth_means(counts, sums), TRAINING, prevalence))
    assert np.mean(np.array(fits) < 0.05) < 0.12
    assert max(others) < 1e-6


def test_the_stability_index_has_the_mean_that_is_printed_beside_it() -> None:
    rng, shares = np.random.default_rng(5), np.array([0.3, 0.2, 0.2, 0.2, 0.1])
    pairs = [stability_index(rng.multinomial(400, shares), rng.multinomial(891, shares)) for _ in range(1500)]
    assert np.mean([index for index, _ in pairs]) == pytest.approx(pairs[0][1], rel=0.06)
    assert pairs[0][1] == pytest.approx(4 * (1 / 400 + 1 / 891))
    assert stability_index(np.zeros(5), shares) == (0.0, 0.0)
    assert stability_index(np.array([10, 0]), np.array([0, 10]))[0] > 1


PROBABILITIES = st.lists(st.floats(0.001, 0.999), min_size=1, max_size=60)
COUNTS = st.lists(st.integers(0, 400), min_size=2, max_size=10)


MIDDLES = st.lists(st.integers(0, FINE_BINS - 1), min_size=1, max_size=60).map(
    lambda places: 1 / (1 + np.exp(8 - (np.array(places) + 0.5) / 12.5))
)
"""Probabilities in the middle of fine bins, so that 1 − p is in the mirrored bin."""


@given(MIDDLES, st.floats(0.02, 0.98))
def test_whichever_class_is_called_positive_the_estimates_are_the_same(p: np.ndarray, training: float) -> None:
    (counts, sums), (other, rest) = binned(p), binned(1 - p)
    assert other.tolist() == counts[::-1].tolist()
    here, there = expected_prevalence(counts, sums), expected_prevalence(other, rest)
    assert there.value == pytest.approx(1 - here.value)
    assert there.interval == pytest.approx((1 - here.interval[1], 1 - here.interval[0]), abs=1e-9)
    right, also = expected_accuracy(counts, sums), expected_accuracy(other, rest)
    assert also.value == pytest.approx(right.value)
    assert also.interval == pytest.approx(right.interval, abs=1e-9)
    live, mirrored = shifted_prevalence(counts, sums, training), shifted_prevalence(other, rest, 1 - training)
    for one in (here, right, live):
        assert 0 <= one.interval[0] <= one.value + 1e-9
        assert one.value <= one.interval[1] + 1e-9 <= 1 + 2e-9
    assert right.value >= max(here.value, 1 - here.value) - 1e-9
    # A likelihood that is nearly flat has its maximum anywhere.
    if np.abs(p - training).max() > 0.05:
        assert mirrored.value == pytest.approx(1 - live.value, abs=1e-6)
        assert mirrored.interval == pytest.approx((1 - live.interval[1], 1 - live.interval[0]), abs=1e-6)


@given(PROBABILITIES, st.floats(0.05, 0.95), st.integers(2, 40))
def test_more_of_the_same_rows_narrow_the_intervals_and_move_nothing(
    probabilities: list[float], training: float, times: int
) -> None:
    assume(np.abs(np.array(probabilities) - training).max() > 0.05)
    counts, sums = binned(np.array(probabilities))
    for one, more in (
        (expected_prevalence(counts, sums), expected_prevalence(times * counts, times * sums)),
        (shifted_prevalence(counts, sums, training), shifted_prevalence(times * counts, times * sums, training)),
    ):
        assert more.value == pytest.approx(one.value, abs=1e-6)
        assert more.interval[1] - more.interval[0] <= one.interval[1] - one.interval[0] + 1e-9


@given(PROBABILITIES, st.floats(0.05, 0.95))
def test_no_other_prevalence_is_likelier(probabilities: list[float], training: float) -> None:
    counts, sums = binned(np.array(probabilities))
    held = counts > 0
    n, p = counts[held], sums[held] / counts[held]

    def likelihood(prevalence: float) -> float:
        return float((n * np.log(prevalence / training * p + (1 - prevalence) / (1 - training) * (1 - p))).sum())

    found = shifted_prevalence(counts, sums, training)
    best = likelihood(found.value)
    assert best >= max(likelihood(one) for one in np.linspace(0.001, 0.999, 200)) - 1e-6
    for end in found.interval:
        # Where the likelihood has fallen by half of χ²'s 95 % point of one degree of freedom, or the range ends.
        drop = best - likelihood(end)
        assert drop <= stats.chi2.ppf(0.95, 1) / 2 + 1e-3
        assert drop == pytest.approx(stats.chi2.ppf(0.95, 1) / 2, abs=1e-3) or not 1e-6 < end < 1 - 1e-6


@given(COUNTS, st.data())
def test_the_stability_index_is_a_distance_that_does_not_depend_on_the_order_of_bins(
    live: list[int], data: st.DataObject
) -> None:
    other = data.draw(st.lists(st.integers(0, 400), min_size=len(live), max_size=len(live)))
    order = data.draw(st.permutations(range(len(live))))
    one, two = np.array(live), np.array(other)
    if not one.sum() or not two.sum():
        return
    index, expected = stability_index(one, two)
    assert index >= -1e-12
    assert expected >= 0
    assert stability_index(two, one) == pytest.approx((index, expected))
    assert stability_index(one[order], two[order]) == pytest.approx((index, expected))
    assert stability_index(one, one)[0] == 0
    # Bins that never occur change nothing.
    assert stability_index(np.append(one, 0), np.append(two, 0)) == pytest.approx((index, expected))
    q, r = (one + 0.5)[(one > 0) | (two > 0)], (two + 0.5)[(one > 0) | (two > 0)]
    entropies = [stats.entropy(a, b) for a, b in ((q, r), (r, q))]
    assert index == pytest.approx(sum(entropies), abs=1e-9)


@given(PROBABILITIES)
def test_means_of_tenths_lie_in_them(probabilities: list[float]) -> None:
    means = tenth_means(*binned(np.array(probabilities)))
    assert means.shape == (10,)
    for place, mean in enumerate(means):
        assert place / 10 - 1e-9 <= mean <= (place + 1) / 10 + 1e-9


@pytest.mark.parametrize(
    ("training", "differs"), [(0.4401, True), (0.4405, False), (0.5, False), (0.568, False), (0.5685, True)]
)
def test_a_prevalence_differs_by_more_than_both_errors_together(training: float, differs: bool) -> None:
    """Newcombe (1998), method 10: the end of the interval that looks at the other value, and that value's own error."""
    live, rows = Estimate(0.5, (0.45, 0.56)), 891
    toward = 0.05 if training < 0.5 else 0.06
    both = (toward**2 + (1.959964 * (training * (1 - training) / rows) ** 0.5) ** 2) ** 0.5
    assert (abs(training - 0.5) > both) == differs
    assert prevalence_differs(live, training, rows) == differs
