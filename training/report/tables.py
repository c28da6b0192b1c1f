"""The evaluation as tables of short texts: the same for the terminal, the model card and the report."""

from collections.abc import Callable

from rich.console import Console

from training.evaluate.estimates import Estimate
from training.evaluate.evaluation import AnyEvaluation, Evaluation
from training.evaluate.scores import Scores
from training.evaluate.seeds import mean_auc
from training.evaluate.selective_risk import SetCoverage
from training.evaluate.subgroups import GroupScores, Subgroup
from training.report.decisions import decision_tables
from training.report.figures import (
    Figures,
    Row,
    error_rows,
    errors_over,
    expected_text,
    p_text,
    plus_minus,
    spread,
    text_table,
)
from training.report.seeds import headline, seeds_table
from training.report.set_tables import set_tables
from training.report.several_classes import tables as of_classes
from training.report.several_classes.tables import INTERVALS
from training.report.stack import second_as_good, stack_table


def tables(evaluation: AnyEvaluation) -> list[Figures]:
    """All tables of an evaluation, the proper scores first; those of subgroups where there are any."""
    if isinstance(evaluation, Evaluation):
        scores, rest = [_proper(evaluation), _calibration(evaluation), _decisions(evaluation)], _intervals(evaluation)
    else:
        scores, rest = of_classes.scores(evaluation), of_classes.intervals(evaluation)
    over_seeds = [] if evaluation.seeds is None else [seeds_table(evaluation.seeds)]
    stacked, by_costs = stack_table(evaluation), decision_tables(evaluation)
    all_tables = [*over_seeds, *scores, *stacked, *by_costs, _sets(evaluation), *set_tables(evaluation), rest]
    if evaluation.baselines is not None:
        all_tables.append(_baselines(evaluation))
    # A table whose only field is a text has none.
    return all_tables + _groups(evaluation) if evaluation.subgroups else all_tables


def _groups(evaluation: AnyEvaluation) -> list[Figures]:
    if isinstance(evaluation, Evaluation):
        return [_subgroups(evaluation, "calibrated"), _subgroups(evaluation, "raw")]
    return [of_classes.subgroups(evaluation, "calibrated"), of_classes.subgroups(evaluation, "raw")]


def baselines_verdict(evaluation: AnyEvaluation) -> str:
    """In words, a line for each baseline: whether it has the lower log loss on the same rows, and by how much."""
    lines = [] if evaluation.baselines else ["Nothing else was trained and compared on these rows."]
    for baseline in (evaluation.baselines or {}).values():
        by = baseline.log_loss_difference
        zero = "leaves out" if by.low > 0 or by.high < 0 else "holds"
        rank = "better" if by.value > 0 else "worse"
        lines.append(
            f"{baseline.what[0].upper()}{baseline.what[1:]}: log loss {baseline.log_loss.value:.4f}, {rank} than this "
            f"model by {abs(by.value):.4f} ± {by.standard_error:.4f}; its 95 % interval {zero} 0."
        )
    return "\n".join(lines)


PLAINLY_BETTER = 0.01
"""A baseline's lead in log loss, in nats, that is said first of all."""


def better_baseline(evaluation: AnyEvaluation) -> str:
    """That the best baseline is ahead by more than `PLAINLY_BETTER`, or a second model alone as good as the stack, in a
    sentence; empty where none is."""
    best = max((evaluation.baselines or {}).values(), key=lambda each: each.log_loss_difference.value, default=None)
    if best is None or best.log_loss_difference.value <= PLAINLY_BETTER:
        return second_as_good(evaluation)
    by = best.log_loss_difference
    return (
        f"On this table another model is better: {best.what}, with a log loss of {best.log_loss.value:.4f} on the same "
        f"rows and folds, where this one has {evaluation.calibrated.log_loss.value:.4f}. Paired difference: "
        f"{by.value:.4f} ± {by.standard_error:.4f}."
    )


def positive_class(evaluation: Evaluation) -> str:
    """The class that the probabilities are of."""
    return list(evaluation.calibrated.recall)[-1]


def _both(evaluation: Evaluation, name: str, text: Callable[[Scores], str]) -> Row:
    return name, text(evaluation.calibrated), text(evaluation.raw)


def _proper(evaluation: Evaluation) -> Figures:
    def part(name: str) -> Row:
        return _both(evaluation, f"… {name.replace('_', ' ')}", lambda s: plus_minus(getattr(s.brier_parts, name)))

    def row(name: str, text: Callable[[Scores], str]) -> Row:
        return _both(evaluation, name, text)

    return Figures(
        title="Proper scores", columns=("", "calibrated", "raw"),
        rows=(
            row("log loss", lambda s: plus_minus(s.log_loss)),
            row("… 95 % interval", lambda s: f"{s.log_loss.low:.4f} to {s.log_loss.high:.4f}"),
            row("… if calibrated", lambda s: expected_text(s.log_loss_if_calibrated)),
            row("Brier score", lambda s: plus_minus(s.brier)),
            row("… 95 % interval", lambda s: f"{s.brier.low:.4f} to {s.brier.high:.4f}"),
            row("… if calibrated", lambda s: expected_text(s.brier_if_calibrated)),
            row("… reliability", lambda s: plus_minus(s.brier_parts.reliability.value)),
            row("… reliability if calibrated", lambda s: f"{s.brier_parts.reliability.noise_floor:.4f}"),
            *map(part, ("resolution", "uncertainty", "within_bins")),
        ),
        note=f"± is one standard error over {errors_over(evaluation.clusters)}. “If calibrated”: mean and "
        "two-sided p-value of the score when labels are drawn from the probabilities. Brier = reliability − resolution "
        "+ uncertainty + within bins; ten bins.",
    )  # fmt: skip


ERRORS = {
    "calibration_error": "ECE, 10 bins", "debiased_squared_error": "debiased L2, squared", "sweep_error": "sweep ECE",
    "smooth_error": "smooth ECE",
}  # fmt: skip


def _calibration(evaluation: Evaluation) -> Figures:
    rows = [row for name in ERRORS for row in _error(evaluation, name)]

    def test(name: str, text: Callable[[Scores], str]) -> None:
        rows.append(_both(evaluation, name, text))

    test("Spiegelhalter's Z", lambda s: f"{s.spiegelhalter_z:.2f} (p\u00a0{p_text(s.spiegelhalter_p)})")
    test(
        "Hosmer–Lemeshow χ²",
        lambda s: f"{s.hosmer_lemeshow.statistic:.2f} (p\u00a0{p_text(s.hosmer_lemeshow.p_value)})",
    )
    test("… degrees of freedom", lambda s: str(s.hosmer_lemeshow.degrees_of_freedom))
    test("… simulated p-value", lambda s: p_text(s.hosmer_lemeshow.simulated_p_value))
    return Figures(
        title="Calibration", columns=("", "calibrated", "raw"), rows=tuple(rows),
        note="A perfectly calibrated model shows the errors “of a perfect model” by chance, on as many rows with the "
        "same probabilities; the p-value says how often it shows at least the error found.",
    )  # fmt: skip


def _error(evaluation: Evaluation, name: str) -> list[Row]:
    return error_rows(ERRORS[name], *(getattr(side, name) for side in (evaluation.calibrated, evaluation.raw)))


def _decisions(evaluation: Evaluation) -> Figures:
    def recall(name: str) -> Row:
        return _both(evaluation, f"recall, {name}", lambda s: spread(s.recall[name], 3))

    return Figures(
        title="Discrimination and decisions", columns=("", "calibrated", "raw"),
        rows=(
            _both(evaluation, "AUC", lambda s: spread(s.auc, 3)),
            _both(evaluation, "accuracy", lambda s: spread(s.accuracy, 3)), *map(recall, evaluation.calibrated.recall),
        ),
        note="In brackets 95 % intervals: DeLong's for the area under the ROC curve, Wilson's for shares.",
    )  # fmt: skip


def _sets(evaluation: AnyEvaluation) -> Figures:
    sets, classes = evaluation.sets_at or (evaluation.sets,), tuple(evaluation.sets.by_class)

    def row(name: str, text: Callable[[SetCoverage], str]) -> Row:
        return name, *map(text, sets)

    def of_class(name: str, figure: str, label: str) -> Row:
        return row(label, lambda s: spread(getattr(s, figure)[name], 3))

    return Figures(
        title="Prediction sets", columns=("", *(f"nominal {coverage.nominal:g}" for coverage in sets)),
        rows=(
            row("hold the outcome", lambda s: spread(s.overall, 3)),
            *(of_class(name, "by_class", f"… of the class {name}") for name in classes),
            row("classes in a set, average", lambda s: f"{s.average_size:.2f}"),
            row("abstained (not one class)", lambda s: f"{s.abstained:.3f}"),
            row("wrong among those answered", lambda s: spread(s.error_answered, 3)),
            *(of_class(name, "wrong_by_class", f"… of all of the class {name}") for name in classes),
        ),
        note="A set of one class is an answer; other sets abstain. Of all rows of a class at most one minus the "
        "nominal coverage is promised to be answered wrongly. Mean error over all shares of rows answered, the most "
        f"certain first: {evaluation.risk.area:.3f}; {evaluation.risk.random:.3f} if certainty said nothing, "
        f"{evaluation.risk.oracle:.3f} if it knew the wrong answers.",
    )  # fmt: skip


def _intervals(evaluation: Evaluation) -> Figures:
    interval = evaluation.interval
    return Figures(
        title="Intervals", columns=("", "found"),
        rows=(
            ("mean ends", f"{interval.mean_low:.3f} to {interval.mean_high:.3f}"),
            ("… average width", f"{interval.average_width:.3f}"),
            (f"share of {positive_class(evaluation)}", spread(interval.observed)),
            ("groups that they do not exclude", f"{interval.compatible_groups} of {interval.groups}"),
        ),
        note=INTERVALS,
    )  # fmt: skip


def _subgroups(evaluation: Evaluation, kind: str) -> Figures:
    rows = tuple(_subgroup(group, getattr(group, kind)) for group in evaluation.subgroups)
    return Figures(
        title=f"Subgroups, {kind}", rows=rows,
        columns=("", "rows", positive_class(evaluation), "mean p", "test", "log loss", "ECE (noise)", "test"),
        note="The tests are p-values: of the mean probability p against the share of the class, and of the ECE. Of "
        f"{2 * len(rows)} one under .05 is to be expected by chance; {0.05 / (2 * len(rows)):.4f} is the bound that "
        "holds for all of them together (Bonferroni).",
    )  # fmt: skip


def _subgroup(group: Subgroup, scores: GroupScores) -> Row:
    error = scores.calibration_error
    return (
        group.title, str(group.rows), plus_minus(group.observed, 3), f"{scores.expected:.3f}", p_text(scores.excess_p),
        plus_minus(scores.log_loss, 3), f"{error.value.value:.3f} ({error.noise_floor:.3f})", p_text(error.p_value),
    )  # fmt: skip


def _baselines(evaluation: AnyEvaluation) -> Figures:
    ours, rows = evaluation.calibrated, []
    for name, baseline in (evaluation.baselines or {}).items():
        differs = plus_minus(baseline.log_loss), plus_minus(baseline.log_loss_difference)
        rows.append((name.replace("_", " "), *differs, f"{baseline.brier.value:.4f}", _auc(baseline.auc)))
    return Figures(
        title="Baselines on the same folds", columns=("", "log loss", "difference", "Brier", "AUC"),
        rows=(("this model", plus_minus(ours.log_loss), "", f"{ours.brier.value:.4f}", _auc(ours.auc)), *rows),
        note="Difference: this model's log loss minus the baseline's, row by row; above 0 the baseline is better. The "
        "folds' training sets overlap, so the spread that other training rows would add is not in the standard errors.",
    )  # fmt: skip


def _auc(auc: Estimate | dict[str, Estimate]) -> str:
    """The area under the ROC curve; of several classes the mean of each against all others."""
    return f"{mean_auc(auc):.4f}"


def print_evaluation(evaluation: AnyEvaluation, console: Console) -> None:
    """The evaluation as tables for a terminal."""
    console.print(f"{evaluation.rows} rows: {evaluation.how}")
    for figures in tables(evaluation):
        console.print(text_table(figures))
    for words in (baselines_verdict(evaluation), better_baseline(evaluation), headline(evaluation)):
        if words:
            console.print(words)
