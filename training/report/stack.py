"""What the stack is worth, in a table and in a sentence."""

from training.evaluate.evaluation import AnyEvaluation
from training.evaluate.stack import AloneScore, StackComparison
from training.report.figures import Figures, Row, plus_minus

TITLES = {"linear": "linear model of the fields", "trees": "boosted trees of the fields", "words": "words and fields"}


def stack_table(evaluation: AnyEvaluation) -> list[Figures]:
    """The stack beside each of its models alone; nothing where there is no stack."""
    if evaluation.stack is None:
        return []
    found = evaluation.stack
    rows: list[Row] = [("all together", plus_minus(evaluation.calibrated.log_loss), "", "")]
    rows.append(_row("BERT alone, calibrated", found.model, found.weights["model"]))
    rows += [_row(f"{TITLES[name]}, alone", each, found.weights[name]) for name, each in found.seconds.items()]
    return [
        Figures(
            title="BERT and second models", columns=("", "log loss", "difference", "weight"), rows=tuple(rows),
            note="Difference: log loss of all together minus that of the one, row by row; below 0 the stack is better. "
            f"Weights are means over the folds, whose stacks were of {_listed(found)}.",
        )
    ]  # fmt: skip


def _row(title: str, alone: AloneScore, weight: float) -> Row:
    return title, plus_minus(alone.log_loss), plus_minus(alone.difference), f"{weight:.2f}"


def _listed(found: StackComparison) -> str:
    return ", ".join(f"BERT with {names.replace('+', ' and ')}" if names != "none" else "BERT alone"
                     for names in dict.fromkeys(found.chosen))  # fmt: skip


def second_as_good(evaluation: AnyEvaluation) -> str:
    """That a second model alone is as good as the stack, in a sentence; empty where none is."""
    seconds = {} if evaluation.stack is None else evaluation.stack.seconds
    good = {name: each for name, each in seconds.items() if each.as_good}
    if not good:
        return ""
    name, best = min(good.items(), key=lambda item: item[1].log_loss.value)
    by = best.difference
    return (
        f"On this table a second model alone ({TITLES[name]}) is as good as all together: log loss "
        f"{best.log_loss.value:.4f} for {evaluation.calibrated.log_loss.value:.4f}, paired difference {by.value:+.4f} "
        f"± {by.standard_error:.4f}."
    )
