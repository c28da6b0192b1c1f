"""How soon the drift tests of five classes alarm, and how seldom falsely; written into docs/drift.md.

./run bench drift_classes            about four minutes
./run bench drift_classes --quick    whether it runs; prints only

The model is made up and calibrated: a row is normal about its class's centre in the plane, and its probabilities are
Bayes'. A run draws a reference of its own; the detectors are the service's, hundreds of runs side by side.
"""

import argparse
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.drift_power import PAGE
from benchmarks.harness.tables import table
from models.reference import PredictionBins
from service.drift.classwise import ClasswiseCalibrationDetector
from service.drift.detectors import RankDetector
from service.settings import Settings

BEGIN, END = "<!-- drift_classes -->\n", "<!-- end of drift_classes -->\n"
SHARES = np.array([0.35, 0.25, 0.2, 0.15, 0.05])
CENTRES = 1.6 * np.array([[0, 0], [1, 0.2], [0, 1.3], [-1, -0.4], [0.8, -1.2]])
CLASSES = tuple("abcde")
REFERENCE_ROWS = 900
RUN_LENGTH = Settings().run_length
LONGEST = 3000
BAND = 0.05
POOL = 100_000


class Population:
    """Probabilities (n, 5) of rows that have these shares of the classes, and their cells (n,)."""

    def __init__(self, shares: np.ndarray, seed: int, rows: int = POOL):
        rng = np.random.default_rng(seed)
        labels = rng.choice(len(shares), rows, p=shares)
        seen = CENTRES[labels] + rng.normal(size=(rows, 2))
        likelihood = np.exp(-((seen[:, None] - CENTRES) ** 2).sum(axis=2) / 2) * SHARES
        self.p = likelihood / likelihood.sum(axis=1, keepdims=True)
        self.cells = PredictionBins(CLASSES).of(self.p)

    def draw(self, rng: np.random.Generator, runs: int) -> np.ndarray:
        """The next row's cell of each run, (1, runs)."""
        return np.asarray(self.cells[rng.integers(0, len(self.cells), (1, runs))])


def begin(usual: Population, runs: int, rng: np.random.Generator) -> RankDetector:
    """Detectors of that many runs, each begun from a reference sample of its own."""
    sample = usual.cells[rng.integers(0, len(usual.cells), (runs, REFERENCE_ROWS))]
    bins = len(PredictionBins(CLASSES).names)
    return RankDetector(np.stack([np.bincount(row, minlength=bins) for row in sample]).astype(float), rng)


def run_lengths(
    detector: RankDetector, rows: Population, rng: np.random.Generator, *, alarm: float, longest: int
) -> np.ndarray:
    """Rows until each run's alarm, infinite where there is none within ``longest``."""
    found = np.full(len(detector.sums), np.inf)
    for t in range(1, longest + 1):
        found[(detector.observe(rows.draw(rng, len(found)))[0] >= alarm) & np.isinf(found)] = t
        if np.isfinite(found).all():
            break
    return found


def lower_bound(times: np.ndarray) -> float:
    """Of the mean, one-sided, at 95 %."""
    return float(times.mean() - 1.645 * times.std(ddof=1) / np.sqrt(len(times)))


def false_alarms(usual: Population, runs: int) -> str:
    lines = []
    for nominal in (500, 1000, 2000):
        rng = np.random.default_rng(nominal)
        found = run_lengths(begin(usual, runs, rng), usual, rng, alarm=nominal, longest=6 * nominal)
        cut = np.minimum(found, 6 * nominal)
        lines.append([nominal, f"{cut.mean():.0f} (≥ {lower_bound(cut):.0f})", runs])
    return table(["run length asked for", "prediction", "runs"], lines)


Truth = Callable[[np.ndarray], np.ndarray]
"""Served probabilities (5,) → those by which the outcomes come."""


def outcomes_to_alarm(usual: Population, truth: Truth, seed: int, alarm: float, longest: int) -> float:
    """Outcomes until the alarm at a dead band of `BAND`."""
    rng, detector = np.random.default_rng(seed), ClasswiseCalibrationDetector(BAND, len(SHARES))
    for t, row in enumerate(rng.integers(0, len(usual.p), longest), 1):
        # Room for a change on either side of every probability.
        p = 0.7 * usual.p[row] + 0.06
        if detector.observe(p.tolist(), int(rng.choice(len(p), p=truth(p)))) >= alarm:
            return t
    return longest


EDGE = BAND * np.array([1, -1, 1, -1, 0])
"""As far from what is served as the dead band lets it be, where as many bets as can have a mean of 1."""


def false_alarms_of_outcomes(usual: Population, runs: int) -> str:
    lines = []
    for nominal in (100, 200, 400):
        times = np.array(
            [outcomes_to_alarm(usual, lambda p: p + EDGE, seed, nominal, 6 * nominal) for seed in range(runs)]
        )
        lines.append([nominal, f"{times.mean():.0f} (≥ {lower_bound(times):.0f})", runs])
    return table(["run length asked for", "calibration, at the edge of the dead band", "runs"], lines)


def power(usual: Population, runs: int) -> str:
    swaps = {"two classes swapped, 35 % and 5 %": (0, 4), "two classes swapped, 25 % and 15 %": (1, 3)}
    lines = []
    for name, (one, other) in swaps.items():
        shares = SHARES.copy()
        shares[[one, other]] = shares[[other, one]]
        changed, cells = Population(shares, seed=2), [name]
        for normal in (0, 5000 if runs > 20 else 50):
            rng = np.random.default_rng(7)
            detector = begin(usual, runs, rng)
            for _ in range(normal):
                detector.observe(usual.draw(rng, runs))
            detector.sums[:] = 0
            found = run_lengths(detector, changed, rng, alarm=RUN_LENGTH, longest=LONGEST)
            cells.append(_quantiles(found, LONGEST))
        lines.append(cells)
    return table(["change", "prediction", "prediction, after 5000 normal ones"], lines)


def power_of_outcomes(usual: Population, runs: int) -> str:
    longest = 20_000 if runs > 5 else 100
    faults: dict[str, Truth] = {
        "two classes taken for each other": lambda p: p[[3, 1, 2, 0, 4]],
        "four in ten of the outcomes come by chance alone": lambda p: 0.6 * p + 0.4 / len(p),
    }
    lines = []
    for name, truth in faults.items():
        times = [outcomes_to_alarm(usual, truth, seed, RUN_LENGTH, longest) for seed in range(runs)]
        lines.append([name, _quantiles(np.array(times, float), longest)])
    return table(["fault", "outcomes until the alarm"], lines)


def _quantiles(found: np.ndarray, longest: int) -> str:
    middle, late = (np.sort(found)[int(q * (len(found) - 1))] for q in (0.5, 0.9))
    shown = [f"{one:.0f}" if one < longest else f"> {longest}" for one in (middle, late)]
    return f"{shown[0]} ({shown[1]})" if shown[0] != shown[1] else shown[0]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few runs, nothing is written")
    quick = parser.parse_args().quick
    usual, many = Population(SHARES, seed=1, rows=2000 if quick else POOL), 20 if quick else 400
    parts = [
        f"Five classes, with 35, 25, 20, 15 and 5 % of the rows, and references of {REFERENCE_ROWS} rows. Mean rows to "
        "a false alarm (and its lower 95 % bound; runs are cut at six times the run length), references drawn anew for "
        "every run:\n",
        false_alarms(usual, many), false_alarms_of_outcomes(usual, 5 if quick else 400),
        f"Until the alarm at the default run length of 5.8 · 10⁸, median (and the 90 % point) of {many // 2} and of "
        f"{3 if quick else 60} runs:\n",
        power(usual, many // 2), power_of_outcomes(usual, 3 if quick else 60),
    ]  # fmt: skip
    text = "\n".join(parts)
    print(text)
    if not quick:
        head, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(head + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
