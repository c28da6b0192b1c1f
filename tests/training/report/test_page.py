"""The pictures show what was computed; the page is whole, needs nothing else, and shows no markup from outside."""

import dataclasses
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest

from models.bundle.manifest import BaseModel, DataRecord, LossRecord, Origin
from models.calibration.logit import logit
from models.schema import ClassName, Label
from models.text import Renderer
from tests.titanic import LABELS, SCHEMA
from tests.training.logits import two
from training.data.table import Table, fold_known
from training.evaluate.baselines import BASELINES, held_out_probabilities
from training.evaluate.evaluation import Evaluation
from training.evaluate.folds import make_folds
from training.evaluate.nested import nested_evaluation
from training.evaluate.predictions import LabelledPredictions
from training.fit.epoch_diagnostics import EpochDiagnostics, read_log
from training.report.card import model_card
from training.report.page import report
from training.report.plots import consistency_band, make_plots
from training.report.tables import baselines_verdict, tables

ORIGIN = Origin(
    created="2026-01-01T00:00:00+00:00", seed=0, base=BaseModel("base", "0" * 64),
    loss=LossRecord("cross_entropy", {}), recipe={"epochs": 1}, packages={},
    data=DataRecord("0" * 64, 891, {"died": 549, "survived": 342}),
)  # fmt: skip
NOT_MARKUP = ClassName(value="1", name="<i>odd</i>")
ODD = msgspec.structs.replace(
    SCHEMA, examples=(), label=Label(column="y", classes=(ClassName(value="0", name="died"), NOT_MARKUP))
)
"""A class whose name is not to be read as markup."""

Evaluated = tuple[Evaluation, LabelledPredictions]


@pytest.fixture(scope="module")
def evaluated(table: Table, few_resamples: None) -> Evaluated:
    """A real nested evaluation of a baseline's logits made overconfident, as a model's would be."""
    folds = make_folds(table.labels, 5, 0)
    known = fold_known(Renderer(SCHEMA), table.rows, table.labels, folds)
    p = held_out_probabilities(table.rows, table.labels, folds, SCHEMA, known, 0)["gradient_boosting"]
    logits = two(2 * logit(p))
    return nested_evaluation(logits, table.labels, folds, table.rows, SCHEMA, known, inverse=None, coverage=0.9, seed=0)


def epochs() -> list[EpochDiagnostics]:
    y = np.array([0, 1, 1, 0])
    logits = np.array([[1.0, 0], [0, 1], [1, 0], [0.5, 0]])
    where = [("fold 1 of 2", 1), ("fold 1 of 2", 2), ("final model", 1), ("final model", 2)]
    return [
        EpochDiagnostics.of(logits * epoch, y, LABELS, phase=phase, run=1, epoch=epoch, loss=1 / epoch, seconds=1.0)
        for phase, epoch in where
    ]


class Page(HTMLParser):
    """Checks that tags close in order, and keeps names, attributes and the cells of tables."""

    VOID = frozenset({"meta"})

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.cells: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells.append(data)


def test_the_page_is_whole_and_needs_nothing_else(evaluated: Evaluated) -> None:
    evaluation, predictions = evaluated
    plots = make_plots(dataclasses.replace(predictions, schema=ODD), evaluation, epochs(), np.random.default_rng(0))
    text = report(ODD, evaluation, plots)
    page = Page(text)
    assert page.open == []
    assert page.tags.count("svg") == len(plots) == 10
    assert not {"script", "link", "img", "iframe"} & set(page.tags)
    assert "http" not in text
    assert "url(" not in text
    assert "<i>" not in text
    assert '<meta name="viewport"' in text
    assert "@media print" in text
    for figures in tables(evaluation):
        for row in figures.rows:
            assert all(cell in page.cells for cell in row[1:] if cell), figures.title


def test_pictures_are_files_that_parse_and_stay_inside_their_frame(evaluated: Evaluated) -> None:
    evaluation, predictions = evaluated
    for plot in make_plots(predictions, evaluation, epochs(), np.random.default_rng(0)):
        root = ElementTree.fromstring(plot.file())
        width, height = map(float, root.attrib["viewBox"].split()[2:])
        numbers = re.findall(r'(?:points|c?[xy])="([^"]+)"', plot.body)
        points = [pair.split(",") for group in numbers if "," in group for pair in group.split()]
        assert points, plot.name
        assert all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in points), plot.name
        assert "nan" not in plot.body


def test_without_a_log_or_baselines_their_pictures_are_left_out(evaluated: Evaluated) -> None:
    evaluation, predictions = evaluated
    alone = msgspec.structs.replace(evaluation, baselines=None)
    names = [plot.name for plot in make_plots(predictions, alone, [], np.random.default_rng(0))]
    assert names == [
        "reliability_calibrated", "reliability_raw", "outcomes_calibrated", "outcomes_raw", "net_benefit",
        "risk_coverage", "subgroups",
    ]  # fmt: skip
    assert "Baselines" not in report(SCHEMA, alone, [])


def test_the_consistency_band_holds_binomial_rates() -> None:
    p = np.full(200, 0.25)
    low, high = consistency_band(p, np.random.default_rng(0))
    assert low[2] == pytest.approx(0.25 - 1.96 * np.sqrt(0.25 * 0.75 / 200), abs=0.012)
    assert high[2] == pytest.approx(0.25 + 1.96 * np.sqrt(0.25 * 0.75 / 200), abs=0.012)
    assert np.isnan(low[[0, 1, 3, 9]]).all()


def test_the_log_is_read_and_a_repeated_epoch_counts_as_last_written(tmp_path: Path) -> None:
    first, *rest = epochs()
    again = msgspec.structs.replace(first, loss=7.0)
    log = tmp_path / "training_log.jsonl"
    assert read_log(log) == []
    log.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in (first, *rest, again)))
    found = read_log(log)
    assert len(found) == 4
    assert found[0].loss == 7.0


def test_the_card_says_who_is_better_in_which_rows_and_what_it_is_not_for(evaluated: Evaluated) -> None:
    evaluation, _ = evaluated
    card = model_card(ORIGIN, SCHEMA, evaluation)
    assert evaluation.baselines is not None
    assert list(evaluation.baselines) == list(BASELINES)
    for name, baseline in evaluation.baselines.items():
        by = baseline.log_loss_difference
        rank = "better" if by.value > 0 else "worse"
        assert f"{rank} than this model by {abs(by.value):.4f} ± {by.standard_error:.4f}" in card, name
    for group in evaluation.subgroups:
        assert f"| {group.title} | {group.rows} |" in card
    assert "no decision about people by this alone" in card
    assert "Probability that a passenger is of the class survived" in card
    # Every row of a table has as many cells as its head.
    for table in re.findall(r"(?:^\|.*\n)+", card, re.MULTILINE):
        assert len({line.count("|") for line in table.splitlines()}) == 1


def test_the_verdict_names_the_side_and_whether_it_is_settled(evaluated: Evaluated) -> None:
    evaluation, _ = evaluated
    assert evaluation.baselines is not None
    one = evaluation.baselines["gradient_boosting"]

    def verdict(value: float, error: float) -> str:
        low, high = value - 2 * error, value + 2 * error
        by = msgspec.structs.replace(one.log_loss_difference, value=value, standard_error=error, low=low, high=high)
        baselines = {"gradient_boosting": msgspec.structs.replace(one, log_loss_difference=by)}
        return baselines_verdict(msgspec.structs.replace(evaluation, baselines=baselines))

    assert "better than this model by 0.0500 ± 0.0100; its 95 % interval leaves out 0." in verdict(0.05, 0.01)
    assert "worse than this model by 0.0100 ± 0.0100; its 95 % interval holds 0." in verdict(-0.01, 0.01)


def test_a_baseline_that_is_plainly_better_is_named_first(evaluated: Evaluated) -> None:
    evaluation, _ = evaluated
    assert evaluation.baselines is not None
    one = evaluation.baselines["gradient_boosting"]

    def ahead(value: float) -> Evaluation:
        by = msgspec.structs.replace(one.log_loss_difference, value=value, standard_error=0.004)
        better = {**evaluation.baselines, "gradient_boosting": msgspec.structs.replace(one, log_loss_difference=by)}
        return msgspec.structs.replace(evaluation, baselines=better)

    card = model_card(ORIGIN, SCHEMA, ahead(0.0123))
    start = card.partition("# titanic\n\n")[2]
    assert start.startswith("**On this table another model is better: gradient-boosted trees")
    assert "Paired difference: 0.0123 ± 0.0040.**" in start.split("\n\n")[0]
    assert "another model is better" in report(SCHEMA, ahead(0.0123), [])
    assert "another model is better" not in model_card(ORIGIN, SCHEMA, ahead(0.0099)) + report(
        SCHEMA, ahead(0.0099), []
    )
