"""The real predictor: a row is itself, whatever its company, and however it was read or remembered."""

import math
import random
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.bundle.read import Bundle
from models.calibration.confidence import entropy_bits
from models.engines.logit_cache import LogitCache
from models.prediction import Prediction, Stage
from models.predictor import Predictor
from tests.conftest import ROOT
from tests.models.engines.networks import ENGINES
from tests.models.strategies import PASSENGERS
from tests.titanic import LABELS, Passenger
from training.data.table import Table


@pytest.fixture(scope="module")
def predictor(bundle_folder: Path) -> Predictor:
    found = Predictor.load(bundle_folder)
    found.warm_up()
    return found


@pytest.fixture(scope="module")
def alone(predictor: Predictor, table: Table) -> list[float | None]:
    """The probability of each of 120 passengers, computed by itself."""
    return [predictor.predict([one])[0].probability for one in table.rows[:120]]


def test_a_probability_does_not_depend_on_its_company(
    predictor: Predictor, table: Table, alone: list[float | None]
) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows = rng.integers(0, 120, rng.choice((2, 3, 5, 11, 12, 17, 33, 64, 90)))
        batch = [table.rows[row] for row in rows]
        for row, prediction in zip(rows, predictor.predict(batch), strict=True):
            assert prediction.probability == pytest.approx(alone[row], abs=1e-5)


FORKING = """
import os, sys
from models.engines.engine import EngineError
from models.predictor import Predictor

def load():
    return Predictor.load(sys.argv[1], engine=sys.argv[2])

predictor = load()
row = predictor.rows.typical()
wanted = predictor.predict([row])
child = os.fork()
if child == 0:
    try:
        predictor.predict([row])
    except EngineError as error:
        print(error, load().predict([row]) == wanted, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("engine", [name for name in ENGINES if name != "mlx"])
def test_after_a_fork_the_child_is_told_to_load_again(engine: str, bundle_folder: Path) -> None:
    command = [sys.executable, "-c", FORKING, str(bundle_folder), engine]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    expected = "after a fork the engine's threads are not in the child: load the bundle there again True\n"
    assert (done.stdout, done.stderr) == (expected, "")


def test_reading_ahead_changes_nothing(predictor: Predictor, table: Table) -> None:
    batch = [*table.rows[:30], *table.rows[10:20]]
    assert predictor.predict_checked(batch, predictor.encode(batch)) == predictor.predict(batch)
    assert predictor.predict_checked([], []) == []


def test_a_remembered_answer_is_the_same(bundle_folder: Path, table: Table) -> None:
    lookups: list[tuple[int, int]] = []
    predictor = Predictor.load(bundle_folder, LogitCache(100, lambda *counts: lookups.append(counts)))
    batch = [table.rows[0], table.rows[1], table.rows[0]]
    first = predictor.predict(batch)
    assert predictor.predict_checked(batch, predictor.encode(batch)) == first
    assert predictor.predict(batch) == first
    assert lookups == [(0, 2), (2, 0), (2, 0)]


def test_passengers_longer_than_any_seen_are_answered(predictor: Predictor) -> None:
    odd = Passenger(pclass=1, sex="female", name="x" * 200, age=120, sibsp=20, parch=20, fare=1000, cabin="Z" * 50)
    assert 0 < predictor.predict([odd])[0].probability < 1


# Any passengers, by the real predictor of a bundle of four dimensions


@pytest.fixture(scope="module")
def tiny(tiny_bundle: Bundle) -> Predictor:
    return Predictor.load(tiny_bundle.folder)


def check(passenger: Any, prediction: Prediction) -> None:
    """What holds of one prediction whoever the passenger is."""
    p, told = prediction.probability, prediction.confidence
    assert math.isfinite(p)
    assert 0 < p < 1
    assert prediction.outcome == LABELS[p >= 0.5]
    low, high = told.interval
    assert 0 <= low <= p <= high <= 1
    assert set(told.prediction_set) <= set(LABELS)
    assert told.prediction_set == tuple(sorted(told.prediction_set))
    assert told.abstain == (len(told.prediction_set) != 1)
    assert told.margin == pytest.approx(2 * max(p, 1 - p) - 1)
    assert 0 <= told.entropy_bits <= 1 + 1e-12
    assert told.entropy_bits == pytest.approx(entropy_bits((1 - p, p)), abs=1e-9)
    assert (told.entropy_bits > 0.99) <= (told.margin < 0.2)
    assert 0 < told.typicality <= 1
    assert told.calibration[0].probability == told.uncalibrated_probability
    assert told.calibration[-1].probability == p
    assert all(0 < step.probability < 1 for step in told.calibration)
    assert len(set(told.warnings)) == len(told.warnings)
    assert all(getattr(passenger, one.field) is not None for one in told.warnings)


def alike(one: Prediction, other: Prediction) -> bool:
    """Equal but for the rounding of float32 in other company."""
    exact = [(found.confidence.typicality, found.confidence.warnings) for found in (one, other)]
    return exact[0] == exact[1] and math.isclose(one.probability, other.probability, abs_tol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(PASSENGERS, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_any_passengers_have_answers_that_are_theirs_in_any_order_and_batch(
    tiny: Predictor, passengers: list[Any], rng: random.Random
) -> None:
    together = tiny.predict(passengers)
    assert len(together) == len(passengers)
    for passenger, prediction in zip(passengers, together, strict=True):
        check(passenger, prediction)
        assert alike(tiny.predict([passenger])[0], prediction)
    order = list(range(len(passengers)))
    rng.shuffle(order)
    for row, prediction in zip(order, tiny.predict([passengers[row] for row in order]), strict=True):
        assert alike(prediction, together[row])
    cut = rng.randrange(len(passengers) + 1)
    parts = [*tiny.predict(passengers[:cut]), *tiny.predict(passengers[cut:])]
    assert all(alike(one, other) for one, other in zip(parts, together, strict=True))
    again = tiny.predict([msgspec.json.decode(msgspec.json.encode(one)) for one in passengers])
    assert all(alike(one, other) for one, other in zip(again, together, strict=True))


def test_the_stages_of_a_prediction_are_those_that_it_needs(bundle_folder: Path) -> None:
    predictor = Predictor.load(bundle_folder, LogitCache(100))

    def stages(rows: Sequence[Passenger], **more: Any) -> list[str]:
        found: list[Stage] = []
        predictor.predict_checked(rows, stages=found, **more)
        assert all(one.began <= one.ended for one in found)
        assert all(first.ended <= then.began for first, then in pairwise(found))
        return [one.name for one in found]

    new = [Passenger(pclass=1, sex="male", age=71.5), Passenger(pclass=1, sex="male", age=0.5)]
    assert stages(new[:1]) == ["tokenise", "inference", "diagnostics"]
    assert stages(new[:1]) == ["diagnostics"]
    assert stages(new, encoded=predictor.encode(new)) == ["inference", "diagnostics"]
    assert stages([]) == []
