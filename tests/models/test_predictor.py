"""The real predictor: a row is itself, whatever its company, and however it was read or remembered."""

from pathlib import Path

import numpy as np
import pytest

from models.cache import LogitCache
from models.passenger import Passenger
from models.predictor import Predictor
from training.data import Table


@pytest.fixture(scope="module")
def predictor(bundle_folder: Path) -> Predictor:
    found = Predictor.load(bundle_folder)
    found.warm_up()
    return found


@pytest.fixture(scope="module")
def alone(predictor: Predictor, table: Table) -> dict[str, float]:
    """The probability of each distinct text of 120 passengers, computed by itself."""
    passengers = table.passengers[:120]
    alone = [predictor.predict([one])[0].probability for one in passengers]
    return dict(zip(predictor.words(passengers), alone, strict=True))


def test_a_probability_does_not_depend_on_its_company(
    predictor: Predictor, table: Table, alone: dict[str, float]
) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows = rng.integers(0, 120, rng.choice((2, 3, 5, 11, 12, 17, 33, 64, 90)))
        batch = [table.passengers[row] for row in rows]
        for words, prediction in zip(predictor.words(batch), predictor.predict(batch), strict=True):
            assert prediction.probability == pytest.approx(alone[words], abs=1e-5)


def test_reading_ahead_changes_nothing(predictor: Predictor, table: Table) -> None:
    batch = [*table.passengers[:30], *table.passengers[10:20]]
    assert predictor.predict(batch, predictor.read(batch)) == predictor.predict(batch)
    assert predictor.predict([], []) == []


def test_a_remembered_answer_is_the_same(bundle_folder: Path, table: Table) -> None:
    lookups: list[tuple[int, int]] = []
    predictor = Predictor.load(bundle_folder, LogitCache(100, lambda *counts: lookups.append(counts)))
    batch = [table.passengers[0], table.passengers[1], table.passengers[0]]
    first = predictor.predict(batch)
    assert predictor.predict(batch, predictor.read(batch)) == first
    assert predictor.predict(batch) == first
    assert lookups == [(0, 2), (2, 0), (2, 0)]


def test_passengers_longer_than_any_seen_are_answered(predictor: Predictor) -> None:
    odd = Passenger(pclass=1, sex="female", name="x" * 200, age=120, sibsp=20, parch=20, fare=1000, cabin="Z" * 50)
    assert 0 < predictor.predict([odd])[0].probability < 1
