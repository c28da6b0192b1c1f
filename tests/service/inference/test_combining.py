"""Replicas' evidence put together: the mean keeps the run length in the rows of a replica, whatever ties replicas."""

from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from benchmarks.replica_evidence import alarms, run_lengths
from service.drift.detectors import CalibrationDetector

REPLICAS, RUNS, RUN_LENGTH = 8, 300, 150.0


def lengths(**changed: Any) -> dict[str, np.ndarray]:
    settings: dict[str, Any] = {
        "replicas": REPLICAS, "runs": RUNS, "run_length": RUN_LENGTH, "reference_rows": 891, "longest": 900,
        "rng": np.random.default_rng(5),
    }  # fmt: skip
    return run_lengths(**settings | changed)


def bound(rows: np.ndarray, side: int) -> float:
    """Lower (−1) or upper (1) 99 % bound of the mean."""
    return float(rows.mean() + side * 2.33 * rows.std(ddof=1) / np.sqrt(len(rows)))


@pytest.mark.parametrize("changed", [{}, {"reference_rows": 12}, {"same_rows": True}], ids=str)
def test_the_mean_keeps_the_run_length_of_a_replica_and_the_others_do_not(changed: dict[str, Any]) -> None:
    found = lengths(**changed)
    assert bound(found["mean"], -1) >= RUN_LENGTH
    assert bound(found["one alone"], -1) >= RUN_LENGTH
    for rule in ("any", "sum", "product"):
        assert bound(found[rule], 1) < RUN_LENGTH
    # The sum keeps it in the rows of all, and so does what alarms later than the sum.
    assert bound(REPLICAS * found["sum"], -1) >= RUN_LENGTH
    assert (found["any"] >= found["sum"]).all()
    assert bound(REPLICAS * found["product"], 1) < RUN_LENGTH


def test_the_mean_is_that_of_the_sums_and_overflows_nowhere() -> None:
    sums = np.array([[[0.0, 3.0, 8.0]], [[1e100, 1e100, 1e100]]])
    for sum_, threshold in ((sums[:1], 11 / 3), (sums[1:], 1e100)):
        assert alarms(sum_, threshold * (1 - 1e-9))["mean"].all()
        assert not alarms(sum_, threshold * (1 + 1e-9))["mean"].any()
    assert logsumexp(np.log1p(sums[0, 0])) - np.log(3) == pytest.approx(np.log1p(11 / 3))


def outcomes_to_alarm(seed: int, run_length: float, longest: int) -> int:
    """Outcomes until the mean of three replicas alarms: all get the same ones, and serve what is true."""
    rng = np.random.default_rng(seed)
    detectors = [CalibrationDetector(0.0) for _ in range(3)]
    for row in range(1, longest):
        p = rng.uniform(0.2, 0.8)
        survived = bool(rng.random() < p)
        if np.mean([one.observe(p, survived) for one in detectors]) >= run_length:
            return row
    return longest


def test_so_it_is_with_outcomes_though_every_replica_gets_the_same() -> None:
    times = np.array([outcomes_to_alarm(seed, 60.0, 360) for seed in range(60)])
    assert bound(times, -1) >= 60
