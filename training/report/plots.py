"""The pictures of an evaluation: reliability, scores by outcome, risk and coverage, subgroups, baselines, training."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from models.reference import probability_bins
from models.schema import Schema
from training.evaluate.calibration_errors import WIDTH_BINS
from training.evaluate.estimates import Estimate, share
from training.evaluate.evaluation import AnyEvaluation, Evaluation
from training.evaluate.predictions import LabelledPredictions
from training.evaluate.selective_risk import risk_coverage
from training.evaluate.several_classes.evaluation import ClassEvaluation
from training.evaluate.several_classes.scores import top_classes
from training.evaluate.several_classes.subgroups import ClassSubgroup
from training.evaluate.subgroups import Subgroup
from training.fit.epoch_diagnostics import EpochDiagnostics
from training.report.decisions import net_benefit_plot
from training.report.names import plural, short
from training.report.several_classes import plots as of_classes
from training.report.svg import WIDTH, Frame, Plot, round_step

DRAWS, MIN_DRAWS = 2000, 200
DRAWN_ROWS = 10_000_000
"""Of many rows fewer draws, as in `scores`."""
MAX_POINTS = 400
"""Of a curve: a picture shows no more."""
TENTHS = (0, 0.2, 0.4, 0.6, 0.8, 1)
LEFT, RIGHT = 44, 14
INNER = WIDTH - LEFT - RIGHT


def make_plots(
    predictions: LabelledPredictions,
    evaluation: AnyEvaluation,
    epochs: Sequence[EpochDiagnostics],
    rng: np.random.Generator,
) -> list[Plot]:
    """All pictures that the evaluation and the training log (empty: no training curves) give."""
    schema = predictions.schema
    if isinstance(evaluation, Evaluation):
        plots = _of_two(predictions, rng)
    else:
        plots = _of_several(predictions, evaluation, rng)
    plots.append(risk(predictions, evaluation))
    if evaluation.subgroups:
        plots.append(subgroups(evaluation, schema))
    if evaluation.baselines:
        plots.append(baselines(evaluation))
    if epochs:
        plots += [curves(epochs, "loss"), curves(epochs, "accuracy")]
    return plots


def _of_two(predictions: LabelledPredictions, rng: np.random.Generator) -> list[Plot]:
    schema, y = predictions.schema, predictions.labels
    sides = {"calibrated": predictions.calibrated, "raw": predictions.raw}
    plots = [reliability(kind, p, y, schema.positive, schema, rng) for kind, p in sides.items()]
    return [*plots, *(outcomes(kind, p, y, schema) for kind, p in sides.items()), net_benefit_plot(predictions)]


def _of_several(predictions: LabelledPredictions, evaluation: ClassEvaluation, rng: np.random.Generator) -> list[Plot]:
    """Reliability of the outcome, calibrated and raw, and of each class, calibrated; what is taken for what."""
    schema, y = predictions.schema, predictions.labels
    sides = {"calibrated": predictions.calibrated, "raw": predictions.raw}
    plots = [
        reliability(kind, p.max(axis=1), top_classes(p) == y, "the outcome", schema, rng) for kind, p in sides.items()
    ]
    plots += [of_classes.class_shares(predictions, evaluation), of_classes.confusion(predictions, evaluation)]
    for k in of_classes.pictured(predictions):
        plot = reliability("calibrated", predictions.calibrated[:, k], y == k, schema.classes[k], schema, rng)
        plots.append(replace(plot, name=f"reliability_class_{k + 1}", title=f"Reliability, {schema.classes[k]}"))
    return plots + [of_classes.top_probabilities(kind, p, y, schema) for kind, p in sides.items()]


def consistency_band(p: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Where the observed rate of each of ten bins lies 95 times in 100 when p (n,) are true: (10,), (10,), else NaN.

    Bröcker & Smith (2007), with the probabilities kept and only the outcomes drawn again.
    """
    bins = probability_bins(p)
    counts = np.bincount(bins, minlength=WIDTH_BINS)
    draws = min(DRAWS, max(MIN_DRAWS, DRAWN_ROWS // len(p)))
    rates = np.full((draws, WIDTH_BINS), np.nan)
    for bin_number in np.flatnonzero(counts):
        rates[:, bin_number] = (rng.random((draws, counts[bin_number])) < p[bins == bin_number]).mean(axis=1)
    low, high = np.full(WIDTH_BINS, np.nan), np.full(WIDTH_BINS, np.nan)
    low[counts > 0], high[counts > 0] = np.quantile(rates[:, counts > 0], [0.025, 0.975], axis=0)
    return low, high


def reliability(
    kind: str, p: np.ndarray, y: np.ndarray, what: str, schema: Schema, rng: np.random.Generator
) -> Plot:  # fmt: skip
    """Observed rate against mean probability in ten bins, consistency bars, and the counts under them.

    ``p`` (n,) are probabilities of ``what``, the class or the outcome that came true in the rows where ``y`` (n,) is 1.
    """
    frame = Frame(LEFT, 28, INNER, 300, (0, 1), (0, 1))
    bins, (low, high) = probability_bins(p), consistency_band(p, rng)
    parts = [
        frame.axes(TENTHS, TENTHS, y_name=f"share of {short(what)}"),
        frame.line((0, 1), (0, 1), "guide"),
    ]
    outside = 0
    for bin_number in np.unique(bins).tolist():
        held = bins == bin_number
        at, rate = float(p[held].mean()), float(y[held].mean())
        missed = not low[bin_number] - 1e-9 <= rate <= high[bin_number] + 1e-9
        outside += missed
        parts.append(frame.bar(at - 0.022, at + 0.022, float(low[bin_number]), float(high[bin_number]), "noise"))
        parts.append(frame.dot(at, rate, "hollow" if missed else "ours-fill", 5))
    counts = np.bincount(bins, minlength=WIDTH_BINS)
    under = Frame(LEFT, 376, INNER, 70, (0, 1), (0, 1.25 * counts.max()))
    parts.append(under.axes(TENTHS, (), x_name=f"{kind} probability of {short(what)}", y_name=plural(schema)))
    for bin_number, count in enumerate(counts.tolist()):
        parts.append(under.bar(bin_number / 10 + 0.006, (bin_number + 1) / 10 - 0.006, 0, count, "bar"))
        parts.append(under.text(bin_number / 10 + 0.05, count, str(count), anchor="middle", dy=-4))
    return Plot(
        f"reliability_{kind}", f"Reliability, {kind}",
        f"Grey bars: where a bin's share of {what} lies 95 times in 100 if its probabilities are true. "
        f"{outside} of {len(np.unique(bins))} bins lie outside (open circles). Under it, how many "
        f"{plural(schema)} got such a probability.",
        492, "".join(parts),
    )  # fmt: skip


def outcomes(kind: str, p: np.ndarray, y: np.ndarray, schema: Schema) -> Plot:
    """Histograms of the probabilities of the rows of the positive class, upwards, and of the others, downwards."""
    edges = np.round(np.arange(21) / 20, 2)
    counts = [np.histogram(p[y == label], edges)[0] for label in (0, 1)]
    most = max(1, *(int(count.max()) for count in counts))
    step = max(1, int(round_step(most / 4)))
    frame = Frame(LEFT, 28, INNER, 230, (0, 1), (-1.05 * most, 1.05 * most))
    parts = [frame.axes(TENTHS, (), x_name=f"{kind} probability of {short(schema.positive)}", y_name=plural(schema))]
    for tick in range(-(most // step) * step, most + 1, step):
        parts.append(frame.line((0, 1), (tick, tick), "grid"))
        parts.append(frame.text(0, tick, str(abs(tick)), anchor="end", dx=-6))
    for twentieth, (negative, positive) in enumerate(zip(*(count.tolist() for count in counts), strict=True)):
        parts.append(frame.bar(twentieth / 20 + 0.003, twentieth / 20 + 0.047, 0, positive, "bar"))
        parts.append(frame.bar(twentieth / 20 + 0.003, twentieth / 20 + 0.047, -negative, 0, "other-bar"))
    parts.append(frame.line((0, 1), (0, 0), "axis"))
    parts.append(frame.text(0.5, most, short(schema.positive), anchor="middle", dy=12))
    parts.append(frame.text(0.5, -most, short(schema.classes[0]), anchor="middle", dy=-2))
    return Plot(
        f"outcomes_{kind}", f"Scores by outcome, {kind}",
        f"Probabilities given to {plural(schema)} of the class {schema.positive} (upwards) and of the class "
        f"{schema.classes[0]} (downwards), in twentieths.",
        306, "".join(parts),
    )  # fmt: skip


def risk(predictions: LabelledPredictions, evaluation: AnyEvaluation) -> Plot:
    """Share wrong among the most certain rows, against how many of them are answered."""
    curve = risk_coverage(predictions.calibrated, predictions.labels)
    coverage, error, expected = map(np.array, (curve.coverage, curve.error, curve.expected))
    n = len(predictions.labels)
    # Wilson's interval is wide where few are answered; from a twentieth on it says something.
    shown = np.flatnonzero(coverage >= min(0.05, coverage[-1]))
    if len(shown) > MAX_POINTS:
        shown = shown[np.linspace(0, len(shown) - 1, MAX_POINTS).round().astype(int)]
    spread = {row: share(round(error[row] * coverage[row] * n), round(coverage[row] * n)) for row in shown}
    sets = [held for held in evaluation.sets_at or (evaluation.sets,) if held.abstained < 1]
    most = max(0.1, *(each.high for each in spread.values()), *(held.error_answered.value for held in sets))
    step = 0.1 if most > 0.25 else 0.05
    top = step * np.ceil(most / step)
    frame = Frame(LEFT, 28, INNER, 230, (0, 1), (0, float(top)))
    xs = coverage[shown].tolist()
    parts = [
        frame.axes(
            TENTHS, np.arange(0, top + step / 2, step).tolist(), y_text="{:.2f}".format, y_name="share wrong",
            x_name=f"share of {plural(predictions.schema)} answered, most certain first",
        ),
        frame.band(xs, [spread[row].low for row in shown], [spread[row].high for row in shown], "band"),
        frame.line(xs, error[shown].tolist(), "ours"), frame.line(xs, expected[shown].tolist(), "guide"),
    ]  # fmt: skip
    caption = "Line: found, with its pointwise 95 % band. Dashed: what the probabilities themselves expect. "
    for held in sets:
        parts.append(frame.diamond(1 - held.abstained, held.error_answered.value, "other-fill"))
        parts.append(
            frame.text(1 - held.abstained, held.error_answered.value, f"{held.nominal:.0%}", anchor="end", dx=-8, dy=-4)
        )
    if sets:
        caption += (
            f"Diamonds: {plural(predictions.schema)} whose prediction set of that nominal coverage is a single class, "
            "and how many of those sets are wrong."
        )
    return Plot("risk_coverage", "Risk and coverage", caption, 306, "".join(parts))


def subgroups(evaluation: AnyEvaluation, schema: Schema) -> Plot:
    """Of each group the share of the positive of two classes, or of right outcomes, with its interval, beside the mean
    calibrated and raw probability of it."""
    groups: Sequence[Subgroup | ClassSubgroup] = evaluation.subgroups
    two = isinstance(evaluation, Evaluation)
    what = schema.positive if two else "right outcomes"
    left, row = 184, 24
    frame = Frame(left, 12, WIDTH - left - RIGHT, row * len(groups), (0, 1), (len(groups) - 0.5, -0.5))
    x_name = f"share of {short(what)}, mean probability" if two else "share right, mean top probability"
    parts = [frame.axes(TENTHS, (), x_name=x_name)]
    for place, group in enumerate(groups):
        observed, raw, calibrated = _agreement(group)
        parts.append(frame.text(0, place, f"{short(group.title)} ({group.rows})", anchor="end", dx=-8))
        parts.append(frame.line((observed.low, observed.high), (place, place), "ours"))
        parts.append(frame.dot(observed.value, place, "ours-fill"))
        parts.append(frame.diamond(raw, place, "hollow", 5))
        parts.append(frame.diamond(calibrated, place, "other-fill", 5))
    mean = "probability" if two else "top probability"
    return Plot(
        "subgroups", "Calibration by subgroup",
        f"Circles: the share of {what} with its 95 % interval. Full diamonds: mean calibrated {mean}; "
        f"open ones: mean raw {mean}. In brackets the number of {plural(schema)}.",
        frame.top + frame.height + 44, "".join(parts),
    )  # fmt: skip


def _agreement(group: Subgroup | ClassSubgroup) -> tuple[Estimate, float, float]:
    """What is observed, and what the raw and the calibrated probabilities expect of it."""
    if isinstance(group, Subgroup):
        return group.observed, group.raw.expected, group.calibrated.expected
    return group.calibrated.accuracy, group.raw.top, group.calibrated.top


def baselines(evaluation: AnyEvaluation) -> Plot:
    """Log loss of this model minus each baseline's, with the paired 95 % interval."""
    compared = evaluation.baselines or {}
    differences = {name.replace("_", " "): baseline.log_loss_difference for name, baseline in compared.items()}
    most = max(0.01, *(abs(end) for difference in differences.values() for end in (difference.low, difference.high)))
    step, row, top = round_step(most / 4), 44, 30
    ticks = [step * place for place in range(-int(most / step), int(most / step) + 1)]
    most *= 1.1
    frame = Frame(RIGHT, top, WIDTH - 2 * RIGHT, row * len(differences), (-most, most), (len(differences) - 0.5, -0.5))
    parts = [
        frame.axes(ticks, (), x_name="log loss of this model minus the baseline's"),
        frame.line((0, 0), frame.y, "axis"),
        frame.text(-most, -0.5, "this model better", dy=-10),
        frame.text(most, -0.5, "baseline better", anchor="end", dy=-10),
    ]  # fmt: skip
    for place, (name, difference) in enumerate(differences.items()):
        parts.append(frame.text(-most, place, name, dy=-6))
        parts.append(_interval(frame, difference, place + 0.18))
    return Plot(
        "baselines", "Baselines on the same folds",
        "Paired differences with their 95 % intervals. An interval that holds 0 is no clear win for either.",
        frame.top + frame.height + 44, "".join(parts),
    )  # fmt: skip


def _interval(frame: Frame, estimate: Estimate, place: float) -> str:
    whiskers = frame.line((estimate.low, estimate.high), (place, place), "ours")
    return whiskers + frame.dot(estimate.value, place, "ours-fill")


def curves(epochs: Sequence[EpochDiagnostics], figure: str) -> Plot:
    """Loss or accuracy of each epoch, a line for each fine-tuning, that of the final model in the other colour."""
    lines: dict[tuple[str, int], list[EpochDiagnostics]] = {}
    for epoch in sorted(epochs, key=lambda epoch: epoch.epoch):
        lines.setdefault((epoch.phase, epoch.run), []).append(epoch)
    values = [getattr(epoch, figure) for epoch in epochs]
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or 0.05
    last = max(2, *(epoch.epoch for epoch in epochs))
    frame = Frame(LEFT + 8, 28, INNER - 8, 210, (1, last), (low - pad, high + pad))
    step = round_step((high - low + 2 * pad) / 4)
    ticks = [step * place for place in range(int(np.ceil((low - pad) / step)), int((high + pad) / step) + 1)]
    every = -(-last // 8)
    parts = [frame.axes(range(1, last + 1, every), ticks, x_name="epoch", y_name=figure, y_text="{:.3f}".format)]
    for (phase, _), run in sorted(lines.items(), key=lambda line: line[0][0] == "final model"):
        style = "other" if phase == "final model" else "thin"
        parts.append(frame.line([epoch.epoch for epoch in run], [getattr(epoch, figure) for epoch in run], style))
    return Plot(
        f"training_{figure}", f"Training: {figure}",
        "Over the rows of each epoch, during training (dropout on). Thin lines: the folds' models; thick: the final "
        "model.",
        286, "".join(parts),
    )  # fmt: skip
