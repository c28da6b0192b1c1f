"""The nested evaluation."""

from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest

from models.text import Renderer
from tests.titanic import LABELS, SCHEMA
from tests.training.logits import two
from training.calibrate.stack import StackSettings, all_candidates
from training.data.table import Table, fold_known
from training.evaluate.nested import nested_evaluation


def test_nested_evaluation_scores_every_row_by_a_calibration_without_it(table: Table, few_resamples: None) -> None:
    rng = np.random.default_rng(4)
    z = 2 * (1.8 * rng.normal(size=len(table)) + 1.5 * (table.labels - 0.5))
    folds = rng.integers(0, 4, len(table))
    renderer, rows = Renderer(SCHEMA), (table.rows, SCHEMA)
    known = fold_known(renderer, table.rows, table.labels, folds)
    settings: dict[str, Any] = {"inverse": None, "coverage": 0.9, "seed": 0}
    evaluation, predictions = nested_evaluation(two(z), table.labels, folds, *rows, known, **settings)
    assert evaluation.calibrated.log_loss.value < evaluation.raw.log_loss.value
    assert evaluation.sets.overall.value == pytest.approx(0.9, abs=0.04)
    assert evaluation.interval.outside_by < 0.02
    assert evaluation.baselines is not None
    assert all(0.37 < one.log_loss.value < 0.43 for one in evaluation.baselines.values())
    assert [one.nominal for one in evaluation.sets_at or ()] == [0.8, 0.9, 0.95]
    for one in evaluation.sets_at or ():
        assert one.overall.value == pytest.approx(one.nominal, abs=0.04)
    assert evaluation.risk.oracle < evaluation.risk.area < evaluation.risk.random
    for side, scores in (("calibrated", evaluation.calibrated), ("raw", evaluation.raw)):
        tenths = evaluation.reliability[side]
        assert sum(one.rows for one in tenths) == len(table)
        error = sum(one.rows * abs(one.observed.value - one.probability) for one in tenths) / len(table)
        assert error == pytest.approx(scores.calibration_error.value.value)
    # The labels of a fold do not reach its own calibrated probabilities.
    changed = np.where(folds == 2, 1 - table.labels, table.labels)
    others = fold_known(renderer, table.rows, changed, folds)
    _, again = nested_evaluation(two(z), changed, folds, *rows, others, **settings, with_baselines=False)
    assert np.array_equal(predictions.calibrated[folds == 2], again.calibrated[folds == 2])
    assert not np.array_equal(predictions.calibrated[folds != 2], again.calibrated[folds != 2])


def test_sets_by_a_field_beside_those_of_the_class_alone(table: Table, few_resamples: None) -> None:
    """The scores know nothing of the sex that decides: sets of the class alone miss the women who died."""
    rng = np.random.default_rng(0)
    woman = np.array([row.sex == "female" for row in table.rows])
    z = 2 * (rng.normal(size=len(table)) + 1.2 * (table.labels - 0.5)) + 3.0 * (woman - 0.5)
    folds = rng.integers(0, 4, len(table))
    known = fold_known(Renderer(SCHEMA), table.rows, table.labels, folds)
    given: dict[str, Any] = {"inverse": None, "coverage": 0.9, "seed": 0, "with_baselines": False}

    def evaluated(sets_by: str | None) -> Any:
        arrays = two(z), table.labels, folds, table.rows
        return nested_evaluation(*arrays, SCHEMA, known, sets_by=sets_by, **given)

    chosen, predictions = evaluated(None)
    assert chosen.conditional_sets.chosen == ("sex",) * 4
    plain, _ = evaluated("none")
    assert plain.conditional_sets is None
    assert chosen.conditional_sets.plain == plain.sets
    assert chosen.conditional_sets.plain_worst == plain.set_cells.worst
    assert (plain.set_cells.worst.group, plain.set_cells.worst.outcome) == ("female", "died")
    assert chosen.sets.average_size > plain.sets.average_size
    for cell in chosen.set_cells.cells:
        if cell.attribute == "sex":
            rows = (woman == (cell.group == "female")) & (table.labels == LABELS.index(cell.outcome))
            held = predictions.member[rows, LABELS.index(cell.outcome)]
            assert (cell.rows, cell.coverage.value) == (rows.sum(), held.mean())
            exact = binomtest(int(held.sum()), len(held)).proportion_ci(0.95, "exact")
            assert (cell.coverage.low, cell.coverage.high) == pytest.approx((exact.low, exact.high))
            assert cell.coverage.value > 0.85
    named = evaluated("age")[0]
    assert named.conditional_sets.chosen == ("age",) * 4
    assert named.sets != chosen.sets


def test_a_folds_labels_reach_neither_its_stack_nor_the_choice_of_it(table: Table, few_resamples: None) -> None:
    rng = np.random.default_rng(4)
    truth = 3.0 * (table.labels - 0.5)
    z, folds = truth + 1.7 * rng.normal(size=len(table)), rng.integers(0, 3, len(table))
    seconds = {"linear": truth + 1.7 * rng.normal(size=len(table)), "trees": rng.normal(size=len(table))}
    stacking = StackSettings(candidates=all_candidates(tuple(seconds)))
    settings: dict[str, Any] = {"inverse": None, "coverage": 0.9, "seed": 0, "seconds": seconds, "stacking": stacking}
    rest: Any = (table.rows, SCHEMA, [None] * 3)
    evaluation, found = nested_evaluation(two(z), table.labels, folds, *rest, **settings, with_baselines=False)
    changed = np.where(folds == 1, rng.permutation(table.labels), table.labels)
    _, again = nested_evaluation(two(z), changed, folds, *rest, **settings, with_baselines=False)
    assert np.array_equal(found.calibrated[folds == 1], again.calibrated[folds == 1])
    assert not np.array_equal(found.calibrated[folds != 1], again.calibrated[folds != 1])
    stack = evaluation.stack
    assert stack is not None
    assert all("linear" in chosen for chosen in stack.chosen)
    assert stack.model.difference.high < 0
    assert stack.seconds["linear"].difference.high < 0
    # What was not stacked stays the model's own.
    assert found.raw == pytest.approx(1 / (1 + np.exp(-z)))
