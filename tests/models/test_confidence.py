"""Each diagnostic's guarantee by simulation, and against brute force."""

import math

import msgspec
import numpy as np
import pytest

from models.calibration import sigmoid
from models.confidence import CalibrationRecord, Typicality, diagnose, entropy_bits, input_bins
from models.passenger import Passenger
from models.reference import build_reference
from training.calibrate import fit_record, fit_sets, fit_typicality
from training.data import Table


@pytest.fixture(scope="module")
def record(table: Table) -> CalibrationRecord:
    z = np.random.default_rng(0).normal(size=len(table)) + 2.0 * (table.labels - 0.5)
    return fit_record(z, table.labels, table.passengers, inverse=None, coverage=0.9, seed=0)


@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_cover_each_class_on_fresh_rows(coverage: float) -> None:
    rng = np.random.default_rng(1)
    held: list[list[float]] = [[], []]
    for _ in range(300):
        z = rng.normal(-0.5, 1.5, 700)
        p, y = sigmoid(1.7 * z), (rng.random(700) < sigmoid(z)).astype(int)
        sets = fit_sets(p[:500], y[:500], coverage).sets(p[500:])
        for label in (0, 1):
            held[label] += sets[y[500:] == label, label].tolist()
    for label in (0, 1):
        assert np.mean(held[label]) == pytest.approx(coverage, abs=0.012)


def test_too_few_rows_of_a_class_give_a_set_that_always_holds_it() -> None:
    sets = fit_sets(np.array([0.1, 0.2, 0.9]), np.array([0, 0, 1]), 0.9)
    assert sets.sets(np.array([0.001, 0.999]))[:, 1].all()


def test_typicality_equals_brute_force(table: Table) -> None:
    bag = input_bins(table.passengers[:80])
    typicality = fit_typicality(table.passengers[:80])
    fresh = input_bins(table.passengers[80:120])
    for row, found in zip(fresh, typicality.p_values(fresh), strict=True):
        whole = np.vstack([bag, row])
        scores = np.zeros(len(whole))
        for column in whole.T:
            scores -= np.log(np.array([(column == one).mean() for one in column]))
        assert found == pytest.approx((scores >= scores[-1] - 1e-9).sum() / len(whole))


def test_typicality_of_fresh_rows_is_a_p_value(table: Table) -> None:
    rows = input_bins(table.passengers)
    rng, found = np.random.default_rng(2), []
    for _ in range(40):
        order = rng.permutation(len(rows))
        patterns, weights = np.unique(rows[order[:700]], axis=0, return_counts=True)
        bag = Typicality(tuple(map(tuple, patterns.tolist())), tuple(weights.tolist()))
        found.append(bag.p_values(rows[order[700:]]))
    p = np.concatenate(found)
    for level in (0.05, 0.1, 0.3, 0.6):
        # Super-uniform, within four standard errors of the 891 rows' own sampling.
        assert (p <= level).mean() <= level + 4 * math.sqrt(level * (1 - level) / len(rows))


def test_an_odd_passenger_is_untypical(record: CalibrationRecord, table: Table) -> None:
    odd = Passenger(pclass=1, sex="male", age=1, sibsp=8, parch=9, fare=900, embarked="Q")
    common = Passenger(pclass=3, sex="male", name="A, Mr. B", age=28, fare=7.5, ticket="1", embarked="S")
    low, high = record.typicality.p_values(input_bins([odd, common]))
    assert low < 0.01
    assert high > 0.5


def test_diagnose_is_consistent(record: CalibrationRecord, table: Table) -> None:
    z = np.linspace(-6, 6, 50)
    passengers = table.passengers[:50]
    reference = build_reference(sigmoid(z), passengers)
    probabilities, confidences = diagnose(record, reference, z, passengers)
    for row, (p, one) in enumerate(zip(probabilities, confidences, strict=True)):
        assert one.interval[0] <= p <= one.interval[1]
        assert one.calibration[0].step == "model"
        assert one.calibration[0].probability == one.uncalibrated_probability == sigmoid(z[row])
        assert one.calibration[-1].probability == p
        assert one.margin == pytest.approx(abs(2 * p - 1))
        assert one.entropy_bits == pytest.approx(-p * np.log2(p) - (1 - p) * np.log2(1 - p))
        assert one.abstain == (len(one.prediction_set) != 1)
        assert one.coverage == 0.9
    alone = diagnose(record, reference, z[7:8], passengers[7:8])
    assert alone[1][0] == confidences[7]


def test_entropy_at_the_edges() -> None:
    assert entropy_bits(0.5) == pytest.approx(1.0)
    assert 0 <= entropy_bits(1e-300) < 1e-290


def test_the_record_survives_json(record: CalibrationRecord) -> None:
    assert msgspec.json.decode(msgspec.json.encode(record), type=CalibrationRecord) == record


def test_a_pattern_outside_the_bins_is_refused() -> None:
    with pytest.raises(ValueError, match="outside its field's bins"):
        Typicality(((0, 0, 0, 0, 0, 0, 0, 0, 0, 7),), (1,))
