"""What only the evaluation of three classes or more has, as tables."""

from training.evaluate.scores import CalibrationError
from training.evaluate.several_classes.evaluation import ClassEvaluation
from training.evaluate.several_classes.subgroups import ClassGroupScores, ClassSubgroup
from training.report.figures import Figures, Row, error_rows, errors_over, expected_text, p_text, plus_minus, spread

MAX_MATRIX = 12
"""Classes up to which the confusion matrix is shown whole; of more, the `MAX_CONFUSIONS` most frequent confusions."""
MAX_CONFUSIONS = 20
INTERVALS = (
    "Of several seeds, the interval of a row is made to hold the share of the class among all rows like it for 90 % of "
    "rows, on average over rows like these: it assumes errors of log-odds of one size and about normal, and leaves out "
    "what no number of rows would teach the model. Of one seed it is Venn–Abers' alone, and tells only what the map "
    "does not know. Groups are tenths of the rows by probability, and texts of four rows and more; excluded are those "
    "whose count is too small for the lower ends or too large for the upper ones, at 5 % each."
)


def scores(evaluation: ClassEvaluation) -> list[Figures]:
    """Proper scores, calibration, each class's, decisions, and what is taken for what."""
    return [
        _proper(evaluation), _calibration(evaluation), _by_class(evaluation), _decisions(evaluation),
        _confusion(evaluation),
    ]  # fmt: skip


def _proper(evaluation: ClassEvaluation) -> Figures:
    sides = evaluation.calibrated, evaluation.raw
    return Figures(
        title="Proper scores", columns=("", "calibrated", "raw"),
        rows=(
            ("log loss", *(plus_minus(s.log_loss) for s in sides)),
            ("… 95 % interval", *(f"{s.log_loss.low:.4f} to {s.log_loss.high:.4f}" for s in sides)),
            ("… if calibrated", *(expected_text(s.log_loss_if_calibrated) for s in sides)),
            ("Brier score", *(plus_minus(s.brier) for s in sides)),
            ("… 95 % interval", *(f"{s.brier.low:.4f} to {s.brier.high:.4f}" for s in sides)),
            ("… if calibrated", *(expected_text(s.brier_if_calibrated) for s in sides)),
        ),
        note=f"± is one standard error over {errors_over(evaluation.clusters)}. “If calibrated”: mean and "
        "two-sided p-value of the score when labels are drawn from the probabilities. The Brier score is summed over "
        "the classes, from 0 to 2.",
    )  # fmt: skip


def _calibration(evaluation: ClassEvaluation) -> Figures:
    sides = evaluation.calibrated, evaluation.raw
    return Figures(
        title="Calibration", columns=("", "calibrated", "raw"),
        rows=(
            *error_rows("classwise ECE", *(s.classwise_error for s in sides)),
            *error_rows("top-label ECE", *(s.top_label_error for s in sides)),
        ),
        note="Ten bins each. Classwise: of each class's probability against whether the row is of it, averaged over "
        "the classes. Top-label: of the greatest probability against whether it names the right class. A perfectly "
        "calibrated model shows the errors “of a perfect model” by chance, on as many rows with the same "
        "probabilities; the p-value says how often it shows at least the error found.",
    )  # fmt: skip


def _by_class(evaluation: ClassEvaluation) -> Figures:
    calibrated, raw = evaluation.calibrated, evaluation.raw

    def row(name: str) -> Row:
        ours, theirs = calibrated.calibration_error[name], raw.calibration_error[name]
        rows = sum(calibrated.confusion[name].values())
        return name, str(rows), _error(ours), p_text(ours.p_value), _error(theirs), p_text(theirs.p_value)

    count = len(calibrated.calibration_error)
    return Figures(
        title="Calibration by class", columns=("", "rows", "ECE (noise)", "p", "raw ECE (noise)", "p"),
        rows=tuple(map(row, calibrated.calibration_error)),
        note=f"Each class against all others. Of {count} p-values compare the least with {0.05 / count:.4f}, the bound "
        "that holds for all of them together (Bonferroni).",
    )  # fmt: skip


def _error(error: CalibrationError) -> str:
    return f"{plus_minus(error.value, 3)} ({error.noise_floor:.3f})"


def _decisions(evaluation: ClassEvaluation) -> Figures:
    sides, classes = (evaluation.calibrated, evaluation.raw), evaluation.calibrated.recall
    return Figures(
        title="Discrimination and decisions", columns=("", "calibrated", "raw"),
        rows=(
            ("accuracy", *(spread(s.accuracy, 3) for s in sides)),
            *((f"recall, {name}", *(spread(s.recall[name], 3) for s in sides)) for name in classes),
            *((f"AUC, {name}", *(spread(s.auc[name], 3) for s in sides)) for name in classes),
        ),
        note="In brackets 95 % intervals: Wilson's for shares, DeLong's for the area under the ROC curve of each class "
        "against all others.",
    )  # fmt: skip


def _confusion(evaluation: ClassEvaluation) -> Figures:
    confusion = evaluation.calibrated.confusion
    if len(confusion) > MAX_MATRIX:
        return most_confused(confusion)
    return Figures(
        title="Confusion matrix", columns=("of the class", *(f"taken for {name}" for name in confusion)),
        rows=tuple(
            (name, *(_cell(count, sum(said.values())) for count in said.values())) for name, said in confusion.items()
        ),
        note="By the calibrated probabilities, the greatest of which is the outcome; in brackets the share of the row.",
    )  # fmt: skip


def most_confused(confusion: dict[str, dict[str, int]]) -> Figures:
    """The `MAX_CONFUSIONS` most frequent ones of class → outcome → rows."""
    wrong = [(count, name, said) for name, row in confusion.items() for said, count in row.items() if said != name]
    most = sorted(wrong, key=lambda each: -each[0])[:MAX_CONFUSIONS]
    return Figures(
        title="What is taken for what", columns=("of the class", "taken for", "rows"),
        rows=tuple((name, said, _cell(count, sum(confusion[name].values()))) for count, name, said in most if count),
        note="The most frequent confusions by the calibrated probabilities; in brackets the share of the class's rows.",
    )  # fmt: skip


def _cell(count: int, of: int) -> str:
    return f"{count} ({count / of:.0%})" if of else "0"


def intervals(evaluation: ClassEvaluation) -> Figures:
    """Venn–Abers' mean ends beside the share of each class."""
    return Figures(
        title="Intervals", columns=("", "mean ends", "average width", "share of the class", "groups not excluded"),
        rows=tuple(
            (
                name, f"{each.mean_low:.3f} to {each.mean_high:.3f}", f"{each.average_width:.3f}",
                spread(each.observed, 3), f"{each.compatible_groups} of {each.groups}",
            )
            for name, each in evaluation.intervals.items()
        ),
        note=f"Of each class against all others. {INTERVALS}",
    )  # fmt: skip


def subgroups(evaluation: ClassEvaluation, kind: str) -> Figures:
    """Each group's figures, ``kind`` calibrated or raw."""
    rows = tuple(_subgroup(group, getattr(group, kind)) for group in evaluation.subgroups)
    return Figures(
        title=f"Subgroups, {kind}", rows=rows,
        columns=("", "rows", "log loss", "accuracy", "mean top p", "shares: test", "top-label ECE (noise)", "test"),
        note="The tests are p-values: of the mean probabilities against the shares of the classes, and of the ECE. Of "
        f"{2 * len(rows)} one under .05 is to be expected by chance; {0.05 / (2 * len(rows)):.4f} is the bound that "
        "holds for all of them together (Bonferroni).",
    )  # fmt: skip


def _subgroup(group: ClassSubgroup, of: ClassGroupScores) -> Row:
    error = of.top_label_error
    return (
        group.title, str(group.rows), plus_minus(of.log_loss, 3), plus_minus(of.accuracy, 3), f"{of.top:.3f}",
        p_text(of.shares_p), f"{error.value.value:.3f} ({error.noise_floor:.3f})", p_text(error.p_value),
    )  # fmt: skip
