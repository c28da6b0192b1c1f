"""Everything follows the schema: with its two classes turned round, each figure is that of the same class as before."""

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from models.bundle.manifest import DataRecord
from models.schema import Schema
from tests import churn
from tests.tiny import ORIGIN
from training.calibrate.record import fit_record
from training.data.table import Table
from training.evaluate.estimates import Estimate
from training.evaluate.evaluation import Evaluation
from training.evaluate.folds import make_folds
from training.evaluate.nested import nested_evaluation
from training.evaluate.predictions import LabelledPredictions
from training.report.card import model_card
from training.report.page import report
from training.report.plots import make_plots
from training.report.tables import tables

ROWS = 400
Evaluated = tuple[Schema, Evaluation, LabelledPredictions]


def evaluate(table: Table, logits: np.ndarray) -> Evaluated:
    folds = make_folds(table.labels, 4, 0) if table.labels[0] == TABLE.labels[0] else make_folds(1 - table.labels, 4, 0)
    found = nested_evaluation(
        logits, table.labels, folds, table.rows, table.schema, [None] * 4, inverse=None, coverage=0.8, seed=0
    )
    return table.schema, *found


TABLE = churn.table(ROWS)
MARK = 1.4 * (TABLE.labels - 0.4) + np.random.default_rng(0).normal(size=ROWS)
LOGITS = np.stack([0.3 - MARK, MARK], axis=1)
TURNED = replace(
    TABLE, labels=1 - TABLE.labels,
    schema=msgspec.structs.replace(
        churn.SCHEMA, label=msgspec.structs.replace(churn.SCHEMA.label, classes=churn.SCHEMA.label.classes[::-1])
    ),
)  # fmt: skip


@pytest.fixture(scope="module")
def both(few_resamples: None) -> tuple[Evaluated, Evaluated]:
    return evaluate(TABLE, LOGITS), evaluate(TURNED, LOGITS[:, ::-1])


def same(one: Estimate, other: Estimate) -> bool:
    return msgspec.structs.astuple(one) == pytest.approx(msgspec.structs.astuple(other), abs=1e-5, nan_ok=True)


def test_figures_stay_with_their_class(both: tuple[Evaluated, Evaluated]) -> None:
    (schema, one, predictions), (turned, other, turned_predictions) = both
    assert schema.classes == turned.classes[::-1] == ("stays", "leaves")
    assert predictions.calibrated == pytest.approx(1 - turned_predictions.calibrated, abs=1e-6)
    assert predictions.member.tolist() == turned_predictions.member[:, ::-1].tolist()
    for ours, theirs in ((one.calibrated, other.calibrated), (one.raw, other.raw)):
        assert same(ours.log_loss, theirs.log_loss)
        assert same(ours.auc, theirs.auc)
        assert list(ours.recall) == ["stays", "leaves"] == list(theirs.recall)[::-1]
        assert ours.recall["leaves"] == theirs.recall["leaves"]
        assert ours.recall["leaves"].value == pytest.approx(
            ((predictions.calibrated if ours is one.calibrated else predictions.raw)[TABLE.labels == 1] >= 0.5).mean()
        )
    for ours_at, theirs_at in zip(one.sets_at or (), other.sets_at or (), strict=True):
        assert ours_at.by_class == {name: theirs_at.by_class[name] for name in schema.classes}
        assert ours_at.wrong_by_class == {name: theirs_at.wrong_by_class[name] for name in schema.classes}
    assert one.interval.observed.value == pytest.approx(1 - other.interval.observed.value)
    for group, again in zip(one.subgroups, other.subgroups, strict=True):
        assert (group.title, group.rows) == (again.title, again.rows)
        assert group.observed.value == pytest.approx(1 - again.observed.value)
        assert group.calibrated.expected == pytest.approx(1 - again.calibrated.expected, abs=1e-6)
    assert one.baselines is not None
    assert other.baselines is not None
    for name, baseline in one.baselines.items():
        assert baseline.log_loss.value == pytest.approx(other.baselines[name].log_loss.value, abs=0.01), name


def test_calibration_stays_with_its_class() -> None:
    records = [
        fit_record(logits, table.labels, table.rows, table.schema, inverse=None, coverage=0.8, seed=0)
        for table, logits in ((TABLE, LOGITS), (TURNED, LOGITS[:, ::-1]))
    ]
    assert records[0].conformal.thresholds == pytest.approx(records[1].conformal.thresholds[::-1], abs=1e-6)
    z = np.linspace(-3, 3, 13)
    assert records[0].map.probabilities(z) == pytest.approx(1 - records[1].map.probabilities(-z), abs=1e-6)
    low, high = records[0].venn_abers.interval(z)
    turned_low, turned_high = records[1].venn_abers.interval(-z)
    assert low == pytest.approx(1 - turned_high)
    assert high == pytest.approx(1 - turned_low)


def test_card_report_and_pictures_have_the_schemas_words(both: tuple[Evaluated, Evaluated]) -> None:
    for schema, evaluation, predictions in both:
        positive, negative = schema.classes[::-1]
        counts = {name: int((TABLE.labels == number).sum()) for number, name in enumerate(churn.SCHEMA.classes)}
        origin = msgspec.structs.replace(ORIGIN, data=DataRecord("0" * 64, ROWS, counts), recipe={"epochs": 1})
        card = model_card(origin, schema, evaluation)
        assert f"Probability that a customer is of the class {positive}" in card
        assert f"{ROWS} customers, of which {positive}: {counts[positive]}" in card
        plots = make_plots(predictions, evaluation, [], np.random.default_rng(0))
        page = report(schema, evaluation, plots)
        assert f"{ROWS} customers. " in page
        assert f"calibrated probability of {positive}" in page
        assert f"of the class {positive} (upwards) and of the class {negative} (downwards)" in page
        assert {f"recall, {name}" for name in schema.classes} <= {row[0] for row in tables(evaluation)[2].rows}
        for text in (card, page):
            assert not any(word in text.lower() for word in ("passenger", "titanic", "surviv", "died"))
