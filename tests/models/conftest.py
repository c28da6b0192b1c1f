"""Shared by the tests of calibration and predictions."""

import numpy as np
import pytest

from models.calibration.confidence import CalibrationRecord
from tests.titanic import SCHEMA
from training.calibrate.record import fit_record
from training.data.table import Table


def pairs(z: np.ndarray) -> np.ndarray:
    """Logits (n, 2) whose difference is z (n,)."""
    return np.stack([np.zeros_like(z), z], axis=1)


@pytest.fixture(scope="session")
def record(table: Table) -> CalibrationRecord:
    rows = slice(300)
    z = np.random.default_rng(0).normal(size=300) + 2.0 * (table.labels[rows] - 0.5)
    return fit_record(pairs(z), table.labels[rows], table.rows[rows], SCHEMA, inverse=None, coverage=0.9, seed=0)
