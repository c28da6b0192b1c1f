"""Logits → predictions: diagnostics that agree, guarantees that a prior shift keeps, and bins that nobody redoes."""

import math
import random
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from models.bins.input_binner import InputBinner
from models.bundle.read import Bundle, open_bundle
from models.calibration.confidence import CalibrationRecord, Confidence
from models.calibration.logit import class_probabilities, logit, sigmoid
from models.calibration.maps import CalibrationMap, Temperature
from models.calibration.prior_shift import PriorShift
from models.prediction import Diagnosis, Prediction
from models.predictor import Predictor
from models.reference import PredictionBins, Reference, build_reference, probability_bins
from tests import penguins
from tests.models.calibration.test_confidence import drawn
from tests.models.conftest import pairs
from tests.titanic import SCHEMA
from training.calibrate.maps import fit_venn_abers
from training.calibrate.record import fit_typicality
from training.calibrate.sets import fit_sets
from training.calibrate.sets_choice import SetsBy
from training.data.table import Table

BINS = InputBinner(SCHEMA)


def predictions_from_logits(
    record: CalibrationRecord, reference: Reference, z: np.ndarray, rows: Sequence[Any], texts: Sequence[str]
) -> list[Prediction]:
    return Diagnosis(record, reference, SCHEMA).predictions(pairs(z), rows, texts)


def diagnose(
    record: CalibrationRecord, reference: Reference, logits: np.ndarray, rows: Sequence[Any]
) -> tuple[np.ndarray, list[Confidence]]:  # fmt: skip
    found = predictions_from_logits(record, reference, logits, rows, [""] * len(rows))
    return np.array([one.probability for one in found]), [one.confidence for one in found]


def test_a_prediction_carries_what_it_was_made_of(record: CalibrationRecord, table: Table) -> None:
    z, passengers = np.linspace(-6, 6, 60), table.rows[:60]
    texts = [f"text {row}" for row in range(60)]
    reference = build_reference(sigmoid(z), passengers, SCHEMA)
    shift = PriorShift(training=0.384, target=0.1)
    shifted = msgspec.structs.replace(record, map=record.map.shifted(shift))
    plain = predictions_from_logits(record, reference, z, passengers, texts)
    moved = predictions_from_logits(shifted, reference, z, passengers, texts)
    assert [one.unshifted_probabilities for one in moved] == [one.probabilities for one in plain]
    for found, before in ((plain, plain), (moved, plain)):
        p = np.array([one.probability for one in found])
        assert [one.logits for one in found] == [(0.0, each) for each in z.tolist()]
        assert [one.log_odds for one in found] == z.tolist()
        assert [one.text for one in found] == texts
        assert [one.outcome for one in found] == np.take(SCHEMA.classes, p >= 0.5).tolist()
        assert [one.probabilities for one in found] == [(1 - q, q) for q in p.tolist()]
        assert [one.probability_bin for one in found] == probability_bins(p).tolist()
        assert [one.unshifted_bin for one in found] == [one.probability_bin for one in before]
        assert [list(one.input_bins) for one in found] == BINS.array(passengers).tolist()
    assert predictions_from_logits(record, reference, np.empty(0), [], []) == []


def test_diagnostics_are_consistent(record: CalibrationRecord, table: Table) -> None:
    z = np.linspace(-6, 6, 50)
    passengers = table.rows[:50]
    reference = build_reference(sigmoid(z), passengers, SCHEMA)
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
        (p0,), (p1,) = record.venn_abers.interval(z[row : row + 1])
        assert one.interval == (min(p0, p), max(p1, p))
        assert one.venn_abers == (p0, p1)
        assert one.typicality == record.typicality.p_values(BINS.array(passengers[row : row + 1]))[0]
        held = record.conformal.sets(class_probabilities(probabilities[row : row + 1]))[0]
        assert one.prediction_set == tuple(
            name for name, inside in zip(("died", "survived"), held, strict=True) if inside
        )
        assert one.warnings == reference.warnings(passengers[row])
    alone = diagnose(record, reference, z[7:8], passengers[7:8])
    assert alone[1][0] == confidences[7]


def test_the_set_of_a_row_is_that_of_its_group(record: CalibrationRecord, table: Table) -> None:
    passengers, z = table.rows[:200], np.random.default_rng(1).normal(-0.5, 1.5, 200)
    p = class_probabilities(record.map.probabilities(z))
    sets = SetsBy.of(passengers, SCHEMA, "sex").fit(p, table.labels[:200], 0.9)
    by_sex = msgspec.structs.replace(record, conformal=sets)
    found = diagnose(by_sex, build_reference(sigmoid(z), passengers, SCHEMA), z, passengers)[1]
    own = [sets.groups[passenger.sex] for passenger in passengers]
    expected = [
        tuple(name for name, q, most in zip(SCHEMA.classes, each, thresholds, strict=True) if 1 - q <= most)
        for each, thresholds in zip(p.tolist(), own, strict=True)
    ]
    assert [one.prediction_set for one in found] == expected
    assert sets.groups["male"] != sets.groups["female"]
    alone = diagnose(by_sex, build_reference(sigmoid(z), passengers, SCHEMA), z[5:6], passengers[5:6])[1]
    assert alone[0] == found[5]
    read = msgspec.json.decode(msgspec.json.encode(by_sex), type=CalibrationRecord)
    assert read == by_sex
    assert b'"by"' not in msgspec.json.encode(fit_sets(p, table.labels[:200], 0.9))


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=10), st.floats(0.05, 0.95), st.randoms(use_true_random=False))
def test_any_logits_have_diagnostics_that_agree(
    record: CalibrationRecord, table: Table, logits: list[float], target: float, rng: random.Random
) -> None:
    passengers = rng.sample(table.rows, len(logits))
    shifted = msgspec.structs.replace(record, map=record.map.shifted(PriorShift(training=0.384, target=target)))
    reference = build_reference(np.full(60, 0.5), table.rows[:60], SCHEMA)
    for one in (record, shifted):
        p, told = diagnose(one, reference, np.array(logits), passengers)
        assert ((p > 0) & (p < 1)).all()
        for probability, confidence, passenger in zip(p.tolist(), told, passengers, strict=True):
            low, high = confidence.interval
            assert 0 <= low <= probability <= high <= 1
            assert confidence.prediction_set in ((), ("died",), ("survived",), ("died", "survived"))
            assert confidence.abstain == (len(confidence.prediction_set) != 1)
            assert 0 <= confidence.entropy_bits <= 1 + 1e-12
            assert confidence.margin == pytest.approx(abs(probability - (1 - probability)))
            assert confidence.warnings == reference.warnings(passenger)
            assert [step.step for step in confidence.calibration[1:]] == [
                step.__struct_config__.tag for step in one.map.steps
            ]


@pytest.mark.parametrize("target", [0.1, 0.8])
def test_sets_cover_each_class_and_intervals_hold_the_rate_at_another_prevalence(table: Table, target: float) -> None:
    rng = np.random.default_rng(6)
    passengers = table.rows[:300]
    held: list[list[bool]] = [[], []]
    gaps = []
    for _ in range(60):
        z, y = drawn(rng, 300, 0.4)
        sets = fit_sets(class_probabilities(sigmoid(z)), y, 0.9)
        map_ = CalibrationMap((Temperature(1.0), PriorShift(training=0.4, target=target)))
        record = CalibrationRecord(
            rows=300, map=map_, candidates=(), venn_abers=fit_venn_abers(z, y), conformal=sets,
            typicality=fit_typicality(passengers, SCHEMA, rng),
        )  # fmt: skip
        new, labels = drawn(rng, 300, target)
        p, found = diagnose(record, build_reference(sigmoid(new), passengers, SCHEMA), new, passengers)
        for label, name in enumerate(("died", "survived")):
            held[label] += [name in one.prediction_set for one, y in zip(found, labels, strict=True) if y == label]
        low, high = np.array([one.interval for one in found]).T
        assert ((low <= p) & (p <= high)).all()
        gaps.append([(labels - low).mean(), (high - labels).mean()])
    for label in (0, 1):
        assert np.mean(held[label]) == pytest.approx(0.9, abs=0.015)
    mean, error = np.mean(gaps, axis=0), np.std(gaps, axis=0, ddof=1) / math.sqrt(len(gaps))
    assert (mean > -4 * error).all()


def test_a_shift_moves_probability_and_interval_but_not_sets_or_typicality(
    record: CalibrationRecord, table: Table
) -> None:
    z, passengers = np.linspace(-6, 6, 80), table.rows[:80]
    reference = build_reference(sigmoid(z), passengers, SCHEMA)
    shift = PriorShift(training=0.384, target=0.1)
    shifted = msgspec.structs.replace(record, map=record.map.shifted(shift))
    (p, plain), (q, moved) = diagnose(record, reference, z, passengers), diagnose(shifted, reference, z, passengers)
    assert logit(q) == pytest.approx(logit(p) + shift.shift)
    for one, other, probability in zip(plain, moved, q.tolist(), strict=True):
        assert [step.step for step in other.calibration] == [*(step.step for step in one.calibration), "prior_shift"]
        assert other.calibration[:-1] == one.calibration
        assert other.calibration[-1].probability == probability
        assert other.interval == pytest.approx(shift.probabilities(np.array(one.interval)).tolist(), abs=1e-12)
        assert other.interval[0] <= probability <= other.interval[1]
        assert (other.prediction_set, other.abstain) == (one.prediction_set, one.abstain)
        assert other.typicality == one.typicality
        assert other.margin == pytest.approx(abs(2 * probability - 1))


# More than two classes


@pytest.fixture(scope="module")
def penguins_found(penguins_bundle: Bundle) -> list[Prediction]:
    return Predictor.load(penguins_bundle.folder).predict(penguins.table().rows)


def test_of_more_classes_each_is_told_by_name(penguins_found: list[Prediction], penguins_bundle: Bundle) -> None:
    names = penguins.SPECIES
    for one in penguins_found:
        p, told = one.probabilities, one.confidence
        assert one.probability is None
        assert math.fsum(p) == pytest.approx(1, abs=1e-12)
        assert one.outcome == names[max(range(3), key=lambda k: (p[k], k))]
        assert one.probability_bin == one.unshifted_bin == PredictionBins(names).of_row(p)
        assert one.unshifted_probabilities == p
        assert told.margin == pytest.approx(sorted(p)[2] - sorted(p)[1])
        assert told.entropy_bits == pytest.approx(float(scipy.stats.entropy(p, base=2)))
        assert tuple(told.intervals) == tuple(told.uncalibrated_probabilities) == names
        assert all(low <= q <= high for q, (low, high) in zip(p, told.intervals.values(), strict=True))
        raw = np.array(one.logits)
        assert list(told.uncalibrated_probabilities.values()) == pytest.approx(scipy.special.softmax(raw))
        assert told.calibration[0].probabilities == told.uncalibrated_probabilities
        assert tuple(told.calibration[-1].probabilities.values()) == p
        thresholds = penguins_bundle.record.conformal.thresholds
        assert told.prediction_set == tuple(n for n, q, t in zip(names, p, thresholds, strict=True) if 1 - q <= t)
    assert {one.outcome for one in penguins_found} == set(names)


def test_the_wire_holds_what_applies_alone(penguins_found: list[Prediction], tiny_bundle: Bundle) -> None:
    common = {
        "prediction_set",
        "coverage",
        "margin",
        "entropy_bits",
        "typicality",
        "abstain",
        "calibration",
        "warnings",
    }
    many = msgspec.json.decode(msgspec.json.encode(penguins_found[0].confidence))
    assert set(many) == common | {"intervals", "venn_abers", "uncalibrated_probabilities"}
    assert all(set(step) == {"step", "probabilities"} for step in many["calibration"])
    assert msgspec.json.decode(msgspec.json.encode(many), type=Confidence) == penguins_found[0].confidence
    (two,) = Predictor.load(tiny_bundle.folder).predict([{"pclass": 3, "sex": "male"}])
    assert list(msgspec.to_builtins(two.confidence)) == [
        "interval", "venn_abers", "prediction_set", "coverage", "margin", "entropy_bits", "typicality", "abstain",
        "uncalibrated_probability", "calibration", "warnings",
    ]  # fmt: skip
    assert all(list(msgspec.to_builtins(step)) == ["step", "probability"] for step in two.confidence.calibration)


def test_a_row_is_predicted_alike_alone_and_among_others(
    penguins_found: list[Prediction], penguins_bundle: Bundle
) -> None:
    rows, logits = penguins.table().rows, np.array([one.logits for one in penguins_found])
    bundle, tokenizer, _ = open_bundle(penguins_bundle.folder)
    diagnosis = Diagnosis(bundle.record, bundle.reference, bundle.schema, tokenizer)
    for at in range(0, len(rows), 17):
        (alone,) = diagnosis.predictions(logits[at : at + 1], rows[at : at + 1], [penguins_found[at].text])
        assert alone == penguins_found[at]
    assert diagnosis.predictions(np.empty((0, 3)), [], []) == []


@given(st.lists(st.floats(-1e12, 1e12), min_size=3, max_size=3))
def test_any_logits_of_three_classes_give_probabilities(penguins_bundle: Bundle, logits: list[float]) -> None:
    bundle, tokenizer, _ = open_bundle(penguins_bundle.folder)
    diagnosis = Diagnosis(bundle.record, bundle.reference, bundle.schema, tokenizer)
    (one,) = diagnosis.predictions(np.array([logits]), penguins.table(1).rows, [""])
    assert all(0 < p < 1 for p in one.probabilities)
    assert math.fsum(one.probabilities) == pytest.approx(1, abs=1e-12)
    assert all(0 <= low <= high <= 1 for low, high in one.confidence.intervals.values())
    assert 0 <= one.confidence.entropy_bits <= math.log2(3) + 1e-12
