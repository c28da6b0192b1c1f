"""What prediction sets hold and what abstaining buys: error among the answered rows against the share answered."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct

from models.calibration.logit import class_probabilities
from training.evaluate.clusters.errors import picked
from training.evaluate.estimates import Estimate, proportion
from training.evaluate.several_classes.scores import top_classes


class RiskCoverage(Struct, frozen=True, kw_only=True):
    """The risk–coverage curve (El-Yaniv & Wiener, 2010): rows are answered in order of falling top probability.

    At index i the rows with the i + 1 largest distinct ones are answered: a share ``coverage[i]`` of all (rising, the
    last is 1), of which ``error[i]`` are wrong (the class of the top probability is not theirs), with standard error
    ``standard_error[i]``; ``expected[i]`` is what their probabilities expect, the mean of 1 less the top one. ``area``
    is the mean error over all coverages, rows of one top probability in random order; ``random`` what it would be if
    that said nothing (the error of all rows), ``oracle`` if the wrong rows had the smallest ones.

    Promise: if p is calibrated, ``error`` estimates ``expected``, which rises with coverage. The points share rows, so
    their errors are correlated, and the curve may fall by chance.
    """

    coverage: tuple[float, ...]
    error: tuple[float, ...]
    standard_error: tuple[float, ...]
    expected: tuple[float, ...]
    area: float
    random: float
    oracle: float


def risk_coverage(probabilities: np.ndarray, labels: np.ndarray) -> RiskCoverage:
    """The curve of probabilities, (n,) of the positive of two classes or (n, K), against labels (n,), the classes'
    numbers; raises ValueError where there are no rows."""
    if not len(labels):
        raise ValueError("there are no rows to answer")
    p = class_probabilities(probabilities)
    doubt, wrong = 1 - p.max(axis=1), (top_classes(p) != labels).astype(float)
    # Rounded, so that p and 1 − p, which are equally sure, tie.
    _, group = np.unique((2 * doubt).round(12), return_inverse=True)
    sizes, errors = np.bincount(group).astype(float), np.bincount(group, weights=wrong)
    answered, n = np.cumsum(sizes), len(labels)
    error, expected = np.cumsum(errors) / answered, np.cumsum(np.bincount(group, weights=doubt)) / answered
    # In a random order within a group, its rows are wrong at its own rate.
    rows = np.arange(1, n + 1)
    by_rank = np.cumsum(np.repeat(errors / sizes, sizes.astype(int))) / rows
    best = np.maximum(rows - (n - wrong.sum()), 0) / rows
    return RiskCoverage(
        coverage=tuple((answered / n).tolist()), error=tuple(error.tolist()),
        standard_error=tuple(np.sqrt(error * (1 - error) / answered).tolist()),
        expected=tuple(expected.tolist()), area=float(by_rank.mean()),
        random=float(wrong.mean()), oracle=float(best.mean()),
    )  # fmt: skip


class SetCoverage(Struct, frozen=True, kw_only=True):
    """Conformal prediction sets of nominal coverage 1 − α, and what comes of answering only where one class is left.

    ``overall``, ``by_class``: how many sets hold the true class, of all rows and of each class's. ``abstained`` is the
    share of sets that are not a single class, ``error_answered`` the share of wrong ones among the others (NaN if there
    are none), ``wrong_by_class`` how many of each class's rows are answered wrongly.

    Promise: a wrong answer leaves the true class out of the set, so of the rows of either class at most a share α is
    answered wrongly, whatever the model and the classes' shares (label-conditional validity), and so ``error_answered``
    ≤ α / (1 − ``abstained``). Assumption: rows of one class are exchangeable with its calibration rows. Nothing is
    promised about the error among the answered alone: who abstains is not random.
    """

    nominal: float
    overall: Estimate
    by_class: dict[str, Estimate]
    average_size: float
    abstained: float
    error_answered: Estimate
    wrong_by_class: dict[str, Estimate]


def set_coverage(
    member: np.ndarray, labels: np.ndarray, nominal: float, classes: Sequence[str], clusters: np.ndarray | None = None
) -> SetCoverage:
    """`SetCoverage` of sets (n, K) bool, whether each holds each of the classes, against labels (n,), their numbers;
    ``clusters`` (n,) as of `proportion`."""

    def of(values: np.ndarray, rows: np.ndarray) -> Estimate:
        return proportion(values[rows], picked(clusters, rows))

    held, size = member[np.arange(len(labels)), labels], member.sum(axis=1)
    wrong = (size == 1) & ~held
    return SetCoverage(
        nominal=nominal, overall=of(held, labels >= 0), average_size=float(size.mean()),
        abstained=float((size != 1).mean()),
        by_class={name: of(held, labels == index) for index, name in enumerate(classes)},
        error_answered=of(wrong, size == 1),
        wrong_by_class={name: of(wrong, labels == index) for index, name in enumerate(classes)},
    )  # fmt: skip
