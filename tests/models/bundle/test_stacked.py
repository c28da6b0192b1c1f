"""A bundle with a stack: written, read, served, and refused where its files are not what it says."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import STACKED, STACKED_WEIGHTS, BundleError
from models.bundle.read import open_bundle
from models.bundle.write import write_bundle
from models.calibration.confidence import CalibrationRecord
from models.calibration.logit import calibration_scores, score_probabilities
from models.calibration.stack import Stack
from models.engines.choice import choose_engine, load_engine
from models.engines.logit_cache import LogitCache
from models.explanation import explain
from models.predictor import Predictor
from models.second.model import SecondScorers, stacked_files
from tests import churn, penguins
from tests.tiny import ORIGIN, SHAPE, Contents, few_words, make_contents
from training.data.table import Table
from training.second.held_out import fit_seconds

WEIGHTS = {"trees": 0.5, "words": 0.25}


def stacked(table: Table, folder: Path, others: dict[str, float], offsets: tuple[float, ...]) -> Contents:
    """The files of a tiny bundle whose probabilities are of a stack."""
    contents = make_contents(table, folder)
    tokenizer = Tokenizer(few_words(table.schema), SHAPE["max_position_embeddings"])
    seconds = fit_seconds(tuple(others), table.rows, table.labels, table.schema, None, 0, tokenizer)
    content = contents["calibration.json"]
    assert isinstance(content, bytes)
    record = msgspec.json.decode(content, type=CalibrationRecord)
    record = msgspec.structs.replace(record, stack=Stack(own=0.25, others=others, offsets=offsets))
    return contents | stacked_files(seconds) | {"calibration.json": msgspec.json.encode(record)}


@pytest.fixture(scope="module")
def contents(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    return stacked(churn.table(120), tmp_path_factory.mktemp("weights"), WEIGHTS, (0.1,))


def load(folder: Path) -> Predictor:
    bundle, tokenizer, weights = open_bundle(folder)
    return Predictor(
        bundle, load_engine(choose_engine("auto", bundle.config), bundle.config, weights), tokenizer, LogitCache(100)
    )


def test_a_prediction_is_the_stacks_and_says_what_it_joined(contents: Contents, tmp_path: Path) -> None:
    predictor = load(write_bundle(tmp_path / "stacked", contents, ORIGIN).folder)
    rows, record = churn.customers(20, seed=5), predictor.bundle.record
    assert record.stack is not None
    seconds = predictor.second_scores(rows)
    logits = predictor.logits(predictor.render(rows))
    own = calibration_scores(logits)
    z = 0.25 * own + 0.5 * seconds["trees"] + 0.25 * seconds["words"] + 0.1
    expected = record.map.probabilities(z)
    found = predictor.predict(rows)
    assert [one.probability for one in found] == pytest.approx(expected.tolist(), abs=1e-12)
    assert predictor.probabilities(rows) == pytest.approx(expected, abs=1e-12)
    for at, one in enumerate(found):
        assert one.logits == tuple(logits[at].tolist())
        assert one.confidence.uncalibrated_probability == pytest.approx(score_probabilities(own)[at])
        steps = [step.step for step in one.confidence.calibration]
        assert steps[:2] == ["model", "stack"]
        joined = one.confidence.calibration[1].models
        assert [(part.model, part.weight) for part in joined] == [("model", 0.25), ("trees", 0.5), ("words", 0.25)]
        assert joined[1].probability == pytest.approx(score_probabilities(seconds["trees"])[at])
    alone = predictor.predict(rows[:1])[0]
    assert alone.confidence.calibration == found[0].confidence.calibration


def test_an_explanation_is_of_the_stacks_probability(contents: Contents, tmp_path: Path) -> None:
    predictor = load(write_bundle(tmp_path / "stacked", contents, ORIGIN).folder)
    (row,) = churn.customers(1, seed=8)
    explained = explain(predictor, row, "unknown")
    p = predictor.predict([row])[0].probability
    assert p is not None
    assert explained.log_odds == pytest.approx(np.log(p / (1 - p)))
    # A number that the text cuts to words moves the trees all the same, and its row is asked for by itself.
    words = explain(predictor, row, "words")
    assert words.log_odds == pytest.approx(explained.log_odds)


def test_three_classes(tmp_path: Path) -> None:
    table = penguins.table()
    made = stacked(table, tmp_path, {"linear": 0.5, "trees": 0.5}, (0.1, 0.0, -0.1))
    predictor = load(write_bundle(tmp_path / "penguins", made, msgspec.structs.replace(ORIGIN)).folder)
    seconds = SecondScorers(predictor.bundle.seconds, table.schema, None)(table.rows[:9])
    own = calibration_scores(predictor.logits(predictor.render(table.rows[:9])))
    z = 0.25 * own + 0.5 * seconds["linear"] + 0.5 * seconds["trees"] + np.array([0.1, 0.0, -0.1])
    expected = predictor.bundle.record.map.probabilities(z)
    found = predictor.predict(table.rows[:9])
    assert np.array([one.probabilities for one in found]) == pytest.approx(expected)
    part = found[0].confidence.calibration[1].models[1]
    assert part.probabilities == pytest.approx(
        dict(zip(table.schema.classes, score_probabilities(seconds["linear"])[0].tolist(), strict=True))
    )


def changed(contents: Contents, **parts: Any) -> Contents:
    content = contents["calibration.json"]
    assert isinstance(content, bytes)
    record = json.loads(content)
    record["stack"] = record["stack"] | parts if parts else None
    return contents | {"calibration.json": json.dumps(record).encode()}


def test_files_and_stack_must_belong_together(contents: Contents, tmp_path: Path) -> None:
    def refused(files: Contents) -> str:
        with pytest.raises(BundleError) as caught:
            write_bundle(tmp_path / "refused", files, ORIGIN)
        return str(caught.value)

    without = {name: content for name, content in contents.items() if name != STACKED}
    assert refused(without) == f"{STACKED} is missing, and calibration.json has a stack"
    assert refused(changed(contents)) == f"{STACKED} is there, and calibration.json has no stack"
    assert "calibration.json" in refused(changed(contents, others={"trees": 1.0}))
    assert "weights of the stack" in refused(changed(contents, own=-1.0))
    assert "offsets" in refused(changed(contents, offsets=[0.0, 0.0]))
    weightless = {name: content for name, content in contents.items() if name != STACKED_WEIGHTS}
    assert refused(weightless).startswith(f"{STACKED_WEIGHTS}: it is missing")
    assert refused(contents | {STACKED_WEIGHTS: b"x" * 100}).startswith(f"{STACKED_WEIGHTS}: it is no safetensors")
    assert refused(contents | {STACKED: b"{}"}).startswith(f"{STACKED}: ")
