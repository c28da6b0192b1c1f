"""What can be said without labels of K > 2 classes: expected shares and accuracy, and the shares under a label shift.

Right only while the probabilities are calibrated. Of two classes `label_free` says the same from counts alone.
"""

import numpy as np

from service.drift.label_free import Estimate, Z, chi_square_tail

MAX_NUMBERS = 20_000
"""Of a sample that shares are fitted to: some milliseconds, whatever the number of classes."""
MAX_STEPS, TOLERANCE = 500, 1e-7
MIN_EXPECTED = 10
"""Rows that a cell of a χ² test should have to expect."""


def expected_shares(p: np.ndarray) -> list[Estimate]:
    """Σp / n of each class: the shares to expect among n rows, and where theirs lie with 95 % if calibrated.

    ``p`` (n, K). The interval is the normal one of a sum of independent outcomes, variance Σ p (1 − p).
    """
    return [_estimate(of_class) for of_class in p.T]


def expected_accuracy(p: np.ndarray) -> Estimate:
    """Σ max p / n of probabilities (n, K): the share of right answers to expect, and where it lies with 95 %."""
    return _estimate(p.max(axis=1))


def _estimate(p: np.ndarray) -> Estimate:
    value, half = float(p.mean()), Z * float(np.sqrt((p * (1 - p)).sum())) / len(p)
    return Estimate(value, (max(0.0, value - half), min(1.0, value + half)))


def sample_of(p: np.ndarray) -> np.ndarray:
    """Rows of ``p`` (n, K) at equal distances, as many as `MAX_NUMBERS` lets them be."""
    return p[:: max(1, -(-p.size // MAX_NUMBERS))]


def shifted_shares(p: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes' shares π (K,) here if only they differ from ``training``'s (K,), and their covariance (K, K).

    Probabilities ``p`` (n, K), calibrated at the training shares π₀, make a row's likelihood Σ_k (π_k / π₀_k) p_k, up
    to a factor: its maximum by the EM of Saerens, Latinne & Decaestecker (2002, section 2.2), with the extrapolation of
    Varadhan & Roland (2008, SqS3). The covariance is the inverse of the observed information among shares that sum
    to 1.
    """
    ratios = p / training

    def step(shares: np.ndarray) -> np.ndarray:
        return np.asarray(shares * (1 / (ratios @ shares) @ ratios) / len(p))

    shares = training
    for _ in range(MAX_STEPS):
        first = step(shares)
        second = step(first)
        change, bend = first - shares, second - 2 * first + shares
        length = float(np.sqrt((change**2).sum() / max((bend**2).sum(), 1e-300)))
        leap = shares + 2 * length * change + length**2 * bend
        before, shares = shares, step(leap / leap.sum()) if (leap > 0).all() else second
        if abs(shares - before).max() < TOLERANCE:
            break
    return shares, _covariance(ratios / (ratios @ shares)[:, None])


def _covariance(scores: np.ndarray) -> np.ndarray:
    """The inverse of Σ s sᵀ over rows of ``scores`` (n, K), among directions that sum to 0."""
    inside = np.eye(scores.shape[1])[:, :-1] - np.eye(scores.shape[1])[:, -1:]
    along = scores @ inside
    return np.asarray(inside @ np.linalg.pinv(along.T @ along) @ inside.T)


def share_estimates(shares: np.ndarray, covariance: np.ndarray) -> list[Estimate]:
    """Each share with its 95 % interval, normal and cut at 0 and 1."""
    halves = Z * np.sqrt(covariance.diagonal())
    return [
        Estimate(value, (max(0.0, value - half), min(1.0, value + half)))
        for value, half in zip(shares.tolist(), halves.tolist(), strict=True)
    ]


def share_difference(shares: np.ndarray, covariance: np.ndarray, baseline: np.ndarray, training_rows: int) -> float:
    """P-value of "the shares (K,) are the ``baseline``'s", by Wald's test with both samples' errors.

    Without the training rows' own error, any shares would differ once the service has seen enough.
    """
    difference = (shares - baseline)[:-1]
    own = (np.diag(baseline) - np.outer(baseline, baseline)) / training_rows
    statistic = difference @ np.linalg.pinv((covariance + own)[:-1, :-1]) @ difference
    return chi_square_tail(float(statistic), len(difference))


def cell_fit(
    live: np.ndarray, reference: np.ndarray, p: np.ndarray, cells: np.ndarray, weights: np.ndarray
) -> float:  # fmt: skip
    """P-value of "the live probabilities are the reference's after a label shift", by χ² over cells.

    ``live``, ``reference`` (B,) counts; live probabilities ``p`` (n, K) in ``cells`` (n,), and what the shift
    multiplies each class by, ``weights`` (K,) = π / π₀. It multiplies a cell's share by the mean of Σ w p among the
    reference's rows there, which is 1 / (the mean of 1 / Σ w p among the live ones). Cells of few rows are joined with
    those after them; K − 1 degrees of freedom are spent on π. Where a share is several times as large as it was, this
    is below 0.01 in one case of twenty instead of a hundred: what few reference rows say is multiplied too.
    """
    groups = _groups(reference, reference.sum() * MIN_EXPECTED / min(live.sum(), reference.sum()))
    count = int(groups[-1]) + 1
    inverse = 1 / (p @ weights)
    rows = np.bincount(groups[cells], minlength=count)
    factors = np.where(rows > 0, rows / np.maximum(np.bincount(groups[cells], inverse, count), 1e-300), 1.0)
    live, reference = np.bincount(groups, live, count), np.bincount(groups, reference, count)
    shares = (reference + 0.5) / (reference + 0.5).sum() * factors
    total = shares.sum()
    shares = shares / total
    variance = shares / live.sum() + shares * (factors / total) / reference.sum()
    statistic = ((live / live.sum() - shares) ** 2 / variance).sum()
    degrees = count - len(weights)
    return chi_square_tail(float(statistic), degrees) if degrees > 0 else 1.0


def _groups(reference: np.ndarray, least: float) -> np.ndarray:
    """Cells (B,) → the number of each's group: neighbours, with at least so many rows of the reference in each."""
    groups, rows, number = [], 0.0, 0
    for count in reference.tolist():
        groups.append(number)
        rows += count
        if rows >= least:
            rows, number = 0.0, number + 1
    # What is left at the end is too little for a group of its own.
    last = max(0, number - 1)
    return np.minimum(groups, last)
