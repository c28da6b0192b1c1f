"""Card, page and pictures of three classes: what was computed is what they show, and nothing names a positive class."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree

import msgspec
import numpy as np
import pytest

from models.bundle.manifest import DataRecord
from models.schema import ClassName, Label
from tests import penguins
from tests.tiny import ORIGIN
from tests.training.report.test_page import Page
from training.bundle.contents import class_counts
from training.evaluate.folds import make_folds
from training.evaluate.nested import nested_evaluation
from training.evaluate.predictions import LabelledPredictions
from training.evaluate.several_classes.evaluation import ClassEvaluation
from training.report.card import model_card
from training.report.page import report
from training.report.plots import make_plots
from training.report.several_classes.plots import MAX_PICTURES, confusion, pictured
from training.report.several_classes.tables import most_confused
from training.report.tables import tables

TABLE = penguins.table(260, 5)
ORIGIN_HERE = msgspec.structs.replace(
    ORIGIN, data=DataRecord("0" * 64, len(TABLE), class_counts(TABLE)), recipe={"epochs": 1}
)
Evaluated = tuple[ClassEvaluation, LabelledPredictions]


@pytest.fixture(scope="module")
def evaluated(few_resamples: None) -> Evaluated:
    """Logits that say the class roughly, and are surer than they may be."""
    rng = np.random.default_rng(0)
    logits = 2.5 * (np.eye(3)[TABLE.labels] + rng.normal(size=(len(TABLE), 3)) * 0.8)
    folds = make_folds(TABLE.labels, 4, 0)
    evaluation, predictions = nested_evaluation(
        logits, TABLE.labels, folds, TABLE.rows, TABLE.schema, [None] * 4, inverse=None, coverage=0.8, seed=0
    )
    assert isinstance(evaluation, ClassEvaluation)
    return evaluation, predictions


def test_every_row_is_scored_by_a_calibration_without_it(evaluated: Evaluated) -> None:
    evaluation, predictions = evaluated
    p = predictions.calibrated
    assert p.sum(axis=1) == pytest.approx(1)
    assert evaluation.calibrated.log_loss.value < evaluation.raw.log_loss.value
    assert evaluation.maps_chosen is not None
    assert len(evaluation.maps_chosen) == 4
    assert (predictions.low <= p).all()
    assert (p <= predictions.high).all()
    for sets in evaluation.sets_at or ():
        for held in sets.by_class.values():
            assert abs(held.value - sets.nominal) < 4 * held.standard_error + 0.02
    for name, interval in evaluation.intervals.items():
        assert interval.outside_by < 0.03, name


def test_page_and_card_show_each_class(evaluated: Evaluated) -> None:
    evaluation, predictions = evaluated
    plots = make_plots(predictions, evaluation, [], np.random.default_rng(0))
    assert [plot.name for plot in plots] == [
        "reliability_calibrated", "reliability_raw", "classes", "confusion", "reliability_class_1",
        "reliability_class_2", "reliability_class_3", "outcomes_calibrated", "outcomes_raw", "risk_coverage",
        "subgroups", "baselines",
    ]  # fmt: skip
    text = report(TABLE.schema, evaluation, plots)
    page = Page(text)
    assert page.open == []
    for figures in tables(evaluation):
        for row in figures.rows:
            assert all(cell in page.cells for cell in row[1:] if cell), figures.title
    card = model_card(ORIGIN_HERE, TABLE.schema, evaluation)
    assert "Probabilities that a penguin is of each of the 3 classes" in card
    for name, count in class_counts(TABLE).items():
        assert f"{name}: {count} ({count / len(TABLE):.1%})" in card
    for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1
    assert "too few held-out rows" not in card
    for words in (text, card):
        assert "positive" not in words.lower()


def test_pictures_parse_and_stay_inside_their_frame(evaluated: Evaluated) -> None:
    evaluation, predictions = evaluated
    for plot in make_plots(predictions, evaluation, [], np.random.default_rng(0)):
        root = ElementTree.fromstring(plot.file())
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        for rectangle in root.iter("{http://www.w3.org/2000/svg}rect"):
            x, y, wide, high = (float(rectangle.attrib[name]) for name in ("x", "y", "width", "height"))
            assert 0 <= x <= x + wide <= width + 0.1, plot.name
            assert 0 <= y <= y + high <= height + 0.1, plot.name
        assert "nan" not in plot.body


def test_the_confusion_picture_has_the_shares_of_each_class(evaluated: Evaluated) -> None:
    evaluation, predictions = evaluated
    numbers = [int(cell) for cell in re.findall(r">(\d+)</text>", confusion(predictions, evaluation).body)]
    rows = [
        [round(100 * count / sum(said.values())) for count in said.values()]
        for said in evaluation.calibrated.confusion.values()
    ]
    assert numbers == [cell for row in rows for cell in row]


def test_the_card_names_the_classes_that_are_in_every_set(evaluated: Evaluated) -> None:
    evaluation, _ = evaluated
    few = {**evaluation.calibrated.confusion, "Chinstrap": {"Gentoo": 1, "Adelie": 0, "Chinstrap": 2}}
    calibrated = msgspec.structs.replace(evaluation.calibrated, confusion=few)
    card = model_card(ORIGIN_HERE, TABLE.schema, msgspec.structs.replace(evaluation, calibrated=calibrated))
    assert "- Classes with too few held-out rows for prediction sets at 80%: Chinstrap (3). Every set holds" in card
    four = msgspec.structs.replace(
        calibrated, confusion={**few, "Chinstrap": {"Gentoo": 2, "Adelie": 0, "Chinstrap": 2}}
    )
    assert "too few held-out" not in model_card(
        ORIGIN_HERE, TABLE.schema, msgspec.structs.replace(evaluation, calibrated=four)
    )


def test_of_many_classes_the_most_frequent_are_shown(evaluated: Evaluated) -> None:
    _, predictions = evaluated
    names = [f"class {number}" for number in range(20)]
    said = {name: {other: 3 * (name == other) for other in names} for name in names}
    said["class 7"] |= {"class 9": 5, "class 2": 1}
    shown = most_confused(said)
    assert shown.rows == (("class 7", "class 9", "5 (56%)"), ("class 7", "class 2", "1 (11%)"))
    label = Label(column="species", classes=tuple(ClassName(value=name, name=name) for name in names))
    schema = msgspec.structs.replace(TABLE.schema, examples=(), label=label)
    many = dataclasses.replace(predictions, schema=schema, labels=np.repeat(np.arange(20), np.arange(1, 21)))
    assert pictured(many) == list(range(20 - MAX_PICTURES, 20))
