"""What several seeds say of one recipe: a single seed's figures may be lucky, or unlucky, ones."""

import math
from collections.abc import Mapping
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from msgspec import Struct

from training.evaluate.scores import CalibrationError, Scores
from training.evaluate.several_classes.scores import ClassScores

if TYPE_CHECKING:
    from training.evaluate.estimates import Estimate


class Spread(Struct, frozen=True):
    """The mean over seeds, and the standard deviation between them."""

    mean: float
    sd: float


class SeedScores(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One seed's figures on held-out rows, calibrated.

    Of more than two classes ``calibration_error`` is the classwise one and ``auc`` the mean of each class's against all
    others; ``top_label_error`` is of more than two only.
    """

    seed: int
    log_loss: float
    brier: float
    accuracy: float
    auc: float
    calibration_error: CalibrationError
    top_label_error: CalibrationError | None = None


class Seeds(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The figures of ``each`` seed with folds and fine-tunings of its own, and their spread.

    The model of the seed ``serves`` is the bundle's: the first, whatever the scores. All seeds score the same rows, so
    the spread says nothing of what other rows would give: that is the standard error over rows.
    """

    serves: int
    log_loss: Spread
    brier: Spread
    accuracy: Spread
    auc: Spread
    calibration_error: Spread
    top_label_error: Spread | None = None
    each: tuple[SeedScores, ...]


def compare_seeds(scores: Mapping[int, Scores | ClassScores]) -> Seeds | None:
    """Seed → its calibrated scores, the serving one's first; None for a single seed, which has no spread."""
    each = tuple(_of_seed(seed, one) for seed, one in scores.items())
    if len(each) < 2:
        return None

    def spread(name: str) -> Spread:
        values = [_value(getattr(one, name)) for one in each]
        return Spread(fmean(values), stdev(values))

    return Seeds(
        serves=each[0].seed, each=each, log_loss=spread("log_loss"), brier=spread("brier"),
        accuracy=spread("accuracy"), auc=spread("auc"), calibration_error=spread("calibration_error"),
        top_label_error=None if each[0].top_label_error is None else spread("top_label_error"),
    )  # fmt: skip


def _of_seed(seed: int, scores: Scores | ClassScores) -> SeedScores:
    if isinstance(scores, Scores):
        error, top = scores.calibration_error, None
    else:
        error, top = scores.classwise_error, scores.top_label_error
    return SeedScores(
        seed=seed, log_loss=scores.log_loss.value, brier=scores.brier.value, accuracy=scores.accuracy.value,
        auc=mean_auc(scores.auc), calibration_error=error, top_label_error=top,
    )  # fmt: skip


def mean_auc(auc: "Estimate | Mapping[str, Estimate]") -> float:
    """The area under the ROC curve; of several classes the mean of each against all others, NaN where none is known."""
    each = auc.values() if isinstance(auc, Mapping) else [auc]
    known = [estimate.value for estimate in each if not math.isnan(estimate.value)]
    return fmean(known) if known else float("nan")


def _value(figure: float | CalibrationError) -> float:
    return figure.value.value if isinstance(figure, CalibrationError) else figure
