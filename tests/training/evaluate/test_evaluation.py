"""The nested evaluation."""

from typing import Any

import numpy as np
import pytest

from models.text import Renderer
from tests.titanic import SCHEMA
from tests.training.logits import two
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
