"""Shares of several classes without labels: against a general optimiser, and their errors against what happens."""

import numpy as np
import pytest
from scipy import optimize

from service.drift.label_shift import (
    MAX_NUMBERS,
    cell_fit,
    expected_accuracy,
    expected_shares,
    sample_of,
    share_difference,
    share_estimates,
    shifted_shares,
)
from service.drift.recent import RecentProbabilities

TRAINING = np.array([0.35, 0.25, 0.2, 0.15, 0.05])
CENTRES = 1.6 * np.array([[0, 0], [1, 0.2], [0, 1.3], [-1, -0.4], [0.8, -1.2]])


def population(
    rows: int, shares: np.ndarray, seed: int, prior: np.ndarray = TRAINING
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Probabilities (n, 5), calibrated at the ``prior``, of rows of which other shares are of each class; their
    classes.

    A row is normal about its class's centre.
    """
    rng = np.random.default_rng(seed)
    labels = rng.choice(len(shares), rows, p=shares)
    x = CENTRES[labels] + rng.normal(size=(rows, 2))
    likelihood = np.exp(-((x[:, None] - CENTRES) ** 2).sum(axis=2) / 2) * prior
    return likelihood / likelihood.sum(axis=1, keepdims=True), labels


def cells_of(p: np.ndarray) -> np.ndarray:
    return p.argmax(axis=1) * 10 + np.minimum((p.max(axis=1) * 10).astype(int), 9)


MILD = np.array([0.25, 0.25, 0.2, 0.15, 0.15])
OTHER = np.array([0.05, 0.25, 0.2, 0.15, 0.35])


@pytest.mark.parametrize("shares", [TRAINING, OTHER, np.array([0.0, 0.5, 0.0, 0.5, 0.0])])
def test_shares_are_the_most_likely_ones(shares: np.ndarray) -> None:
    p, _ = population(700, shares, seed=1)
    found, _ = shifted_shares(p, TRAINING)
    assert found.sum() == pytest.approx(1)
    assert (found >= 0).all()

    def loss(z: np.ndarray) -> float:
        w = np.exp(z - z.max())
        return -float(np.log(p / TRAINING @ (w / w.sum())).sum())

    best = optimize.minimize(loss, np.log(found + 1e-6), method="BFGS").fun
    assert -np.log(p / TRAINING @ found).sum() <= best + 1e-3


def test_shares_lie_in_their_intervals_as_often_as_said() -> None:
    inside = []
    for seed in range(200):
        p, _ = population(600, OTHER, seed)
        estimates = share_estimates(*shifted_shares(p, TRAINING))
        inside.append(
            [one.interval[0] <= share <= one.interval[1] for one, share in zip(estimates, OTHER, strict=True)]
        )
    # 200 runs of 95 %: within four standard errors, less one point for what is normal only of many rows.
    assert np.mean(inside, axis=0) == pytest.approx(0.95, abs=0.055)


def test_expected_shares_hold_what_happens() -> None:
    inside, right = [], []
    for seed in range(200):
        p, labels = population(400, TRAINING, seed)
        shares = np.bincount(labels, minlength=5) / len(labels)
        inside.append([e.interval[0] <= s <= e.interval[1] for e, s in zip(expected_shares(p), shares, strict=True)])
        accuracy = expected_accuracy(p)
        right.append(accuracy.interval[0] <= (p.argmax(axis=1) == labels).mean() <= accuracy.interval[1])
    assert np.mean(inside, axis=0) == pytest.approx(0.95, abs=0.055)
    assert np.mean(right) == pytest.approx(0.95, abs=0.055)
    p, _ = population(400, TRAINING, 0)
    assert [one.value for one in expected_shares(p)] == pytest.approx(p.mean(axis=0).tolist())
    assert expected_accuracy(p).value == pytest.approx(p.max(axis=1).mean())


def test_a_difference_is_found_as_seldom_as_said_and_where_there_is_one() -> None:
    same, other = [], []
    for seed in range(200):
        reference = np.bincount(population(900, TRAINING, seed + 1000)[1], minlength=5) / 900
        for shares, found in ((TRAINING, same), (OTHER, other)):
            # A model that was trained on these rows takes their shares for the truth.
            p, _ = population(600, shares, seed, reference)
            found.append(share_difference(*shifted_shares(p, reference), reference, 900) < 0.05)
    assert np.mean(same) <= 0.12
    assert np.mean(other) == 1


def test_a_shift_explains_itself_and_nothing_else() -> None:
    fits, others = [], []
    for seed in range(150):
        reference, _ = population(900, TRAINING, seed + 5000)
        held = np.bincount(cells_of(reference), minlength=50)
        shifted, _ = population(800, MILD, seed)
        # The same rows with probabilities drawn together: no shift of the shares does that.
        blurred = shifted**0.6 / (shifted**0.6).sum(axis=1, keepdims=True)
        for p, found in ((shifted, fits), (blurred, others)):
            weights = shifted_shares(p, TRAINING)[0] / TRAINING
            cells = cells_of(p)
            found.append(cell_fit(np.bincount(cells, minlength=50), held, p, cells, weights))
    assert np.mean(np.array(fits) < 0.05) <= 0.14
    assert np.mean(np.array(fits) < 0.01) <= 0.05
    assert np.median(others) < 0.01


def test_few_rows_leave_too_few_cells_to_test() -> None:
    p, _ = population(30, TRAINING, 3)
    cells = cells_of(p)
    counts = np.bincount(cells, minlength=50)
    assert cell_fit(counts, counts, p, cells, np.ones(5)) > 0.5


def test_recent_rows_are_the_last_block_and_the_one_before() -> None:
    p, _ = population(90, TRAINING, 4)
    recent = RecentProbabilities(5)
    assert recent.array().shape == (0, 5)
    for first in (0, 30, 60):
        recent.add([tuple(row) for row in p[first : first + 30].tolist()])
        if first < 60:
            recent.next_block()
    assert recent.array() == pytest.approx(np.concatenate([p[60:], p[30:60]]), abs=1e-6)
    twin = RecentProbabilities(5)
    twin.restore(recent.snapshot())
    assert twin.array() == pytest.approx(recent.array(), abs=1e-3)
    assert twin.array().sum(axis=1) == pytest.approx(1)
    twin.next_block()
    assert len(twin.array()) == 30


@pytest.mark.parametrize("blocks", [[b""], [b"\0" * 3, b""], [b"\0" * 10, b""], [b"\xff" * 10, b""]])
def test_a_snapshot_that_is_none_is_refused(blocks: list[bytes]) -> None:
    with pytest.raises(ValueError, match=r"block|buffer|reshape"):
        RecentProbabilities(5).restore(blocks)


def test_a_sample_is_bounded() -> None:
    assert sample_of(np.zeros((100, 5))).shape == (100, 5)
    assert sample_of(np.zeros((10_000, 5))).size <= MAX_NUMBERS
    assert sample_of(np.zeros((10_000, 100))).size <= MAX_NUMBERS
