"""The model card: what a bundle is for, how it came to be, and how good it is, in figures with their spread."""

from typing import Any

from models.bundle.manifest import Origin
from training.evaluate.evaluation import Evaluation
from training.report.tables import baselines_verdict, markdown, tables

CARD = """---
library_name: transformers
pipeline_tag: text-classification
---
# {name}

Probability that a passenger of the Titanic survived, from a short text of words about the passenger, with
calibration, prediction sets and intervals beside it (`calibration.json`).

## What it is for, and not for

**For:** trying, testing and teaching calibrated serving: it is small, its data are public, and every figure below can
be checked. **Not for:** any decision about people, on ships or elsewhere. It is a museum piece, not a predictor of
anything today.

## Data

{rows} passengers of one ship in 1912, {survived} of whom survived ({share:.1%}); sha256 of the file `{data_sha:.12}…`.
The model reads a short text of words about the passenger, written by `render` in `models/text.py`.

## How it came to be

Fine-tuned from {base} (sha256 `{base_sha:.12}…`) in MLX with the loss `{loss}` ({parameters}) and the recipe
{recipe}, seed {seed}, on {created}. Calibration was fitted on out-of-fold logits; the map chosen most often was
`{chosen}`. The raw probabilities are not to be used without the calibration: a loss other than cross entropy
shifts them on purpose.

## How good it is

{how}; {evaluated} rows.

{tables}

## Where others are better

{verdict}

## Limits

- {rows} rows of one ship: the standard errors above are what is known, and differences below about two of them are
  not known to be differences.
- Words, recipe and the rule that picks the calibration map were chosen by held-out scores on the same rows, which
  flatters the figures a little.
- Who was saved followed sex, class and age, by the orders of that night. The model repeats that; its groups are not
  treated alike, and a probability says nothing about a person's worth or about cause.
- Small subgroups (children, the old) rest on few rows: see their counts and spread above.
- Calibration holds for passengers like these. On others, watch the drift metrics and the outcomes.
"""


def model_card(origin: Origin, evaluation: Evaluation) -> str:
    """README.md of a bundle, from its manifest and its nested evaluation."""
    chosen = evaluation.maps_chosen or ()
    return CARD.format(
        name=origin.name, rows=origin.data.rows, survived=origin.data.survived, data_sha=origin.data.sha256,
        share=origin.data.survived / origin.data.rows, base=origin.base.name, base_sha=origin.base.sha256,
        loss=origin.loss.name, parameters=_listed(origin.loss.parameters) or "no parameters",
        recipe=_listed(origin.recipe), seed=origin.seed, created=origin.created,
        chosen=max(chosen, key=chosen.count), how=evaluation.how, evaluated=evaluation.rows,
        tables="\n\n".join(map(markdown, tables(evaluation))),
        verdict="\n".join(f"- {line}" for line in baselines_verdict(evaluation).splitlines()),
    )  # fmt: skip


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return "/".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else f"{value:g}"
