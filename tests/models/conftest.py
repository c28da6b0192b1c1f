"""Shared by the tests of calibration and predictions."""

import numpy as np
import pytest

from models.calibration.confidence import CalibrationRecord
from training.calibrate.record import fit_record
from training.data.table import Table


@pytest.fixture(scope="session")
def record(table: Table) -> CalibrationRecord:
    rows = slice(300)
    z = np.random.default_rng(0).normal(size=300) + 2.0 * (table.labels[rows] - 0.5)
    return fit_record(z, table.labels[rows], table.passengers[rows], inverse=None, coverage=0.9, seed=0)
