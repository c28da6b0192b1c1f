"""The model card: what a bundle is for, how it came to be, and how good it is, in figures with their spread."""

import math
from fractions import Fraction
from typing import Any

from models.bundle.manifest import Origin
from models.schema import Schema
from training.evaluate.evaluation import AnyEvaluation, Evaluation
from training.report.figures import markdown
from training.report.hub_metadata import front_matter, usage
from training.report.names import plural
from training.report.seeds import headline
from training.report.tables import baselines_verdict, better_baseline, tables

CARD = """{front_matter}# {name}

{lead}{what}, from a short text of words about it, with calibration,
prediction sets and intervals beside it (`calibration.json`).{question}

## What it is for, and not for

**For:** {plural} like those that it was trained on, answered one by one with a probability that can be checked: every
figure below says how far it may be off. **Not for:** {plural} from elsewhere or from another time, before their
outcomes have shown that the probabilities hold there; and no decision about people by this alone.

{usage}
## Data

{rows} {plural}, of which {shares}; sha256 of the file `{data_sha:.12}…`. The model reads a
short text of words about the {row}, made as `schema.json` says:

> {text}

## How it came to be

Fine-tuned from {base} (sha256 `{base_sha:.12}…`) in MLX with the loss `{loss}` ({parameters}) and the recipe
{recipe}, seed {seed}, on {created}. Calibration was fitted on {calibrated_on}; the map chosen most often was
`{chosen}`. The raw probabilities are not to be used without the calibration: a loss other than cross entropy
shifts them on purpose.

## How good it is

{headline}{how}; {evaluated} rows.

{tables}

## Where others are better

{verdict}

## Limits

- {rows} rows: the standard errors above are what is known, and differences below about two of them are not known to
  be differences.
- What was chosen by held-out scores on the same rows flatters the figures a little.
- Probabilities repeat what happened to {plural} in the table, whatever its reasons; groups that were not treated
  alike there are not treated alike here.
{rare}- Small subgroups rest on few rows: see their counts and spread above.
- The interval of an answer is meant to hold, for 90 % of {plural} like these, the share of the class among all that
  are alike; its assumptions are beside the table of intervals above, and nothing is said of each group.
- Calibration holds for {plural} like these. On others, watch the drift metrics and the outcomes.
"""


def model_card(origin: Origin, schema: Schema, evaluation: AnyEvaluation) -> str:
    """README.md of a bundle, from its manifest, its schema and its nested evaluation."""
    chosen, data = evaluation.maps_chosen or (), origin.data
    better = better_baseline(evaluation)
    return CARD.format(
        front_matter=front_matter(origin, schema, evaluation), usage=usage(schema),
        name=schema.name, row=schema.row.replace("_", " "), plural=plural(schema),
        what=_what(schema), shares=_shares(origin, schema), rare=_rare(evaluation),
        question=f" It answers: {schema.question}" if schema.question else "",
        headline=f"**{over_seeds}**\n\n" if (over_seeds := headline(evaluation)) else "",
        lead=f"**{better}**\n\n" if better else "", text=", ".join(schema.text),
        rows=data.rows,
        data_sha=data.sha256, base=origin.base.name, base_sha=origin.base.sha256,
        calibrated_on=_calibrated_on(origin, schema), loss=origin.loss.name,
        parameters=_listed(origin.loss.parameters) or "no parameters",
        recipe=_listed(origin.recipe), seed=origin.seed, created=origin.created,
        chosen=max(chosen, key=chosen.count), how=evaluation.how, evaluated=evaluation.rows,
        tables="\n\n".join(map(markdown, tables(evaluation))),
        verdict="\n".join(f"- {line}" for line in baselines_verdict(evaluation).splitlines()),
    )  # fmt: skip


def _what(schema: Schema) -> str:
    row = schema.row.replace("_", " ")
    if len(schema.classes) == 2:
        return f"Probability that a {row} is of the class {schema.positive}"
    return f"Probabilities that a {row} is of each of the {len(schema.classes)} classes"


def _shares(origin: Origin, schema: Schema) -> str:
    """How many rows are of the positive of two classes, or of each of more."""
    counts, rows = origin.data.classes, origin.data.rows
    named = [schema.positive] if len(schema.classes) == 2 else schema.classes
    return ", ".join(f"{name}: {counts[name]} ({counts[name] / rows:.1%})" for name in named)


def _rare(evaluation: AnyEvaluation) -> str:
    """Which of several classes are in every prediction set, because their held-out rows are too few to leave any out:
    ⌈(n + 1) coverage⌉ > n."""
    if isinstance(evaluation, Evaluation):
        return ""
    coverage = Fraction(str(evaluation.sets.nominal))
    counts = {name: sum(said.values()) for name, said in evaluation.calibrated.confusion.items()}
    rare = [f"{name} ({count})" for name, count in counts.items() if math.ceil((count + 1) * coverage) > count]
    if not rare:
        return ""
    return (
        f"- Classes with too few held-out rows for prediction sets at {float(coverage):.0%}: {', '.join(rare)}. Every "
        "set holds them.\n"
    )


def _calibrated_on(origin: Origin, schema: Schema) -> str:
    again = origin.recalibration
    if again is None:
        return "logits of rows that were held out"
    return (
        f"{again.data.rows} other {plural(schema)} (sha256 of the file `{again.data.sha256:.12}…`), on whose logits "
        f"version `{again.of}` was calibrated anew: the weights are its own"
    )


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in values.items())


def _short(value: Any) -> str:
    return "/".join(f"{k} {v:.4g}" for k, v in value.items()) if isinstance(value, dict) else f"{value:g}"
