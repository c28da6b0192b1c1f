"""What online recalibration gains under a shift, and costs without one; written into docs/outcomes.md.

./run bench online_shift            about half a minute
./run bench online_shift --quick    whether it runs; prints only

Simulated, since the truth must be known: a row's log-odds by the bundle are z ~ N(−0.5, 1.6²), by the truth
slope · z + offset. The bundle's thresholds come from 900 rows of before the shift. Each outcome is known before the
next row is predicted; the learners are the service's own.
"""

import argparse
import math
import sys
from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.harness.machine import ROOT
from benchmarks.harness.tables import table
from models.calibration.adaptive_sets import AdaptiveThresholds
from models.calibration.logit import sigmoid
from models.calibration.online import OnlinePlatt

PAGE, BEGIN, END = ROOT / "docs" / "outcomes.md", "<!-- online_shift -->\n", "<!-- end of online_shift -->\n"
ROWS, CALIBRATION_ROWS, REPETITIONS, COVERAGE = 6000, 900, 100, 0.9
SECOND_HALF = slice(ROWS // 2, None)

Truth = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Time (n,) from 0 to 1 → the slopes and offsets (n,) of the truth."""


def _still(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ones_like(time), np.zeros_like(time)


def _base_rate(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.ones_like(time), np.where(time < 0.5, 0.0, 1.0)


def _too_sure(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.where(time < 0.5, 1.0, 0.5), np.zeros_like(time)


def _slow(time: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return 1 - 0.4 * time, 1.2 * time


TRUTHS: dict[str, Truth] = {
    "none": _still, "abrupt: offset 1 from the half on": _base_rate, "abrupt: slope 0.5 from the half on": _too_sure,
    "slow: slope to 0.6, offset to 1.2": _slow,
}  # fmt: skip


def draw(truth: Truth, rows: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The bundle's probabilities (n,) of rows in the order of time, and their outcomes (n,) bool."""
    z = rng.normal(-0.5, 1.6, rows)
    slope, offset = truth(np.arange(rows) / rows)
    return sigmoid(z), rng.random(rows) < sigmoid(slope * z + offset)


def bundle_thresholds(rng: np.random.Generator) -> list[float]:
    """The thresholds of both classes, at the ⌈(n + 1) · coverage⌉-th score of each."""
    p, y = draw(_still, CALIBRATION_ROWS, rng)
    scores = [np.sort(p[~y]), np.sort(1 - p[y])]
    return [float(own[math.ceil((len(own) + 1) * COVERAGE) - 1]) for own in scores]


def simulate(truth: Truth, rng: np.random.Generator) -> list[float]:
    """Log loss without and with the step, of all rows and of the second half; coverage without and with of the classes
    in the second half; size of the sets there without and with: (10,)."""
    thresholds = bundle_thresholds(rng)
    p, y = draw(truth, ROWS, rng)
    served, moved = np.empty(ROWS), np.empty((ROWS, 2))
    online, adaptive = OnlinePlatt(), AdaptiveThresholds.begin(2)
    for at, (own, came_true) in enumerate(zip(p.tolist(), y.tolist(), strict=True)):
        served[at], moved[at] = online.step.probability(own), np.add(thresholds, adaptive.shifts)
        online.observe(own, came_true)
        adaptive.observe(int(came_true), 1 - own if came_true else own, thresholds[came_true], COVERAGE)
    found = []
    for part in (slice(None), SECOND_HALF):
        found += [_log_loss(q[part], y[part]) for q in (p, served)]
    sets = [_members(p, np.broadcast_to(limits, (ROWS, 2)))[SECOND_HALF] for limits in (np.array(thresholds), moved)]
    late = y[SECOND_HALF]
    found += [float(members[late == label, label].mean()) for label in (0, 1) for members in sets]
    return [*found, *(float(members.sum(axis=1).mean()) for members in sets)]


def _log_loss(p: np.ndarray, y: np.ndarray) -> float:
    return float(-np.log(np.where(y, p, 1 - p)).mean())


def _members(p: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Which classes (n, 2) are in the sets."""
    return np.asarray(np.stack([p, 1 - p], axis=1) <= thresholds)


def measure(repetitions: int) -> str:
    """The table: means over the repetitions, with standard deviations between them."""
    head = [
        "shift", "log loss, all rows", "log loss, second half", "coverage of negatives, %", "of positives, %",
        "set size",
    ]  # fmt: skip
    lines = []
    for name, truth in TRUTHS.items():
        runs = np.array([simulate(truth, np.random.default_rng([3, number])) for number in range(repetitions)])
        gains = [_difference(runs[:, at + 1] - runs[:, at]) for at in (0, 2)]
        lines.append([name, *gains, *(_coverages(runs[:, at : at + 2]) for at in (4, 6)), _sizes(runs[:, 8:])])
    return table(head, lines)


def _difference(values: np.ndarray) -> str:
    return f"{values.mean():+.4f} ± {values.std():.4f}"


def _coverages(shares: np.ndarray) -> str:
    """Shares (n, 2) without and with."""
    without, moved = (f"{100 * each.mean():.1f} ± {100 * each.std():.1f}" for each in shares.T)
    return f"{without} → {moved}"


def _sizes(sizes: np.ndarray) -> str:
    return " → ".join(f"{each.mean():.2f}" for each in sizes.T)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="online_shift", description=__doc__.split("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help="few repetitions; prints only")
    options = parser.parse_args(arguments)
    text = measure(2 if options.quick else REPETITIONS)
    print(text)
    if not options.quick:
        head, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(head + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
