"""The figures of several seeds, in a sentence and as a table."""

from training.evaluate.evaluation import AnyEvaluation
from training.evaluate.scores import CalibrationError
from training.evaluate.seeds import Seeds, SeedScores, Spread
from training.report.figures import Figures, Row, p_text


def headline(evaluation: AnyEvaluation) -> str:
    """The figures to quote, in a sentence: the means over seeds, where there are several, and who serves; else ""."""
    seeds = evaluation.seeds
    if seeds is None:
        return ""
    return (
        f"Mean over {len(seeds.each)} seeds ± standard deviation between them: log loss {mean_sd(seeds.log_loss)}, "
        f"Brier score {mean_sd(seeds.brier)}, {error_name(seeds)} {mean_sd(seeds.calibration_error, 3)}, accuracy "
        f"{mean_sd(seeds.accuracy, 3)}. The standard error of the log loss over rows is "
        f"{evaluation.calibrated.log_loss.standard_error:.4f}. The model of seed {seeds.serves} serves: it was not "
        f"chosen by its scores, and all that is not said to be over seeds is of it."
    )


def error_name(seeds: Seeds) -> str:
    """What `Seeds.calibration_error` is called."""
    return "calibration error" if seeds.top_label_error is None else "classwise calibration error"


def mean_sd(spread: Spread, digits: int = 4) -> str:
    """Mean ± standard deviation between seeds."""
    return f"{spread.mean:.{digits}f} ±\u00a0{spread.sd:.{digits}f}"


def seeds_table(seeds: Seeds) -> Figures:
    """Each seed's figures below their mean."""
    errors = ("ECE (noise)", "p") if seeds.top_label_error is None else ("classwise ECE (noise)", "p")
    mean = (
        "mean ± sd between seeds", mean_sd(seeds.log_loss), mean_sd(seeds.brier),
        mean_sd(seeds.calibration_error, 3), "", mean_sd(seeds.accuracy, 3), mean_sd(seeds.auc, 3),
    )  # fmt: skip
    return Figures(
        title="Over seeds, calibrated", columns=("", "log loss", "Brier", *errors, "accuracy", "AUC"),
        rows=(mean, *(_seed(one, seeds.serves) for one in seeds.each)),
        note="Each seed has folds and fine-tunings of its own. The first one's model serves, whatever the scores; the "
        "mean is what to expect of the recipe. All score the same rows: what other rows would give is in the standard "
        "errors over rows.",
    )  # fmt: skip


def _seed(one: SeedScores, serves: int) -> Row:
    return (
        f"… seed {one.seed}" + ", which serves" * (one.seed == serves), f"{one.log_loss:.4f}", f"{one.brier:.4f}",
        *_error(one.calibration_error), f"{one.accuracy:.3f}", f"{one.auc:.3f}",
    )  # fmt: skip


def _error(error: CalibrationError) -> tuple[str, str]:
    return f"{error.value.value:.3f} ({error.noise_floor:.3f})", p_text(error.p_value)
