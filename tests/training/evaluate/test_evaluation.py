"""The nested evaluation."""

from typing import Any

import numpy as np
import pytest

from training.data.table import Table, fold_companions
from training.evaluate.evaluation import nested_evaluation


def test_nested_evaluation_scores_every_row_by_a_calibration_without_it(table: Table, few_resamples: None) -> None:
    rng = np.random.default_rng(4)
    z = 2 * (1.8 * rng.normal(size=len(table)) + 1.5 * (table.labels - 0.5))
    folds = rng.integers(0, 4, len(table))
    known = fold_companions(table.passengers, table.labels, folds)
    settings: dict[str, Any] = {"companions": known, "inverse": None, "coverage": 0.9, "seed": 0}
    evaluation, predictions = nested_evaluation(z, table.labels, folds, table.passengers, **settings)
    assert evaluation.calibrated.log_loss.value < evaluation.raw.log_loss.value
    assert evaluation.sets.overall.value == pytest.approx(0.9, abs=0.04)
    assert evaluation.interval.outside_by < 0.02
    assert evaluation.logistic_regression is not None
    assert 0.37 < evaluation.logistic_regression.scores.log_loss.value < 0.43
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
    settings |= {"companions": fold_companions(table.passengers, changed, folds), "with_baselines": False}
    _, again = nested_evaluation(z, changed, folds, table.passengers, **settings)
    assert np.array_equal(predictions.calibrated[folds == 2], again.calibrated[folds == 2])
    assert not np.array_equal(predictions.calibrated[folds != 2], again.calibrated[folds != 2])
