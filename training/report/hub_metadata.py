"""What the model card says to the hub: its YAML head, and how to get the probabilities that its figures are of."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from models.bundle.manifest import Origin
from models.schema import Schema
from training.evaluate.evaluation import AnyEvaluation
from training.evaluate.scores import Scores
from training.evaluate.several_classes.scores import ClassScores

TASK = "text-classification"
KNOWN_BASES = {"all-MiniLM-L6-v2": ("sentence-transformers/all-MiniLM-L6-v2", "apache-2.0")}
"""Name of a base model here → its name on the hub, and its licence."""

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
DIGITS = 6

USAGE = """## How to use it

transformers reads this folder, but `pipeline()` alone gives **uncalibrated** probabilities: not those that the figures
below are of, and moved on purpose where the loss is other than cross entropy. Calibrated ones, with interval and
prediction set, of rows by the names of the fields:

```python
from models.predictor import Predictor

predictor = Predictor.load(".")  # this folder; with Evenkeel's code on the path
predictor.predict([{row}])[0].probabilities
```
"""


def front_matter(origin: Origin, schema: Schema, evaluation: AnyEvaluation) -> str:
    """The card's head between lines of three dashes, as huggingface_hub writes it."""
    # It takes half a second to load, and only training has it.
    from huggingface_hub import EvalResult, ModelCardData

    known = KNOWN_BASES.get(origin.base.name)
    base, licence = known or (_hub_id(origin.base.name), "unknown")
    results = [
        EvalResult(
            task_type=TASK, dataset_type=schema.name, dataset_name=schema.name, dataset_config=name,
            dataset_split="held-out", dataset_revision=origin.calibrated_on.sha256, metric_type=metric,
            metric_name=title, metric_value=value,
        )
        # Results that differ in nothing but their metrics would be one.
        for name, found in (("calibrated", _calibrated(evaluation)), ("uncalibrated", _metrics(evaluation.raw)))
        for metric, title, value in found
    ]  # fmt: skip
    metrics = list(dict.fromkeys(one.metric_type for one in results))
    data = ModelCardData(
        model_name=schema.name, license=licence, base_model=base, datasets=[schema.name], library_name="transformers",
        pipeline_tag=TASK, tags=["evenkeel", "calibrated", "tabular-classification", origin.loss.name],
        metrics=metrics, eval_results=results,
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---\n"


def usage(schema: Schema) -> str:
    """How to get calibrated probabilities, for a row of the table."""
    row = schema.examples[0].row if schema.examples else {}
    known = {name: value for name, value in row.items() if value is not None}
    return USAGE.replace("{row}", _python(known))


def _calibrated(evaluation: AnyEvaluation) -> list[tuple[str, str, float]]:
    """`_metrics` of the calibrated probabilities, their means over seeds where there are several."""
    own, seeds = _metrics(evaluation.calibrated), evaluation.seeds
    if seeds is None:
        return own
    error = seeds.top_label_error or seeds.calibration_error
    means = (spread.mean for spread in (seeds.log_loss, seeds.brier, error, seeds.accuracy))
    over = f", mean over {len(seeds.each)} seeds"
    return [(name, title + over, round(float(mean), DIGITS)) for (name, title, _), mean in zip(own, means, strict=True)]


def _metrics(scores: Scores | ClassScores) -> list[tuple[str, str, float]]:
    """Metric, its title and its value, as Python's own numbers: those of NumPy make YAML that does not load."""
    if isinstance(scores, Scores):
        error, of_what = scores.calibration_error, ""
    else:
        error, of_what = scores.top_label_error, " of the greatest probability"
    found = [
        ("log_loss", "log loss, nats", scores.log_loss.value),
        ("brier_score", "Brier score", scores.brier.value),
        ("expected_calibration_error", f"ECE{of_what}, 10 bins", error.value.value),
        ("accuracy", "accuracy", scores.accuracy.value),
    ]
    return [(name, title, round(float(value), DIGITS)) for name, title, value in found]


def _hub_id(base: str) -> str | None:
    """The base model's name on the hub, where it came from there."""
    return base if HUB_ID.fullmatch(base) and not Path(base).exists() else None


def _python(row: Mapping[str, object]) -> str:
    """A row as Python writes it."""
    words = {True: "True", False: "False"}
    values = {
        name: words[value] if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)
        for name, value in row.items()
    }
    return "{" + ", ".join(f'"{name}": {value}' for name, value in values.items()) + "}"
