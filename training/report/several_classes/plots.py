"""The pictures that only three classes or more have: top probabilities, shares by class, and what is taken for what."""

import numpy as np

from models.schema import Schema
from training.evaluate.predictions import LabelledPredictions
from training.evaluate.several_classes.evaluation import ClassEvaluation
from training.evaluate.several_classes.scores import top_classes
from training.report.names import plural, short
from training.report.svg import WIDTH, Frame, Plot, round_step

MAX_PICTURES = 12
"""Classes that have a picture of their own: the most frequent ones."""
TENTHS = (0, 0.2, 0.4, 0.6, 0.8, 1)
LEFT, RIGHT, ROW = 130, 14, 24
"""Room for the names of classes, and the height of a class."""


def pictured(predictions: LabelledPredictions) -> list[int]:
    """The numbers of the `MAX_PICTURES` most frequent classes, in the schema's order."""
    counts = np.bincount(predictions.labels, minlength=len(predictions.schema.classes))
    return sorted(np.argsort(-counts, kind="stable")[:MAX_PICTURES].tolist())


def top_probabilities(kind: str, p: np.ndarray, y: np.ndarray, schema: Schema) -> Plot:
    """Histograms of the greatest probability of rows that it names rightly, upwards, and of the others, downwards."""
    edges, top, right = np.round(np.arange(21) / 20, 2), p.max(axis=1), top_classes(p) == y
    counts = [np.histogram(top[held], edges)[0] for held in (~right, right)]
    most = max(1, *(int(count.max()) for count in counts))
    step = max(1, int(round_step(most / 4)))
    frame = Frame(44, 28, WIDTH - 44 - RIGHT, 230, (0, 1), (-1.05 * most, 1.05 * most))
    parts = [frame.axes(TENTHS, (), x_name=f"{kind} probability of the outcome", y_name=plural(schema))]
    for tick in range(-(most // step) * step, most + 1, step):
        parts.append(frame.line((0, 1), (tick, tick), "grid"))
        parts.append(frame.text(0, tick, str(abs(tick)), anchor="end", dx=-6))
    for place, (wrong, good) in enumerate(zip(*(count.tolist() for count in counts), strict=True)):
        parts.append(frame.bar(place / 20 + 0.003, place / 20 + 0.047, 0, good, "bar"))
        parts.append(frame.bar(place / 20 + 0.003, place / 20 + 0.047, -wrong, 0, "other-bar"))
    parts.append(frame.line((0, 1), (0, 0), "axis"))
    parts.append(frame.text(0.02, most, "right", dy=12))
    parts.append(frame.text(0.02, -most, "wrong", dy=-2))
    return Plot(
        f"outcomes_{kind}", f"Right and wrong outcomes, {kind}",
        f"Greatest probabilities given to {plural(schema)} whose class they name (upwards) and of the others "
        "(downwards), in twentieths.",
        306, "".join(parts),
    )  # fmt: skip


def class_shares(predictions: LabelledPredictions, evaluation: ClassEvaluation) -> Plot:
    """Share of each class, with its interval, beside its mean calibrated and raw probability."""
    classes, chosen = predictions.schema.classes, pictured(predictions)
    calibrated, raw = predictions.calibrated.mean(axis=0), predictions.raw.mean(axis=0)
    shares = [evaluation.intervals[classes[k]].observed for k in chosen]
    widest = max(*(share.high for share in shares), *calibrated[chosen], *raw[chosen])
    step = round_step(float(widest) / 5)
    end = step * np.ceil(float(widest) / step)
    frame = Frame(LEFT, 12, WIDTH - LEFT - RIGHT, ROW * len(chosen), (0, float(end)), (len(chosen) - 0.5, -0.5))
    ticks = np.arange(0, end + step / 2, step).tolist()
    parts = [frame.axes(ticks, (), x_name="share of the class, mean probability")]
    for place, (k, share) in enumerate(zip(chosen, shares, strict=True)):
        parts.append(frame.text(0, place, short(classes[k]), anchor="end", dx=-8))
        parts.append(frame.bar(0, share.value, place - 0.3, place + 0.3, "bar"))
        parts.append(frame.line((share.low, share.high), (place, place), "axis"))
        parts.append(frame.diamond(float(raw[k]), place, "hollow", 5))
        parts.append(frame.diamond(float(calibrated[k]), place, "other-fill", 5))
    return Plot(
        "classes", "Classes",
        "Bars: the share of each class, with its 95 % interval. Full diamonds: mean calibrated probability; open ones: "
        f"mean raw probability.{_left_out(classes, chosen)}",
        frame.top + frame.height + 44, "".join(parts),
    )  # fmt: skip


def confusion(predictions: LabelledPredictions, evaluation: ClassEvaluation) -> Plot:
    """A row for each class: the shares of its rows that are taken for each class, the darker the larger."""
    classes, chosen = predictions.schema.classes, pictured(predictions)
    size = min(40.0, (WIDTH - LEFT - RIGHT) / len(chosen))
    frame = Frame(LEFT, 62, size * len(chosen), size * len(chosen), (0, len(chosen)), (len(chosen), 0))
    parts = [frame.text(len(chosen) / 2, 0, "taken for", anchor="middle", dy=-46)]
    for row, k in enumerate(chosen):
        counts = evaluation.calibrated.confusion[classes[k]]
        total = max(1, sum(counts.values()))
        parts.append(frame.text(0, row + 0.5, short(classes[k]), anchor="end", dx=-8))
        parts.append(_head(frame, row, classes[k]))
        for column, said in enumerate(classes[j] for j in chosen):
            share = counts[said] / total
            parts.append(_shaded(frame, column, row, share))
            parts.append(_share_text(frame, column, row, share))
    return Plot(
        "confusion", "What is taken for what",
        "Of the rows of each class (left), the percentage whose greatest calibrated probability is of each class "
        f"(above); those on the diagonal are right.{_left_out(classes, chosen)}",
        frame.top + frame.height + 16, "".join(parts),
    )  # fmt: skip


def _head(frame: Frame, place: int, name: str) -> str:
    """A column's name, slanting, so that neighbours have room."""
    x, y = frame.at(place + 0.4, 0)
    text = frame.text(place + 0.4, 0, short(name), dy=-6)
    return f'<g transform="rotate(-32 {x:.1f} {y - 6:.1f})">{text}</g>'


def _shaded(frame: Frame, column: int, row: int, share: float) -> str:
    bar = frame.bar(column + 0.03, column + 0.97, row + 0.03, row + 0.97, "cell")
    return bar.replace("/>", f' fill-opacity="{0.04 + 0.9 * share:.2f}"/>')


def _share_text(frame: Frame, column: int, row: int, share: float) -> str:
    text = frame.text(column + 0.5, row + 0.5, f"{100 * share:.0f}", anchor="middle")
    return text.replace("<text ", '<text class="light" ') if share > 0.5 else text


def _left_out(classes: tuple[str, ...], chosen: list[int]) -> str:
    missing = len(classes) - len(chosen)
    return f" The {len(chosen)} most frequent of {len(classes)} classes." if missing else ""
