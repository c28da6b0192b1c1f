"""What a comparison of losses says: each one's figures, the distance to cross entropy, the tests, the default."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from msgspec import Struct

from models.calibration.inverse import FocalInverse
from training.evaluate.comparisons.paired import holm
from training.evaluate.evaluation import Evaluation
from training.evaluate.scores import CalibrationError, Scores
from training.loss_study.contrasts import (
    SIDES,
    Run,
    Side,
    Spread,
    Values,
    averaged,
    paired,
    row_values,
    spread,
    values_of,
)
from training.losses.registry import Loss, LossChoice

REFERENCE = "cross_entropy"
DEFAULT = LossChoice().name
LEVEL = 0.05

TESTS: dict[str, Callable[[Scores], float]] = {
    "ECE, 10 bins": lambda scores: scores.calibration_error.p_value,
    "smooth ECE": lambda scores: scores.smooth_error.p_value,
    "Spiegelhalter's Z": lambda scores: scores.spiegelhalter_p,
    "Hosmer–Lemeshow χ²": lambda scores: scores.hosmer_lemeshow.p_value,
}
"""Calibration tests by name, and where their p-values are."""


@dataclass
class Comparison:
    """What was measured, by loss as `study.loss_choices` names it: NAME, or NAME:PRESET.

    ``labels`` (n,) are numbers of ``classes``, the last being the positive one; ``runs`` and ``evaluations`` of each
    seed that could be trained, ``failures`` what stopped the others. ``steps`` are those of one fine-tuning, on which
    adaptive loss depends.
    """

    classes: tuple[str, ...]
    labels: np.ndarray
    losses: dict[str, Loss]
    steps: int
    runs: dict[str, dict[int, Run]] = field(default_factory=dict)
    evaluations: dict[str, dict[int, Evaluation]] = field(default_factory=dict)
    failures: dict[str, dict[int, str]] = field(default_factory=dict)

    @property
    def figures(self) -> tuple[str, ...]:
        """What is compared of each loss."""
        return ("log_loss", "brier", "accuracy", *(f"recall_{name}" for name in self.classes))

    def contrast(self, ours: str, theirs: str, figure: str, side: Side) -> Spread | None:
        """`difference` of one of the figures, of raw or of calibrated probabilities."""
        return self.difference(ours, theirs, values_of(figure, side, self.classes))

    def difference(self, ours: str, theirs: str, values: Values) -> Spread | None:
        """`contrasts.paired` by name; None where either has no run, or they share no seed."""
        return paired(self.runs.get(ours, {}), self.runs.get(theirs, {}), self.labels, values)

    def average(self, loss: str, values: Values) -> Spread | None:
        """A figure of one loss, over the seeds that it has."""
        runs = self.runs.get(loss)
        return spread([values(run, self.labels) for run in runs.values()]) if runs else None

    def own_value(self, loss: str, of: str) -> float | None:
        """``loss`` in its own scale, of the held-out logits of ``of``, averaged over seeds."""
        runs = self.runs.get(of)
        if not runs or loss not in self.losses:
            return None
        return float(np.mean([self.losses[loss].value(r.logits, self.labels, self.steps) for r in runs.values()]))


class SideReport(Struct, frozen=True, kw_only=True):
    """Raw or calibrated figures of one loss. ``differences`` are to `REFERENCE`, paired; the tuples go by seed."""

    figures: dict[str, Spread]
    differences: dict[str, Spread]
    auc: Spread
    calibration_error: tuple[CalibrationError, ...]
    smooth_error: tuple[CalibrationError, ...]
    p_values: dict[str, tuple[float, ...]]


class SetsReport(Struct, frozen=True, kw_only=True):
    """Prediction sets of one loss: coverage overall and by class; the last two are averages over seeds."""

    nominal: float
    overall: Spread
    by_class: dict[str, Spread]
    average_size: float
    abstained: float


class Measured(Struct, frozen=True, kw_only=True):
    """What was measured of one loss. ``maps_chosen`` counts folds over all seeds; own values are in the loss's own
    scale, of its own held-out predictions and of `REFERENCE`'s (None where that was not trained)."""

    raw: SideReport
    calibrated: SideReport
    sets: SetsReport
    maps_chosen: dict[str, int]
    own_value: float | None
    own_value_of_reference: float | None

    def side(self, side: Side) -> SideReport:
        return self.raw if side == "raw" else self.calibrated


class LossReport(Struct, frozen=True, kw_only=True):
    """All of one loss. ``seeds`` are those it could be trained with, ``failures`` by seed say what stopped the others.

    ``parameters`` are those computed from all rows; ``alpha_shift`` is ln(α_positive/α_negative), which its minimiser
    adds to the logit, None where that is no single number. ``measured`` is None if no seed could be trained.
    """

    loss: str
    parameters: dict[str, Any]
    alpha_shift: float | None
    seeds: tuple[int, ...]
    failures: dict[int, str]
    measured: Measured | None


class PValues(Struct, frozen=True, kw_only=True):
    """A calibration test over all losses and seeds: how many p-values lie below `LEVEL`, how many would by chance.

    ``after_holm`` counts those that remain when the tests of this line share one error rate.
    """

    test: str
    side: Side
    tests: int
    expected: float
    below: int
    after_holm: int


class DefaultByEvidence(Struct, frozen=True, kw_only=True):
    """Log loss of `DEFAULT` minus that of `REFERENCE`, both calibrated. ``worse`` is: by more than a standard error."""

    difference: Spread | None
    worse: bool
    words: str


def report_loss(comparison: Comparison, name: str) -> LossReport:
    """The figures of one loss."""
    loss, runs = comparison.losses[name], comparison.runs.get(name, {})
    inverse = loss.inverse(comparison.steps)
    return LossReport(
        loss=loss.name, parameters=loss.parameters, seeds=tuple(runs),
        alpha_shift=alpha_shift(inverse) if isinstance(inverse, FocalInverse) else None,
        failures=dict(comparison.failures.get(name, {})), measured=_measured(comparison, name) if runs else None,
    )  # fmt: skip


def _measured(comparison: Comparison, name: str) -> Measured:
    evaluations = list(comparison.evaluations[name].values())
    maps = Counter(chosen for evaluation in evaluations for chosen in evaluation.maps_chosen or ())
    return Measured(
        raw=_side(comparison, name, "raw"), calibrated=_side(comparison, name, "calibrated"), sets=_sets(evaluations),
        maps_chosen=dict(maps.most_common()), own_value=comparison.own_value(name, name),
        own_value_of_reference=comparison.own_value(name, REFERENCE),
    )  # fmt: skip


def alpha_shift(inverse: FocalInverse) -> float:
    """ln(α_positive/α_negative): what class weights add to the logit that minimises the loss."""
    return float(np.log(inverse.alpha_positive) - np.log(inverse.alpha_negative))


def _side(comparison: Comparison, name: str, side: Side) -> SideReport:
    scores = [getattr(evaluation, side) for evaluation in comparison.evaluations[name].values()]
    runs = comparison.runs[name].values()
    rows = [row_values(run.side(side), comparison.labels, comparison.classes) for run in runs]
    differences = {}
    if name != REFERENCE:
        differences = {figure: comparison.contrast(name, REFERENCE, figure, side) for figure in comparison.figures}
    return SideReport(
        figures={figure: spread([values[figure] for values in rows]) for figure in comparison.figures},
        differences={figure: found for figure, found in differences.items() if found is not None},
        auc=averaged([score.auc for score in scores]),
        calibration_error=tuple(score.calibration_error for score in scores),
        smooth_error=tuple(score.smooth_error for score in scores),
        p_values={test: tuple(map(p_value, scores)) for test, p_value in TESTS.items()},
    )  # fmt: skip


def _sets(evaluations: list[Evaluation]) -> SetsReport:
    sets = [evaluation.sets for evaluation in evaluations]
    return SetsReport(
        nominal=sets[0].nominal, overall=averaged([coverage.overall for coverage in sets]),
        by_class={name: averaged([coverage.by_class[name] for coverage in sets]) for name in sets[0].by_class},
        average_size=float(np.mean([coverage.average_size for coverage in sets])),
        abstained=float(np.mean([coverage.abstained for coverage in sets])),
    )  # fmt: skip


def count_tests(reports: Iterable[LossReport]) -> tuple[PValues, ...]:
    """Every calibration test that was made, counted."""
    held, counted = [report.measured for report in reports if report.measured is not None], []
    for side in SIDES:
        for test in TESTS:
            p_values = [p for loss in held for p in loss.side(side).p_values[test]]
            counted.append(
                PValues(
                    test=test, side=side, tests=len(p_values), expected=LEVEL * len(p_values),
                    below=sum(p <= LEVEL for p in p_values), after_holm=holm(p_values, LEVEL),
                )
            )  # fmt: skip
    return tuple(counted)


def default_by_evidence(comparison: Comparison) -> DefaultByEvidence:
    """Whether the default loss, calibrated, is worse than cross entropy, calibrated, by more than a standard error."""
    difference = comparison.contrast(DEFAULT, REFERENCE, "log_loss", "calibrated")
    if difference is None:
        missing = [name for name in (DEFAULT, REFERENCE) if name not in comparison.runs] or ["a common seed"]
        return DefaultByEvidence(difference=None, worse=False, words=f"not measured: {', '.join(missing)} is missing")
    by = difference.over_rows
    worse = by.value > by.standard_error
    return DefaultByEvidence(
        difference=difference, worse=worse,
        words=f"log loss of {DEFAULT} minus that of {REFERENCE}, both calibrated: {by.value:+z.4f} ± "
        f"{by.standard_error:.4f}; worse by more than one standard error: {'yes' if worse else 'no'}; by this evidence "
        + (f"the default should be {REFERENCE}" if worse else f"{DEFAULT} can stay the default"),
    )  # fmt: skip
