"""The calibration test of several classes against the one of two, its run length, and what it finds."""

import numpy as np
import pytest

from service.drift.classwise import ClasswiseCalibrationDetector, factors
from service.drift.detectors import MAX_SUM, CalibrationDetector

CLASSES = 5


def served(rng: np.random.Generator) -> np.ndarray:
    """Probabilities (5,) with room for the band below and above each."""
    p = np.full(CLASSES, 0.06) + 0.7 * rng.dirichlet(np.ones(CLASSES))
    return np.asarray(p / p.sum())


@pytest.mark.parametrize("band", [0.0, 0.05])
def test_each_class_is_bet_on_as_one_of_two(band: float) -> None:
    """Against as many tests of two classes, one for each class and one of the likeliest."""
    rng = np.random.default_rng(0)
    detector = ClasswiseCalibrationDetector(band, CLASSES)
    apart = [CalibrationDetector(band) for _ in range(CLASSES + 1)]
    for _ in range(200):
        p, label = rng.dirichlet(np.full(CLASSES, 0.4)), int(rng.integers(CLASSES))
        events = [(p[k], label == k) for k in range(CLASSES)] + [(p.max(), label == p.argmax())]
        evidence = [one.observe(float(q), bool(happened)) for one, (q, happened) in zip(apart, events, strict=True)]
        assert detector.observe(p.tolist(), label) == pytest.approx(np.mean(evidence))
    assert detector.sums == pytest.approx(np.stack([one.sums for one in apart]))
    detector.begin()
    assert not detector.sums.any()


@pytest.mark.parametrize("band", [0.0, 0.05, 0.2])
def test_no_rates_within_the_band_make_a_bet_favourable(band: float) -> None:
    rng = np.random.default_rng(1)
    for _ in range(100):
        p = rng.dirichlet(np.full(CLASSES, 0.5))
        one, other = rng.choice(CLASSES, 2, replace=False)
        move = min(band, p[other], 1 - p[one])
        truth = p + move * (np.eye(CLASSES)[one] - np.eye(CLASSES)[other])
        expected = sum(truth[k] * first_factors(p, k, band) for k in range(CLASSES))
        assert np.max(expected) <= 1 + 1e-12


def first_factors(p: np.ndarray, label: int, band: float) -> np.ndarray:
    detector = ClasswiseCalibrationDetector(band, len(p))
    detector.observe(p.tolist(), label)
    return detector.sums


def outcomes_to_alarm(seed: int, run_length: float, longest: int, change: np.ndarray) -> int:
    """Outcomes until the alarm at a band of ±.05 when the truth is ``change`` (5,) away from what is served."""
    rng, detector = np.random.default_rng(seed), ClasswiseCalibrationDetector(0.05, CLASSES)
    for t in range(1, longest + 1):
        p = served(rng)
        if detector.observe(p.tolist(), int(rng.choice(CLASSES, p=p + change))) >= run_length:
            return t
    return longest


EDGE = np.array([0.05, -0.05, 0.05, -0.05, 0.0])
"""As far from what is served as the band lets it be, so that as many bets as can are at a mean of 1."""


def lower_bound(times: np.ndarray, z: float) -> float:
    return float(times.mean() - z * times.std(ddof=1) / np.sqrt(len(times)))


def test_the_run_length_is_kept_at_the_edge_of_the_band() -> None:
    times = np.array([outcomes_to_alarm(seed, 50, 300, EDGE) for seed in range(150)])
    assert lower_bound(times, 2.33) >= 50


@pytest.mark.slow
def test_the_run_length_is_kept_at_the_edge_of_the_band_at_length() -> None:
    times = np.array([outcomes_to_alarm(seed, 200, 1200, EDGE) for seed in range(400)])
    assert lower_bound(times, 1.645) >= 200


def test_what_is_beyond_the_band_is_seen() -> None:
    """One class comes a fifth more often than said, another as much less."""
    p = np.full(CLASSES, 0.2)
    waits = []
    for seed in range(5):
        rng, detector = np.random.default_rng(seed), ClasswiseCalibrationDetector(0.05, CLASSES)
        truth = np.array([0.4, 0.05, 0.15, 0.2, 0.2])
        waits.append(
            next(t for t in range(1, 5000) if detector.observe(p.tolist(), int(rng.choice(CLASSES, p=truth))) >= 1e7)
        )
    assert np.median(waits) < 600


def test_over_confidence_is_seen_though_every_class_comes_as_often_as_said() -> None:
    rng, detector = np.random.default_rng(2), ClasswiseCalibrationDetector(0.05, CLASSES)
    evidence = 0.0
    for _ in range(1500):
        top = int(rng.integers(CLASSES))
        said, truth = (np.where(np.arange(CLASSES) == top, p, (1 - p) / 4) for p in (0.9, 0.7))
        evidence = max(evidence, detector.observe(said.tolist(), int(rng.choice(CLASSES, p=truth))))
    assert evidence > 1e7


def test_evidence_stays_finite_whatever_comes() -> None:
    detector = ClasswiseCalibrationDetector(0.0, 3)
    for _ in range(3000):
        assert np.isfinite(detector.observe([1e-6, 0.5 - 1e-6, 0.5], 0))
    assert detector.sums.max() == MAX_SUM
    assert np.isfinite(factors(np.array([0.0, 1.0]), np.array([True, False]), 0.0)).all()
