"""Adaptive conformal inference: the long-run guarantee against an adversary, and coverage under a shift."""

import numpy as np
import pytest

from models.calibration.adaptive_sets import GAMMA, AdaptiveThresholds, bound


def run(scores: object, rows: int, thresholds: list[float], coverage: float = 0.9) -> AdaptiveThresholds:
    """Outcomes of class 1, whose score ``scores`` chooses by the threshold that it will meet."""
    adaptive, rng = AdaptiveThresholds.begin(2), np.random.default_rng(0)
    for turn in range(rows):
        own = thresholds[turn % len(thresholds)]
        adaptive.observe(1, scores(own + adaptive.shifts[1], turn, rng), own, coverage)  # type: ignore[operator]
        assert abs(adaptive.missed[1] / (turn + 1) - (1 - coverage)) <= bound(thresholds, turn + 1) + 1e-12
        assert -max(thresholds) - GAMMA <= adaptive.shifts[1] <= 1 - min(thresholds) + GAMMA
    return adaptive


def above(threshold: float, turn: int, rng: np.random.Generator) -> float:
    """An adversary: just beyond the threshold wherever a score can be."""
    return min(1.0, max(0.0, threshold + 1e-9))


def in_phases(threshold: float, turn: int, rng: np.random.Generator) -> float:
    """Long stretches of always and never covered."""
    return above(threshold, turn, rng) if turn // 700 % 2 else 0.0


def by_chance(threshold: float, turn: int, rng: np.random.Generator) -> float:
    return float(rng.random())


@pytest.mark.parametrize("scores", [above, in_phases, by_chance])
@pytest.mark.parametrize("thresholds", [[0.6], [0.0], [1.0], [0.2, 0.9]])
def test_the_long_run_guarantee_whatever_comes(scores: object, thresholds: list[float]) -> None:
    adaptive = run(scores, 20_000, thresholds)
    assert adaptive.missed[1] / 20_000 == pytest.approx(0.1, abs=0.011)
    assert (adaptive.outcomes, adaptive.shifts[0]) == ([0, 20_000], 0.0)


def test_coverage_comes_back_after_a_shift() -> None:
    rng, adaptive = np.random.default_rng(1), AdaptiveThresholds.begin(2)
    before = rng.beta(2, 5, 5000)
    threshold = float(np.quantile(before, 0.9))
    after = rng.beta(4, 3, 5000)
    assert np.mean(after > threshold) > 0.4
    for score in (*before.tolist(), *after.tolist()):
        adaptive.observe(1, score, threshold, 0.9)
    assert np.mean(after > threshold + adaptive.shifts[1]) == pytest.approx(0.1, abs=0.05)
