"""How soon the drift tests alarm, how seldom falsely, and what they cost; written into docs/drift.md.

./run bench drift_power            about five minutes
./run bench drift_power --quick    whether it runs; prints only

The rows are those of the table that comes with the program, with the bundle's probabilities for them. A run draws a
reference of as many rows as the bundle's from them, with replacement, and a stream from the same rows, changed or not;
the detectors are the service's own, hundreds of runs side by side as variables of one.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.harness.machine import BUNDLE, ROOT
from benchmarks.harness.tables import table
from benchmarks.harness.texts import data, schema
from models.calibration.logit import logit, sigmoid
from models.predictor import Predictor
from models.rows import Row
from service.drift.detectors import CalibrationDetector, RankDetector
from service.drift.monitor import DriftMonitor
from service.settings import Settings
from training.data.table import read_table

PAGE, BEGIN, END = ROOT / "docs" / "drift.md", "<!-- drift_power -->\n", "<!-- end of drift_power -->\n"
RUN_LENGTH = Settings().run_length
FIELDS = len(schema().fields)
VARIABLES = 1 + FIELDS
RUN_LENGTHS = np.array([1e3, 1e5, RUN_LENGTH])
LONGEST = 3000
SHIFT = float(np.log(0.39 / 0.61))
"""What a class weight of .39 for the positive class adds to a logit when nothing takes it back."""

Draw = Callable[[np.random.Generator, int], np.ndarray]
"""Runs → bin numbers (runs, variables) of their next row."""


class Predicted:
    """Rows, their probabilities, and their bin numbers (n, variables)."""

    def __init__(self, predictor: Predictor, rows: list[Row]):
        self.rows, self.predictions = rows, predictor.predict(rows)
        self.probabilities = np.array([one.probability for one in self.predictions])
        self.bins = np.array([(one.probability_bin, *one.input_bins) for one in self.predictions])


def evidence(observed: np.ndarray) -> np.ndarray:
    """(n, runs × variables) → (n, runs, 2): the prediction and the input stream's, as in `DriftMonitor`."""
    each = observed.reshape(len(observed), -1, VARIABLES)
    return np.stack([each[:, :, 0], each[:, :, 1:].max(axis=2) / (2 * FIELDS)], axis=2)


def begin(rows: Predicted, size: int, runs: int, rng: np.random.Generator) -> RankDetector:
    """Detectors of that many runs, each begun from a reference sample of its own."""
    sample = rows.bins[rng.integers(0, len(rows.bins), (runs, size))]
    counts = np.stack([(sample == one).sum(axis=1) for one in range(rows.bins.max() + 1)], axis=2)
    return RankDetector(counts.reshape(runs * VARIABLES, -1).astype(float), rng)


def run_lengths(
    detector: RankDetector, draw: Draw, runs: int, rng: np.random.Generator, *, alarm: float, longest: int
) -> np.ndarray:
    """Rows until each stream's alarm, (runs, 2); infinite where there is none within ``longest``."""
    found = np.full((runs, 2), np.inf)
    for t in range(1, longest + 1):
        now = evidence(detector.observe(draw(rng, runs).reshape(1, -1)))[0]
        found[(now >= alarm) & np.isinf(found)] = t
        if np.isfinite(found).all():
            break
    return found


def among(bins: np.ndarray) -> Draw:
    return lambda rng, runs: bins[rng.integers(0, len(bins), runs)]


def mixed(parts: list[tuple[float, np.ndarray]]) -> Draw:
    """Rows of each part with its share."""
    shares = np.array([share for share, _ in parts])

    def draw(rng: np.random.Generator, runs: int) -> np.ndarray:
        drawn = np.stack([among(bins)(rng, runs) for _, bins in parts])
        return np.asarray(drawn[rng.choice(len(parts), runs, p=shares / shares.sum()), np.arange(runs)])

    return draw


def changes(predictor: Predictor, rows: Predicted, labels: np.ndarray) -> dict[str, Draw]:
    """The changes whose delay is measured."""
    male = np.array([one.sex == "male" for one in rows.rows])
    third = np.array([one.pclass == 3 for one in rows.rows])

    def altered(**fields: Callable[[Row], object]) -> np.ndarray:
        new = [msgspec.structs.replace(p, **{k: f(p) for k, f in fields.items()}) for p in rows.rows]
        return Predicted(predictor, new).bins

    fares = altered(fare=lambda p: None if p.fare is None else min(1000.0, 4 * p.fare))
    no_names, no_ages = altered(name=lambda _: None), altered(age=lambda _: None)
    return {
        "third-class men only": among(rows.bins[third & male]),
        "shares of the sexes swapped": mixed([((~male).mean(), rows.bins[male]), (male.mean(), rows.bins[~male])]),
        "fares in another currency (× 4)": among(fares),
        "name lost for one in ten": mixed([(0.9, rows.bins), (0.1, no_names)]),
        "age lost for one in four more": mixed([(0.75, rows.bins), (0.25, no_ages)]),
        "half positive instead of 38 %": mixed([(0.5, rows.bins[labels == 1]), (0.5, rows.bins[labels == 0])]),
        "a fifth positive instead of 38 %": mixed([(0.2, rows.bins[labels == 1]), (0.8, rows.bins[labels == 0])]),
    }


def power(predictor: Predictor, rows: Predicted, labels: np.ndarray, runs: int, warm: int) -> str:
    lines = []
    for name, draw in changes(predictor, rows, labels).items():
        cells = [name]
        for normal in (0, warm):
            rng = np.random.default_rng(7)
            detector = begin(rows, predictor.bundle.reference.rows, runs, rng)
            for _ in range(normal):
                detector.observe(among(rows.bins)(rng, runs).reshape(1, -1))
            detector.sums[:] = 0
            found = run_lengths(detector, draw, runs, rng, alarm=RUN_LENGTH, longest=LONGEST)
            cells += [_quantiles(found[:, 1]), _quantiles(found[:, 0]), _quantiles(found.min(axis=1))]
        lines.append(cells)
    head = ["change", "input", "prediction", "either", f"input, after {warm}", "prediction", "either"]
    return table(head, lines)


def _quantiles(found: np.ndarray) -> str:
    middle, late = (np.sort(found)[int(q * (len(found) - 1))] for q in (0.5, 0.9))
    shown = [f"{one:.0f}" if np.isfinite(one) else f"> {LONGEST}" for one in (middle, late)]
    return f"{shown[0]} ({shown[1]})" if shown[0] != shown[1] else shown[0]


def false_alarms(rows: Predicted, size: int, runs: int) -> str:
    lines = []
    for nominal in (500, 1000, 2000):
        rng = np.random.default_rng(nominal)
        longest = 6 * nominal
        found = run_lengths(
            begin(rows, size, runs, rng), among(rows.bins), runs, rng, alarm=nominal, longest=longest
        )  # fmt: skip
        cut = np.minimum(found, longest)
        low = cut.mean(axis=0) - 1.645 * cut.std(axis=0, ddof=1) / np.sqrt(runs)
        lines.append([f"{nominal}", *(f"{cut[:, one].mean():.0f} (≥ {low[one]:.0f})" for one in (0, 1)), f"{runs}"])
    return table(["run length asked for", "prediction", "input", "runs"], lines)


def calibration(rows: Predicted, runs: int, longest: int) -> str:
    """Outcomes until the alarm when logits are served with `SHIFT` on them and the probabilities were true without.

    Beside it the Shiryaev–Roberts sum of the likelihood ratio itself, which no test beats in the limit (Pollak, 1985).
    """
    truth = rows.probabilities
    served = sigmoid(logit(truth) + SHIFT)
    lines = []
    for band in (0.0, 0.02, 0.05):
        null = np.clip(truth, served - band, served + band)
        ratios = np.stack([(1 - truth) / (1 - null), truth / null])
        waits = np.full((runs, 2, len(RUN_LENGTHS)), np.inf)
        for seed in range(runs):
            rng, detector, oracle = np.random.default_rng(seed), CalibrationDetector(band), 0.0
            for t in range(1, longest + 1):
                row = int(rng.integers(0, len(truth)))
                positive = int(rng.random() < truth[row])
                oracle = (oracle + 1) * ratios[positive, row]
                now = np.array([[detector.observe(float(served[row]), bool(positive))], [oracle]])
                waits[seed][(now >= RUN_LENGTHS) & np.isinf(waits[seed])] = t
                if np.isfinite(waits[seed]).all():
                    break
        middle = np.median(waits, axis=0)
        lines.append([f"±{band:g}", *(f"{own:.0f} ({best:.0f})" for own, best in middle.T)])
    return table(["dead band", "run length 10³", "10⁵", "5.8 · 10⁸"], lines)


def replay(predictor: Predictor, rows: Predicted, count: int) -> str:
    """Rows like the training rows against the bundle's own reference; and the training rows themselves."""
    drift = DriftMonitor(predictor.bundle, RUN_LENGTH, 0.05, np.random.default_rng(1))
    detector, rng = RankDetector(drift.reference_counts, np.random.default_rng(2)), np.random.default_rng(3)
    counts = np.array(drift.reference.probability_counts)
    shares = counts / counts.sum()
    highest = np.zeros(2)
    for _ in range(0, count, 1000):
        bins = rows.bins[rng.integers(0, len(rows.bins), 1000)].copy()
        bins[:, 0] = rng.choice(len(shares), 1000, p=shares)
        highest = np.maximum(highest, evidence(detector.observe(bins))[:, 0].max(axis=0))
    for _ in range(0, 100_000, 100):
        chosen = rng.integers(0, len(rows.bins), 100)
        drift.predicted([rows.predictions[one] for one in chosen])
    own = "no alarm in 100,000" if not drift.alarmed("prediction") else (
        f"an alarm at prediction {drift.alarms['prediction'].at}"
    )  # fmt: skip
    return (
        f"{count:,} rows drawn like the reference's, against the bundle's own reference: highest log evidence "
        f"{np.log1p(highest[0]):.1f} (prediction) and {np.log1p(highest[1]):.1f} (input); the alarm is at "
        f"{np.log(RUN_LENGTH):.1f}. The training rows themselves, with the probabilities that the finished model has "
        f"for them: {own} of the prediction stream.\n"
    )


def cost(predictor: Predictor, rows: Predicted) -> str:
    found = []
    for size in (1, 8, 64):
        drift, best = DriftMonitor(predictor.bundle, RUN_LENGTH, 0.05, np.random.default_rng(1)), np.inf
        for _ in range(60):
            # Processor time: another process's turn is not this one's cost.
            start = time.process_time()
            for first in range(0, 512, size):
                drift.predicted(rows.predictions[first : first + size])
            best = min(best, (time.process_time() - start) / 512)
        found.append(f"{best * 1e6:.0f}")
    shown = ", ".join(found)
    return f"Cost: {shown} µs of a processor a prediction, in requests of 1, 8 and 64 (the fastest of 60 rounds).\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=BUNDLE, help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="few runs, nothing is written")
    options = parser.parse_args()
    quick, predictor = options.quick, Predictor.load(options.bundle)
    table_ = read_table(data(), schema())
    rows, size = Predicted(predictor, list(table_.rows)), predictor.bundle.reference.rows
    parts = [
        "Predictions until the alarm, median (and the 90 % point) of "
        f"{10 if quick else 200} runs, at the default run length of 5.8 · 10⁸, when the change is there from the first "
        "prediction and when it comes after 5,000 normal ones:\n",
        power(predictor, rows, table_.labels, 10 if quick else 200, 50 if quick else 5000),
        "Outcomes until the alarm when a forgotten class weight has moved all logits by −0.447, median of "
        f"{3 if quick else 60} runs, and in brackets what a test needs that knows the fault beforehand:\n",
        calibration(rows, 3 if quick else 60, 100 if quick else 30_000),
        "Mean rows to a false alarm (and its lower 95 % bound; runs are cut at six times the run length), references "
        "drawn anew for every run:\n",
        false_alarms(rows, size, 20 if quick else 400),
        replay(predictor, rows, 10_000 if quick else 1_000_000),
        cost(predictor, rows),
    ]
    text = "\n".join(parts)
    print(text)
    if not quick:
        head, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(head + BEGIN + "\n" + text + "\n" + END + rest.split(END)[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
