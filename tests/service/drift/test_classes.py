"""The monitor and the report of three classes, over penguins with a made-up model of bills and flippers."""

import json
from typing import Any

import msgspec
import numpy as np
import pytest

from models.bundle.manifest import DataRecord
from models.bundle.read import Bundle
from models.prediction import Prediction
from models.reference import PROBABILITY_BINS, PredictionBins, build_reference
from service.drift import report as diagnosis
from service.drift.monitor import DriftMonitor
from service.drift.report import DriftReport
from service.drift.saved_state import StateError
from tests import penguins
from tests.service.predictions import prediction_of

SPECIES = penguins.SPECIES
SHARES = np.array([0.36, 0.44, 0.2])
"""Of `penguins.table`."""
WIDTHS = np.array([4.0, 9.0])
ROWS = 900


class Pool:
    """Rows, labels, calibrated probabilities (n, 3) and predictions."""

    def __init__(self, seed: int):
        made = penguins.table(ROWS, seed)
        self.rows, self.labels = made.rows, np.asarray(made.labels)
        rng = np.random.default_rng(seed)
        centres = np.array([penguins.MEANS[name] for name in SPECIES])
        seen = centres[self.labels] + WIDTHS * rng.normal(size=(ROWS, 2))
        likelihood = np.exp(-(((seen[:, None] - centres) / WIDTHS) ** 2).sum(axis=2) / 2) * SHARES
        self.p = likelihood / likelihood.sum(axis=1, keepdims=True)
        self.predictions = [
            prediction_of(p, row, penguins.SCHEMA) for p, row in zip(self.p.tolist(), self.rows, strict=True)
        ]

    def draw(self, count: int, seed: int, shares: np.ndarray | None = None) -> list[Prediction]:
        """Predictions drawn with replacement, with these shares of the classes."""
        rng = np.random.default_rng(seed)
        if shares is None:
            return [self.predictions[one] for one in rng.integers(0, ROWS, count)]
        labels = rng.choice(3, count, p=shares)
        places = [np.flatnonzero(self.labels == label) for label in range(3)]
        return [self.predictions[rng.choice(places[label])] for label in labels]


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(1)


@pytest.fixture(scope="module")
def bundle(penguins_bundle: Bundle) -> Bundle:
    other = Pool(2)
    data = DataRecord("0" * 64, ROWS, dict(zip(SPECIES, np.bincount(other.labels).tolist(), strict=True)))
    origin = msgspec.structs.replace(penguins_bundle.manifest.origin, data=data)
    return msgspec.structs.replace(
        penguins_bundle, reference=build_reference(other.p, other.rows, penguins.SCHEMA),
        manifest=msgspec.structs.replace(penguins_bundle.manifest, origin=origin),
    )  # fmt: skip


def make(bundle: Bundle, seed: int = 0) -> DriftMonitor:
    return DriftMonitor(bundle, 1e7, 0.05, np.random.default_rng(seed))


def as_sent(report: DriftReport) -> Any:
    return json.loads(msgspec.json.encode(report))


def test_rows_like_the_reference_raise_no_alarm(bundle: Bundle, pool: Pool) -> None:
    drift = make(bundle)
    drift.predicted(pool.draw(8000, 3))
    assert not drift.alarmed("prediction")
    assert not drift.alarmed("input")
    found = as_sent(diagnosis.report(drift))
    assert found["summary"] == "no drift test alarms"


def test_swapped_shares_of_two_classes_are_seen_and_explained(bundle: Bundle, pool: Pool) -> None:
    at = []
    for seed in range(5):
        drift = make(bundle, seed)
        drift.predicted(pool.draw(3000, seed + 10, SHARES[[0, 2, 1]]))
        assert drift.alarmed("prediction")
        at.append(drift.alarms["prediction"].at)
    assert np.median(at) < 700
    found = as_sent(diagnosis.report(drift))
    causes = {one["cause"]: one for one in found["causes"]}
    assert causes["base_rate"]["found"] is True
    assert "if penguins of each class look as they did" in causes["base_rate"]["evidence"]
    assert "--target-prevalence" not in causes["base_rate"]["evidence"]
    shares = found["estimates"]["prior_shift_prevalences"]
    assert [shares[name]["value"] for name in SPECIES] == pytest.approx(SHARES[[0, 2, 1]].tolist(), abs=0.05)


def test_the_report_is_by_class(bundle: Bundle, pool: Pool) -> None:
    drift, rng = make(bundle), np.random.default_rng(5)
    drift.predicted(pool.predictions)
    outcomes = [(tuple(p), int(rng.choice(3, p=p))) for p in pool.p.tolist()]
    drift.outcomes(outcomes)
    found = as_sent(diagnosis.report(drift))
    assert not {"positive", "reliability"} & set(found)
    estimates = found["estimates"]
    assert set(estimates) == {
        "rows", "expected_accuracy", "expected_prevalences", "prior_shift_prevalences", "prior_shift_fit",
        "baseline_prevalences",
    }  # fmt: skip
    for name in ("expected_prevalences", "prior_shift_prevalences"):
        assert list(estimates[name]) == list(SPECIES)
        assert sum(one["value"] for one in estimates[name].values()) == pytest.approx(1)
    assert [one["value"] for one in estimates["expected_prevalences"].values()] == pytest.approx(
        pool.p.mean(axis=0).tolist(), abs=1e-6
    )
    assert estimates["expected_accuracy"]["value"] == pytest.approx(pool.p.max(axis=1).mean(), abs=1e-6)
    assert sum(estimates["baseline_prevalences"].values()) == pytest.approx(1)
    cells = PredictionBins(SPECIES)
    assert [one["bin"] for one in found["distributions"][0]["bins"]] == list(cells.names)
    live = np.bincount(cells.of(pool.p), minlength=len(cells.names)) / ROWS
    assert [one["live"] for one in found["distributions"][0]["bins"]] == pytest.approx(live.tolist())
    labels = np.array([label for _, label in outcomes])
    for number, name in enumerate(SPECIES):
        tenths = np.minimum((pool.p[:, number] * 10).astype(int), 9)
        for bin, said in enumerate(found["reliabilities"][name]):
            held = tenths == bin
            assert (said["bin"], said["outcomes"]) == (PROBABILITY_BINS[bin], held.sum())
            assert said["positive"] == (labels[held] == number).sum()
            if held.any():
                assert said["probability"] == pytest.approx(pool.p[held, number].mean())
        for actual, other in enumerate(SPECIES):
            expected = ((pool.p.argmax(axis=1) == number) & (labels == actual)).sum()
            assert found["confusion"][other][name] == expected


def test_outcomes_that_contradict_the_probabilities_raise_an_alarm(bundle: Bundle, pool: Pool) -> None:
    rng, true, wrong = np.random.default_rng(6), make(bundle), make(bundle)
    for p in pool.p[rng.integers(0, ROWS, 2000)]:
        true.outcomes([(p.tolist(), int(rng.choice(3, p=p)))])
        # The first and the last are taken for each other.
        wrong.outcomes([(p[::-1].tolist(), int(rng.choice(3, p=p)))])
    assert not true.alarms
    assert wrong.alarms["calibration"].at < 300


def test_a_restart_goes_on_exactly(bundle: Bundle, pool: Pool) -> None:
    drift, twin = make(bundle), make(bundle, seed=9)
    drift.predicted(pool.draw(7000, 7))
    drift.outcomes([((0.2, 0.7, 0.1), 1), ((0.3, 0.3, 0.4), 0)])
    twin.restore(drift.snapshot())
    for one in (drift, twin):
        one.predicted(pool.draw(100, 8))
        one.outcomes([((0.5, 0.25, 0.25), 2)])
    found, again = as_sent(diagnosis.report(drift)), as_sent(diagnosis.report(twin))
    assert again["reliabilities"] == found["reliabilities"]
    assert again["confusion"] == found["confusion"]
    assert again["distributions"] == found["distributions"]
    assert [one["log_evidence"] for one in again["streams"]] == [one["log_evidence"] for one in found["streams"]]
    assert again["estimates"]["rows"] == found["estimates"]["rows"]
    for name in ("expected_prevalences", "prior_shift_prevalences"):
        for species in SPECIES:
            # A state holds probabilities as float16.
            assert again["estimates"][name][species]["value"] == pytest.approx(
                found["estimates"][name][species]["value"], abs=1e-3
            )


@pytest.mark.parametrize(
    "change", [{"probabilities": ["AAAA"]}, {"confusion": [[1]]}, {"outcome_tenths": [[1.0]]}, {"calibration_sums": []}]
)
def test_a_state_of_another_form_is_refused_whole(bundle: Bundle, pool: Pool, change: dict[str, Any]) -> None:
    drift, twin = make(bundle), make(bundle)
    drift.predicted(pool.draw(200, 9))
    state = json.loads(drift.snapshot()) | change
    before = twin.snapshot()
    with pytest.raises(StateError):
        twin.restore(json.dumps(state).encode())
    assert twin.snapshot() == before
