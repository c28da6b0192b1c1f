"""What decisions by the probabilities are worth, as tables and as a picture."""

from collections.abc import Callable, Sequence

import numpy as np

from models.schema import Schema
from training.evaluate.decisions.costs import DecisionCosts
from training.evaluate.decisions.net_benefit import NetBenefit, net_benefits
from training.evaluate.estimates import Estimate
from training.evaluate.evaluation import AnyEvaluation, Evaluation
from training.evaluate.predictions import LabelledPredictions
from training.report.figures import Figures, plus_minus, spread
from training.report.names import short
from training.report.svg import WIDTH, Frame, Plot, round_step

SHOWN = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Thresholds of the table."""
DRAWN = tuple(np.linspace(0.01, 0.99, 99).tolist())
LEFT, RIGHT = 44, 14
TENTHS = (0, 0.2, 0.4, 0.6, 0.8, 1)


def decision_tables(evaluation: AnyEvaluation) -> list[Figures]:
    """Net benefit of two classes; what decisions cost, where costs are given."""
    tables = []
    if isinstance(evaluation, Evaluation):
        tables.append(_benefits(evaluation.net_benefit, list(evaluation.calibrated.recall)[-1]))
    if evaluation.decision_costs is not None:
        tables.append(_costs(evaluation.decision_costs))
    return tables


def _costs(costs: DecisionCosts) -> Figures:
    """Mean cost of a row under each way to decide."""
    mistakes = [
        f"{truth} for {taken} {cost:g}" for truth, row in costs.costs.items() for taken, cost in row.items() if cost
    ]
    taken = ", ".join(f"{count} for {name}" for name, count in costs.taken.items())
    rows = [
        ("decision of least expected cost", spread(costs.decisions, 3)),
        ("… expected by the probabilities", f"{costs.expected:.3f}"),
        ("likeliest class", spread(costs.likeliest, 3)),
        ("… more than the decision", plus_minus(costs.saved, 3)),
        *((f"always {name}", spread(each, 3)) for name, each in costs.always.items()),
    ]
    return Figures(
        title="Cost of decisions", columns=("", "mean cost of a row"), rows=tuple(rows),
        note=f"Costs of mistakes, the true class first: {_some(mistakes)}. The decisions take {taken}. In brackets "
        "95 % intervals.",
    )  # fmt: skip


def _some(mistakes: Sequence[str], most: int = 12) -> str:
    more = len(mistakes) - most
    return ", ".join(mistakes[:most]) + (f" and {more} others" if more > 0 else "")


def _benefits(curve: Sequence[NetBenefit], positive: str) -> Figures:
    """The net benefit at some thresholds."""
    rows = [each for each in curve if each.threshold in SHOWN]
    return Figures(
        title="Net benefit", columns=("threshold", "by the probabilities", f"all taken for {positive}", "difference"),
        rows=tuple(
            (
                f"{each.threshold:g}", spread(each.decisions, 3), spread(each.treat_all, 3),
                plus_minus(each.over_treat_all, 3),
            )
            for each in rows
        ),
        note=f"Share of the rows rightly taken for {positive}, less those wrongly taken, each weighed by t / (1 − t): "
        f"who acts from the probability t on says that a wrong {positive} costs t / (1 − t) times what a missed one "
        "does. To take none has the net benefit 0. In brackets pointwise 95 % intervals.",
    )  # fmt: skip


def net_benefit_plot(predictions: LabelledPredictions) -> Plot:
    """Net benefit against the threshold, with its band, beside that of taking all rows and of taking none."""
    schema, y = predictions.schema, predictions.labels
    curve = net_benefits(predictions.calibrated, y, DRAWN, predictions.dependence.errors)
    share = float(y.mean())
    step = round_step(share / 4) if share else 0.1
    low, high = -2 * step, step * np.ceil(max(1e-9, *(each.decisions.high for each in curve)) / step)
    frame = Frame(LEFT, 28, WIDTH - LEFT - RIGHT, 240, (0, 1), (low, high))
    ticks = [step * place for place in range(-2, round(high / step) + 1)]

    def clipped(value: float) -> float:
        return float(np.clip(value, low, high))

    def line(of: Callable[[NetBenefit], Estimate], style: str) -> str:
        inside = [each for each in curve if of(each).value >= low]
        return frame.line([each.threshold for each in inside], [of(each).value for each in inside], style)

    lows, highs = ([clipped(getattr(each.decisions, end)) for each in curve] for end in ("low", "high"))
    name = f"from which probability on a row is taken for {short(schema.positive)}"
    parts = [
        frame.axes(TENTHS, ticks, x_name=name, y_name="net benefit", y_text=lambda tick: f"{tick:z.2g}"),
        frame.band(DRAWN, lows, highs, "band"), frame.line((0, 1), (0, 0), "axis"),
        line(lambda each: each.treat_all, "guide"), line(lambda each: each.decisions, "ours"),
        *_cost_line(frame, schema),
    ]  # fmt: skip
    caption = (
        f"Line: by the probabilities, with its pointwise 95 % band. Dashed: every row taken for {schema.positive}. "
        "0: none. Where the line is above both, the probabilities are worth asking."
    )
    if schema.costs:
        caption += " Upright line: the threshold that the costs call for."
    return Plot("net_benefit", "Net benefit", caption, 316, "".join(parts))


def _cost_line(frame: Frame, schema: Schema) -> list[str]:
    costs = schema.decision_costs
    if costs is None:
        return []
    return [frame.line((costs.threshold, costs.threshold), frame.y, "other")]
