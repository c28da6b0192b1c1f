"""Score probabilities of three classes or more: proper scores, calibration errors beside their noise floor, decisions.

Throughout p (n, K) are a row's probabilities, inside (0, 1) and summing to 1, and y (n,) the number of its class. With
two classes the positive one's probability says it all, and `training.evaluate.scores` says more of it.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from msgspec import Struct

from models.reference import PROBABILITY_BINS, probability_bins
from training.calibrate.maps import log_losses
from training.evaluate.clusters.dependence import INDEPENDENT, Dependence
from training.evaluate.clusters.errors import drawn_rows, picked
from training.evaluate.clusters.label_draws import LabelDraws
from training.evaluate.estimates import Estimate, mean, proportion, reflected, roc_auc
from training.evaluate.scores import (
    BLOCK,
    POSITIVE,
    CalibrationError,
    IfCalibrated,
    against_noise,
    draw_count,
    if_calibrated,
)


class ClassScores(Struct, frozen=True, kw_only=True):
    """Probabilities (n, K) against labels (n,).

    ``brier`` is the sum over classes of (p_k − 1{y = k})², from 0 to 2 (Brier, 1950); of two classes that is twice the
    score of the positive one. ``top_label_error`` is the 10-bin ECE of the greatest probability against whether it
    named the right class (Guo et al., 2017); ``calibration_error`` by class that of the class's probability against
    whether the row is of it, and ``classwise_error`` the mean of these (Kull et al., 2019). The noise floors
    are of labels drawn from the probabilities, one class for each row. ``auc`` is of each class against all others,
    ``confusion`` class → outcome → rows.
    """

    rows: int
    log_loss: Estimate
    brier: Estimate
    log_loss_if_calibrated: IfCalibrated
    brier_if_calibrated: IfCalibrated
    classwise_error: CalibrationError
    top_label_error: CalibrationError
    calibration_error: dict[str, CalibrationError]
    auc: dict[str, Estimate]
    accuracy: Estimate
    recall: dict[str, Estimate]
    confusion: dict[str, dict[str, int]]


def score_classes(
    p: np.ndarray, y: np.ndarray, classes: Sequence[str], rng: np.random.Generator,
    dependence: Dependence = INDEPENDENT,
) -> ClassScores:  # fmt: skip
    """All scores of at least one row, with standard errors over rows, or over clusters of them, or by bootstrap."""
    clusters = dependence.errors
    observed = {name: float(values[0]) for name, values in measures(p, y[None], np.ones((1, len(y)))).items()}
    null, again = draws_if_calibrated(p, rng, LabelDraws(p, y, dependence.tests)), resampled(p, y, rng, clusters)

    def error(name: str) -> CalibrationError:
        return against_noise(reflected(observed[name], again[name], bounds=POSITIVE), null[name])

    outcomes = top_classes(p)
    right = outcomes == y
    return ClassScores(
        rows=len(y), log_loss=mean(log_losses(p, y), clusters), brier=mean(brier_losses(p, y), clusters),
        log_loss_if_calibrated=if_calibrated(observed["log_loss"], null["log_loss"]),
        brier_if_calibrated=if_calibrated(observed["brier"], null["brier"]),
        classwise_error=error("classwise"), top_label_error=error("top_label"),
        calibration_error={name: error(of_class(k)) for k, name in enumerate(classes)},
        auc={name: roc_auc(p[:, k], y == k, clusters) for k, name in enumerate(classes)},
        accuracy=proportion(right, clusters),
        recall={
            name: proportion(right[y == k], picked(clusters, y == k))
            for k, name in enumerate(classes)
        },
        confusion={
            name: dict(zip(classes, np.bincount(outcomes[y == k], minlength=len(classes)).tolist(), strict=True))
            for k, name in enumerate(classes)
        },
    )  # fmt: skip


def of_class(k: int) -> str:
    """The name, among `measures`, of the error of class ``k``."""
    return f"class {k}"


def top_classes(p: np.ndarray) -> np.ndarray:
    """The class (n,) of the greatest probability of each row, the later one of equals."""
    return np.asarray(p.shape[1] - 1 - p[:, ::-1].argmax(axis=1))


def brier_losses(p: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Σ_k (p_k − 1{y = k})² of each row (n,)."""
    return np.asarray((p**2).sum(axis=1) + 1 - 2 * p[np.arange(len(y)), y])


def measures(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> dict[str, np.ndarray]:
    """Everything that is compared with its noise, each (R,): of labels (R, n) whose rows count w (R, n) times; either
    may be (1, n)."""
    errors = [binned_error(p[:, k], y == k, w) for k in range(p.shape[1])]
    row, total = np.arange(len(p)), w.sum(axis=1)
    own = p[row, y]
    return {
        **{of_class(k): error for k, error in enumerate(errors)}, "classwise": np.mean(errors, axis=0),
        "top_label": binned_error(p.max(axis=1), y == top_classes(p), w),
        "log_loss": -(w * np.log(own)).sum(axis=1) / total,
        "brier": (w * ((p**2).sum(axis=1) + 1 - 2 * own)).sum(axis=1) / total,
    }  # fmt: skip


def binned_error(p: np.ndarray, held: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Expected calibration error (R,) in ten bins of equal width, Σ_b |Σ_{i in b} w (held − p)| / Σ w, of probabilities
    (n,) against whether what they are of came true (R, n)."""
    member = np.eye(len(PROBABILITY_BINS))[probability_bins(p)]
    return np.asarray(np.abs((w * (held - p)) @ member).sum(axis=1) / w.sum(axis=1))


def draws_if_calibrated(
    p: np.ndarray, rng: np.random.Generator, uniform: LabelDraws | None = None
) -> dict[str, np.ndarray]:
    """`measures` (R,) of labels drawn from the probabilities themselves, independently or as ``uniform`` has them."""
    ends, uniform = p.cumsum(axis=1)[:, :-1], uniform or LabelDraws(p)

    def drawn(draws: int) -> np.ndarray:
        numbers = uniform(rng, draws)
        return np.asarray(np.sum([numbers > end for end in ends.T], axis=0))

    return _joined(p, ((drawn(draws), np.ones((1, len(p)))) for draws in _blocks(p)))


def resampled(
    p: np.ndarray, y: np.ndarray, rng: np.random.Generator, clusters: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """`measures` (R,) of rows, or of clusters (n,), drawn with replacement."""
    return _joined(p, ((y[None], drawn_rows(clusters, len(p), draws, rng)) for draws in _blocks(p)))


def _joined(p: np.ndarray, blocks: Iterator[tuple[np.ndarray, np.ndarray]]) -> dict[str, np.ndarray]:
    parts = [measures(p, y, w) for y, w in blocks]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _blocks(p: np.ndarray) -> Iterator[int]:
    """How many draws at a time, in all `draw_count`: the labels of one block are a number for each class."""
    block, draws = max(1, BLOCK // p.size), draw_count(len(p))
    for start in range(0, draws, block):
        yield min(block, draws - start)
