"""A comparison of losses as tables of short texts."""

import math
from collections.abc import Callable, Sequence
from statistics import fmean

from msgspec import Struct

from training.evaluate.estimates import Estimate
from training.fit.finetune import Recipe
from training.loss_study.claims import Claim
from training.loss_study.comparison import LEVEL, REFERENCE, DefaultByEvidence, LossReport, Measured, PValues
from training.loss_study.contrasts import SIDES, Side
from training.report.figures import Figures, plus_minus


class ComparisonReport(Struct, frozen=True, kw_only=True):
    """What ``compare-losses --json`` writes: how it was measured, every loss, the tests, the claims, the default.

    ``classes`` are the rows of each class.
    """

    data_sha256: str
    base: str
    rows: int
    classes: dict[str, int]
    seeds: tuple[int, ...]
    folds: int
    feature: bool
    recipe: Recipe
    losses: dict[str, LossReport]
    tests: tuple[PValues, ...]
    claims: tuple[Claim, ...]
    default: DefaultByEvidence


def figures(report: ComparisonReport) -> list[Figures]:
    """All tables, log loss first."""
    tables = [_proper(report), _differences(report), _scales(report)]
    for side in SIDES:
        tables += [_calibration(report, side), _decisions(report, side)]
    tables += [_sets(report), _tests(report)]
    return [*tables, _failed(report)] if any(loss.failures for loss in report.losses.values()) else tables


Column = tuple[str, Callable[[Measured], str]]
"""A heading, and the text below it for a loss."""


def _table(title: str, report: ComparisonReport, columns: Sequence[Column], note: str) -> Figures:
    """A row for each loss; one that could not be trained, or not with every seed, says so."""

    def row(name: str, loss: LossReport) -> tuple[str, ...]:
        if loss.measured is None:
            collapsed = any("collapsed" in message for message in loss.failures.values())
            return name, "collapsed" if collapsed else "failed", *["–"] * (len(columns) - 1)
        if loss.failures:
            name += f" (seeds {', '.join(map(str, loss.seeds))})"
        return name, *(text(loss.measured) for _, text in columns)

    rows = tuple(row(name, loss) for name, loss in report.losses.items())
    return Figures(title=title, columns=("", *(heading for heading, _ in columns)), rows=rows, note=note)


def _figure(heading: str, side: Side, figure: str, digits: int = 4) -> Column:
    return heading, lambda loss: plus_minus(loss.side(side).figures[figure].over_rows, digits)


def _difference(heading: str, side: Side, figure: str, digits: int = 4) -> Column:
    def text(loss: Measured) -> str:
        difference = loss.side(side).differences.get(figure)
        return "–" if difference is None else signed(difference.over_rows, digits)

    return heading, text


def signed(estimate: Estimate, digits: int) -> str:
    """Value with its sign ± standard error."""
    return f"{estimate.value:+z.{digits}f} ±\u00a0{estimate.standard_error:.{digits}f}"


def _proper(report: ComparisonReport) -> Figures:
    names = {"log_loss": "log loss", "brier": "Brier"}
    columns = [_figure(f"{name}, {side}", side, figure) for figure, name in names.items() for side in SIDES]
    return _table("Proper scores", report, columns, "Log loss is in nats; less is better.")


def _differences(report: ComparisonReport) -> Figures:
    def seeds_sd(loss: Measured) -> str:
        difference = loss.calibrated.differences.get("log_loss")
        return "–" if difference is None or math.isnan(difference.seeds_sd) else f"{difference.seeds_sd:.4f}"

    columns = [
        _difference("log loss, raw", "raw", "log_loss"), _difference("log loss, calibrated", "calibrated", "log_loss"),
        ("… sd of seeds", seeds_sd), _difference("Brier, calibrated", "calibrated", "brier"),
        _difference("accuracy, calibrated", "calibrated", "accuracy"),
    ]  # fmt: skip
    return _table(
        f"Difference to {REFERENCE}", report, columns,
        f"Paired by row; a log loss or Brier score below 0 is better than {REFERENCE}'s. “sd of seeds” is the standard "
        "deviation of the seeds' mean differences.",
    )  # fmt: skip


def _scales(report: ComparisonReport) -> Figures:
    def text(value: float | None) -> str:
        return "–" if value is None else f"{value:.4f}"

    columns = [
        (f"of {REFERENCE}'s predictions", lambda loss: text(loss.own_value_of_reference)),
        ("of its own predictions", lambda loss: text(loss.own_value)),
        _figure("log loss of its own, raw", "raw", "log_loss"),
    ]  # fmt: skip
    return _table(
        "Each loss in its own scale", report, columns,
        "In the first column every loss is computed of one and the same held-out predictions: what differs there is "
        "the scale and nothing else. Only the last column compares models.",
    )  # fmt: skip


def _calibration(report: ComparisonReport, side: Side) -> Figures:
    def errors(heading: str, part: Callable[[Measured], list[float]]) -> Column:
        return heading, lambda loss: f"{fmean(part(loss)):.3f}"

    def p_values(heading: str, test: str) -> Column:
        return heading, lambda loss: " ".join(map(_p, loss.side(side).p_values[test]))

    columns = [
        errors("ECE, 10 bins", lambda loss: [error.value.value for error in loss.side(side).calibration_error]),
        errors("… noise", lambda loss: [error.noise_floor for error in loss.side(side).calibration_error]),
        p_values("… p", "ECE, 10 bins"),
        errors("smooth ECE", lambda loss: [error.value.value for error in loss.side(side).smooth_error]),
        p_values("… p", "smooth ECE"), p_values("Spiegelhalter p", "Spiegelhalter's Z"),
        p_values("Hosmer– Lemeshow p", "Hosmer–Lemeshow χ²"),
    ]  # fmt: skip
    return _table(
        f"Calibration, {side}", report, columns,
        "Errors are averages over seeds; “noise” is the ECE that a perfectly calibrated model with the same "
        "probabilities shows by chance. The p-values are the seeds', in order: how rarely such a model looks as bad.",
    )  # fmt: skip


def _p(value: float) -> str:
    return f"{value:.3f}".removeprefix("0") if value >= 0.001 else "<.001"


def _decisions(report: ComparisonReport, side: Side) -> Figures:
    columns: list[Column] = [
        ("AUC", lambda loss: plus_minus(loss.side(side).auc.over_rows, 3)), _figure("accuracy", side, "accuracy", 3)
    ]  # fmt: skip
    for name in report.classes:
        columns.append(_figure(f"recall, {name}", side, f"recall_{name}", 3))
        columns.append(_difference("… difference", side, f"recall_{name}", 3))
    return _table(
        f"Decisions, {side}", report, columns,
        f"Decisions at p ≥ ½. The differences are paired, of the recall before them to {REFERENCE}'s. AUC and its "
        "standard error (DeLong's) are averages over seeds.",
    )  # fmt: skip


def _sets(report: ComparisonReport) -> Figures:
    def of_class(name: str) -> Column:
        return f"… of {name}", lambda loss: plus_minus(loss.sets.by_class[name].over_rows, 3)

    def maps(loss: Measured) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in loss.maps_chosen.items())

    nominal = next((loss.measured.sets.nominal for loss in report.losses.values() if loss.measured), math.nan)
    columns: list[Column] = [
        ("maps chosen", maps), ("sets hold the outcome", lambda loss: plus_minus(loss.sets.overall.over_rows, 3)),
        *map(of_class, report.classes),
        ("classes in a set", lambda loss: f"{loss.sets.average_size:.2f}"),
        ("abstained", lambda loss: f"{loss.sets.abstained:.3f}"),
    ]  # fmt: skip
    return _table(
        "Calibration maps and prediction sets", report, columns,
        f"Sets of nominal coverage {nominal:g}. Beside each map is the number of folds, of all seeds, that chose it.",
    )  # fmt: skip


def _tests(report: ComparisonReport) -> Figures:
    rows = tuple(
        (test.test, test.side, str(test.tests), f"{test.expected:.1f}", str(test.below), str(test.after_holm))
        for test in report.tests
    )
    total = sum(test.tests for test in report.tests)
    return Figures(
        title="How many calibration tests", columns=("", "", "tests", "expected", "found", "after Holm"), rows=rows,
        note=f"{total} in all, one for each loss, seed, side and kind. “expected” of them have p ≤ {LEVEL:g} if every "
        "model is calibrated; “after Holm” remain when the tests of a line may err together in 5 % only (Holm, 1979). "
        "Seeds and losses share their rows, so the tests are not independent; Holm's bound needs no independence.",
    )  # fmt: skip


def _failed(report: ComparisonReport) -> Figures:
    rows = tuple(
        (name, str(seed), message) for name, loss in report.losses.items() for seed, message in loss.failures.items()
    )
    note = "A loss is averaged over the seeds that it has; its differences are taken over the seeds that both have."
    return Figures(title="What could not be trained", columns=("", "seed", "what happened"), rows=rows, note=note)
