"""The model card: what a bundle is for, how it came to be, and how good it is, in figures with their spread."""

from typing import Any

from models.bundle import Origin
from training.evaluate import Estimate, Scores

CARD = """---
library_name: transformers
pipeline_tag: text-classification
---
# {name}

Probability that a passenger of the Titanic survived, from a short text of words about the passenger, with
calibration, prediction sets and intervals beside it (`calibration.json`).

**For:** trying and testing calibrated serving. **Not for:** any decision about people of today. It knows {rows}
passengers of one ship in 1912, {survived} of whom survived ({share:.1%}).

## How it came to be

Fine-tuned from {base} (sha256 {base_sha:.12}…) in MLX with the loss `{loss}` ({parameters}) and the recipe
{recipe}, seed {seed}, on {created}. Calibration was fitted on out-of-fold logits; the map chosen most often was
`{chosen}`.

## How good it is

{how}; {rows} rows. ± is one standard error.

| | calibrated | raw |
|---|---|---|
{table}

Logistic regression on the numbers and the same words, on the same folds: log loss {peer}; this model minus it
{difference}.
Prediction sets at {nominal:.0%}: found {coverage} (died {died}, survived {lived}), average size {size:.2f}.
Venn–Abers intervals: on average {low:.3f} to {high:.3f}, {observed} survived.

The raw probabilities are bent by the loss on purpose and are not to be used without the calibration.
"""


def model_card(origin: Origin, evaluation: dict[str, Any]) -> str:
    """README.md of a bundle, from its manifest and its evaluation."""
    sets, interval, chosen = evaluation["sets"], evaluation["interval"], evaluation["maps_chosen"]
    return CARD.format(
        name=origin.name, rows=origin.data.rows, survived=origin.data.survived,
        share=origin.data.survived / origin.data.rows, base=origin.base.name, base_sha=origin.base.sha256,
        loss=origin.loss.name, parameters=_listed(origin.loss.parameters) or "no parameters",
        recipe=_listed(origin.recipe), seed=origin.seed, created=origin.created,
        chosen=max(set(chosen), key=chosen.count), how=evaluation["how"],
        table=_table(evaluation["calibrated"], evaluation["raw"]),
        peer=_plus_minus(evaluation["logistic_regression"]["scores"].log_loss),
        difference=_plus_minus(evaluation["logistic_regression"]["log_loss_difference"]),
        nominal=sets.nominal, coverage=_plus_minus(sets.overall), size=sets.average_size,
        died=_plus_minus(sets.by_class["died"]), lived=_plus_minus(sets.by_class["survived"]),
        low=interval.mean_low, high=interval.mean_high, observed=_plus_minus(interval.observed),
    )  # fmt: skip


def _table(calibrated: Scores, raw: Scores) -> str:
    rows: list[tuple[str, ...]] = [
        (name.replace("_", " "), _plus_minus(getattr(calibrated, name)), _plus_minus(getattr(raw, name)))
        for name in ("log_loss", "brier", "auc", "accuracy")
    ]
    errors = calibrated.calibration_error, raw.calibration_error
    rows.append(("calibration error, 10 bins", *(_plus_minus(error.value) for error in errors)))
    rows.append(("… of a perfect model", *(f"{error.noise_floor:.4f}" for error in errors)))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return "/".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else f"{value:g}"


def _plus_minus(estimate: Estimate) -> str:
    return f"{estimate.value:.4f} ± {estimate.standard_error:.4f}"
