"""What abstaining buys: error among the answered rows against the share answered."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from training.calibrate import fit_sets


class RiskCoverage(Struct, frozen=True, kw_only=True):
    """The risk–coverage curve (El-Yaniv & Wiener, 2010): rows are answered in order of falling margin |2p − 1|.

    At index i the rows with the i + 1 largest distinct margins are answered: a share ``coverage[i]`` of all (rising,
    the last is 1), of which ``error[i]`` are wrong (p ≥ ½ says survived), with standard error ``standard_error[i]``.
    ``area`` is the mean error over all coverages, rows of one margin in random order; ``random`` what it would be if
    margins said nothing (the error of all rows), ``oracle`` if the wrong rows had the smallest ones.

    Promise: if p is calibrated, ``error`` estimates the mean of min(p, 1 − p) over the answered, which rises with
    coverage. The points share rows, so their errors are correlated, and the curve may fall by chance.
    """

    coverage: tuple[float, ...]
    error: tuple[float, ...]
    standard_error: tuple[float, ...]
    area: float
    random: float
    oracle: float


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> RiskCoverage:
    """The curve of probabilities (n,) in [0, 1] against labels (n,) 0/1; raises ValueError where there are no rows."""
    if not len(labels):
        raise ValueError("there are no rows to answer")
    wrong = ((probabilities >= 0.5) != (labels == 1)).astype(float)
    # Rounded, so that p and 1 − p, which are equally sure, tie.
    _, group = np.unique(-np.abs(2 * probabilities - 1).round(12), return_inverse=True)
    sizes, errors = np.bincount(group).astype(float), np.bincount(group, weights=wrong)
    answered, n = np.cumsum(sizes), len(labels)
    error = np.cumsum(errors) / answered
    # In a random order within a group, its rows are wrong at its own rate.
    rows = np.arange(1, n + 1)
    expected = np.cumsum(np.repeat(errors / sizes, sizes.astype(int))) / rows
    best = np.maximum(rows - (n - wrong.sum()), 0) / rows
    return RiskCoverage(
        coverage=tuple((answered / n).tolist()), error=tuple(error.tolist()),
        standard_error=tuple(np.sqrt(error * (1 - error) / answered).tolist()),
        area=float(expected.mean()), random=float(wrong.mean()), oracle=float(best.mean()),
    )  # fmt: skip


class Abstention(Struct, frozen=True, kw_only=True):
    """How `abstain` works at one nominal coverage 1 − α of the prediction sets: a set of one class is an answer.

    ``answered`` is the share of rows answered, ``error`` the share of wrong ones among them (NaN if there are none),
    ``wrong`` the share of all rows answered wrongly, ``wrong_by_class`` that of the rows of died and of survived.

    Promise: a wrong answer leaves the true class out of the set, so of the rows of either class at most a share α is
    answered wrongly, whatever the model and the classes' shares (label-conditional validity), and so ``error`` ≤
    α / ``answered``. Assumption: rows of one class are exchangeable with its calibration rows. Nothing is promised
    about the error among the answered alone: who abstains is not random.
    """

    nominal: float
    answered: float
    error: float
    wrong: float
    wrong_by_class: tuple[float, float]


def abstention_curve(
    calibration: tuple[np.ndarray, np.ndarray], judged: tuple[np.ndarray, np.ndarray], nominals: Sequence[float]
) -> list[Abstention]:
    """`Abstention` at each nominal coverage in (0, 1): thresholds from ``calibration``, counted on ``judged``.

    Both are probabilities (n,) and labels (n,); no row may be in both.
    """
    p, y = judged
    found = []
    for nominal in nominals:
        member = fit_sets(*calibration, nominal).sets(p)
        answered = member.sum(axis=1) == 1
        wrong = answered & ~member[np.arange(len(y)), y]
        found.append(
            Abstention(
                nominal=nominal, answered=float(answered.mean()), wrong=float(wrong.mean()),
                error=float(wrong.sum() / answered.sum()) if answered.any() else float("nan"),
                wrong_by_class=(_share(wrong, y == 0), _share(wrong, y == 1)),
            )
        )  # fmt: skip
    return found


def _share(wrong: np.ndarray, rows: np.ndarray) -> float:
    return float(wrong[rows].mean()) if rows.any() else float("nan")
