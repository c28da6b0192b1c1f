"""How often an answer's interval holds the true conditional frequency, on simulated tables where that is known.

    python -m benchmarks.interval [--tables 200] [--rows 200,900,5000]

A stand-in takes the place of the fine-tuning: ridge logistic regression on random features, whose result depends on its
seed and on its rows as a fine-tuning's does. Maps, Venn–Abers and uncertainty are those of `training`. Prints, for each
number of rows, the share of new rows whose η(x) is inside, with its standard error over tables, and the mean width,
beside those of Venn–Abers alone and of the spread between seeds alone.
"""

import argparse
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from models.calibration.logit import logit, sigmoid
from models.calibration.uncertainty import Z_90, Uncertainty
from models.calibration.venn_abers import venn_abers_interval
from training.calibrate.choice import chosen_map
from training.calibrate.record import fit_intervals
from training.calibrate.uncertainty import fit_uncertainty
from training.evaluate.folds import FOLDS, make_folds

SEEDS, NEW_ROWS, HIDDEN = 3, 1500, 48
LEVELS = ((0.25, 0.2, 0.55), (0.5, 0.5), (0.7, 0.2, 0.1), (0.6, 0.2, 0.1, 0.1))
"""Shares of the levels of four categories; beside them there are two numbers."""


class Rows(NamedTuple):
    """Inputs (n, 14) of a model, and η (n,), the true frequency of the positive class among rows like each."""

    inputs: np.ndarray
    eta: np.ndarray


def draw(rows: int, rng: np.random.Generator) -> Rows:
    """Rows of a table with main effects, an interaction, a kink and a saturation."""
    a, b, c, d = categories = [rng.choice(len(shares), rows, p=shares) for shares in LEVELS]
    x, y = rng.normal(size=(2, rows))
    z = -1.2 + b * (2.6 - 1.3 * (a == 2)) + 0.9 * (a == 0) - 0.35 * x + (x < -1) * (b == 0)
    z = z - 0.5 * (d >= 2) + 0.3 * (c == 1) + 0.5 * np.tanh(y)
    coded = [np.eye(len(shares))[each] for each, shares in zip(categories, LEVELS, strict=True)]
    return Rows(np.column_stack([*coded, x, y]), sigmoid(z))


def fit_stand_in(x: np.ndarray, y: np.ndarray, seed: int) -> Callable[[np.ndarray], np.ndarray]:
    """Inputs → log-odds, by ridge logistic regression on `HIDDEN` random features that the seed draws."""
    rng = np.random.default_rng(seed)
    weights, offsets = rng.normal(size=(x.shape[1], HIDDEN)) / 2, rng.normal(size=HIDDEN) / 2

    def features(x: np.ndarray) -> np.ndarray:
        return np.column_stack([np.ones(len(x)), np.tanh(x @ weights + offsets)])

    design, found, penalty = features(x), np.zeros(HIDDEN + 1), np.append(1e-3, np.ones(HIDDEN))
    for _ in range(8):
        p = sigmoid(design @ found)
        gradient = design.T @ (p - y) + penalty * found
        found -= np.linalg.solve((design.T * (p * (1 - p))) @ design + np.diag(penalty), gradient)
    return lambda x: features(x) @ found


class Simulated(NamedTuple):
    """Of new rows (n,): η, the probability served, Venn–Abers' pair; and the uncertainty of the table's models."""

    eta: np.ndarray
    p: np.ndarray
    p0: np.ndarray
    p1: np.ndarray
    uncertainty: Uncertainty

    def covered(self, low: np.ndarray, high: np.ndarray) -> tuple[float, float]:
        """The share of η inside, and the mean width."""
        return float(((low <= self.eta) & (self.eta <= high)).mean()), float((high - low).mean())


def simulate(rows: int, number: int) -> Simulated:
    """One table: cross-fits of `SEEDS` seeds, the final model of the first, and new rows that it answers."""
    with threadpool_limits(1):
        return _simulate(rows, number)


def _simulate(rows: int, number: int) -> Simulated:
    rng = np.random.default_rng([rows, number])
    x, eta = draw(rows, rng)
    y = (rng.random(rows) < eta).astype(np.int64)
    scores = []
    for seed in range(SEEDS):
        folds, z = make_folds(y, FOLDS, seed), np.empty(rows)
        for fold in range(FOLDS):
            z[folds == fold] = fit_stand_in(x[folds != fold], y[folds != fold], seed + fold)(x[folds == fold])
        scores.append(z)
    maps = [chosen_map(z, y, None, seed)[1].probabilities for seed, z in enumerate(scores)]
    final, new = fit_stand_in(x, y, FOLDS), draw(NEW_ROWS, rng)
    z = final(new.inputs)
    pair = venn_abers_interval(fit_intervals(scores[0], y), z)
    return Simulated(new.eta, maps[0](z), *pair, fit_uncertainty(scores, maps, final(x), y, FOLDS))


def intervals(found: Simulated) -> dict[str, tuple[float, float]]:
    """Coverage and width of the interval that is served, and of what it might have been."""
    p, p0, p1, parts = found.p, found.p0, found.p1, found.uncertainty
    half = Z_90 * np.sqrt(parts.between_seeds)
    return {
        "served": found.covered(*parts.interval(p, p0, p1)),
        "Venn–Abers": found.covered(np.minimum(p0, p), np.maximum(p1, p)),
        "between seeds": found.covered(sigmoid(logit(p) - half), sigmoid(logit(p) + half)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--rows", default="200,900,5000")
    options = parser.parse_args()
    for rows in map(int, options.rows.split(",")):
        found = [intervals(simulate(rows, number)) for number in range(options.tables)]
        for name in found[0]:
            covered, width = np.array([one[name] for one in found]).T
            error = covered.std(ddof=1) / np.sqrt(len(covered))
            print(f"{rows} rows, {name}: {covered.mean():.3f} ± {error:.3f}, width {width.mean():.3f}", flush=True)


if __name__ == "__main__":
    main()
