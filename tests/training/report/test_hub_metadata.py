"""The card's head as the hub reads it, by the hub's own classes, and its lines of Python, which run."""

import re

import msgspec
import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from models.bundle.manifest import BaseModel
from models.bundle.read import Bundle
from models.predictor import Predictor
from models.text import Renderer
from tests.tiny import ORIGIN
from tests.titanic import SCHEMA
from training.data.table import Table, fold_known
from training.evaluate.evaluation import Evaluation
from training.evaluate.folds import make_folds
from training.evaluate.nested import nested_evaluation
from training.report.card import model_card
from training.report.hub_metadata import front_matter

DEFAULT_BASE = msgspec.structs.replace(ORIGIN, base=BaseModel("all-MiniLM-L6-v2", "0" * 64))


@pytest.fixture(scope="module")
def evaluation(table: Table, few_resamples: None) -> Evaluation:
    """Of made-up logits that know something."""
    folds = make_folds(table.labels, 5, 0)
    known = fold_known(Renderer(SCHEMA), table.rows, table.labels, folds)
    z = np.random.default_rng(0).normal(size=len(table)) + table.labels
    logits = np.stack([np.zeros(len(table)), z], axis=1)
    made = nested_evaluation(
        logits, table.labels, folds, table.rows, SCHEMA, known, with_baselines=False, inverse=None, coverage=0.9, seed=0
    )[0]
    assert isinstance(made, Evaluation)
    return made


@pytest.fixture(scope="module")
def card(evaluation: Evaluation) -> ModelCard:
    return ModelCard(model_card(DEFAULT_BASE, SCHEMA, evaluation))


def test_the_hub_reads_what_the_bundle_says(card: ModelCard, evaluation: Evaluation) -> None:
    data = card.data
    assert (data.license, data.base_model) == ("apache-2.0", "sentence-transformers/all-MiniLM-L6-v2")
    assert (data.library_name, data.pipeline_tag, data.datasets) == ("transformers", "text-classification", ["titanic"])
    assert {"calibrated", "tabular-classification", "cross_entropy"} <= set(data.tags)
    found = {(one.dataset_config, one.metric_type): one.metric_value for one in data.eval_results}
    expected = {
        (name, metric): estimate.value
        for name, scores in (("calibrated", evaluation.calibrated), ("uncalibrated", evaluation.raw))
        for metric, estimate in (
            ("log_loss", scores.log_loss), ("brier_score", scores.brier), ("accuracy", scores.accuracy),
            ("expected_calibration_error", scores.calibration_error.value),
        )
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-6)
    assert {one.dataset_revision for one in data.eval_results} == {ORIGIN.data.sha256}


def test_the_head_goes_through_the_hubs_classes_unchanged(card: ModelCard) -> None:
    assert len(yaml.safe_load(card.content.split("---\n")[1])["model-index"][0]["results"]) == 2
    again = ModelCard(card.content)
    assert again.data.to_dict() == card.data.to_dict()
    assert ModelCard(str(again)).text == card.text


def test_numbers_of_numpy_are_written_as_numbers(evaluation: Evaluation) -> None:
    loss = msgspec.structs.replace(evaluation.calibrated.log_loss, value=np.float64(0.5))
    scores = msgspec.structs.replace(evaluation.calibrated, log_loss=loss)
    head = front_matter(ORIGIN, SCHEMA, msgspec.structs.replace(evaluation, calibrated=scores))
    metrics = yaml.safe_load(head.split("---\n")[1])["model-index"][0]["results"][0]["metrics"]
    assert metrics[0] == {"type": "log_loss", "value": 0.5, "name": "log loss, nats"}


@pytest.mark.parametrize(("base", "named"), [("google-bert/bert-base-uncased", True), ("/srv/bases/mine", False)])
def test_a_base_that_is_not_the_hubs_is_not_named(evaluation: Evaluation, base: str, named: bool) -> None:
    origin = msgspec.structs.replace(ORIGIN, base=BaseModel(base, "0" * 64))
    head = yaml.safe_load(front_matter(origin, SCHEMA, evaluation).split("---\n")[1])
    assert head.get("base_model") == (base if named else None)
    assert head["license"] == "unknown"


def test_its_lines_of_python_give_calibrated_probabilities(
    card: ModelCard, tiny_bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    *lines, last = code.strip().splitlines()
    names: dict[str, object] = {}
    monkeypatch.chdir(tiny_bundle.folder)
    exec("\n".join(lines), names)
    expected = Predictor.load(tiny_bundle.folder).predict([SCHEMA.examples[0].row])[0]
    assert eval(last, names) == pytest.approx(expected.probabilities)
    assert "uncalibrated" in card.text
