"""Losses on the same rows: figures averaged over seeds, and differences between losses paired by row."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from msgspec import Struct
from scipy.optimize import brentq

from models.calibration.logit import sigmoid
from models.calibration.maps import Step
from models.passenger import LABELS
from training.calibrate.calibrate import log_losses
from training.evaluate.calibration_errors import murphy
from training.evaluate.estimates import Estimate, mean, reflected

Side = Literal["raw", "calibrated"]
SIDES: tuple[Side, ...] = ("raw", "calibrated")
RESAMPLES = 1000


@dataclass(frozen=True)
class Run:
    """One loss with one seed: out-of-fold logits (n,), and probabilities (n,) by calibrations that left the row out."""

    logits: np.ndarray
    calibrated: np.ndarray

    @property
    def raw(self) -> np.ndarray:
        return sigmoid(self.logits)

    def side(self, side: Side) -> np.ndarray:
        """Probabilities (n,), raw or calibrated."""
        return self.raw if side == "raw" else self.calibrated


Runs = Mapping[int, Run]
"""Seed → run, of one loss."""
Values = Callable[[Run, np.ndarray], np.ndarray]
"""(run, labels (n,)) → one number for each row, or for each row of a class."""


class Spread(Struct, frozen=True):
    """A figure averaged over seeds.

    ``over_rows``: each row's numbers are averaged over the seeds first, and the standard error is over rows. What
    another sample of training rows would add is not in it: the folds' training sets are parts of the one sample there
    is (Bengio & Grandvalet, 2004). ``seeds_sd`` is the standard deviation of ``by_seed``, NaN for a single seed: what
    other folds, another order of rows and other dropout change.
    """

    over_rows: Estimate
    by_seed: tuple[float, ...]
    seeds_sd: float


def spread(by_seed: Sequence[np.ndarray]) -> Spread:
    """`Spread` of the same rows' numbers (n,) from each seed."""
    return Spread(mean(np.mean(by_seed, axis=0)), *_seeds([float(values.mean()) for values in by_seed]))


def averaged(by_seed: Sequence[Estimate]) -> Spread:
    """`Spread` of estimates that are no means over rows: value, standard error and interval are the seeds' averages.

    The seeds judge the same rows, so their average is about as uncertain as one of them.
    """
    parts = [(one.value, one.standard_error, one.low, one.high) for one in by_seed]
    value, error, low, high = np.mean(parts, axis=0).tolist()
    return Spread(Estimate(value, error, low, high), *_seeds([one.value for one in by_seed]))


def _seeds(values: list[float]) -> tuple[tuple[float, ...], float]:
    return tuple(values), float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


def row_values(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Figure → its number for each row (n,); a recall's for each row of its class. Decisions are made at p ≥ ½."""
    right = ((probabilities >= 0.5) == (labels == 1)).astype(float)
    recalls = {f"recall_{name}": right[labels == index] for index, name in enumerate(LABELS)}
    return {
        "log_loss": log_losses(probabilities, labels), "brier": (probabilities - labels) ** 2, "accuracy": right,
        **recalls,
    }  # fmt: skip


def values_of(figure: str, side: Side) -> Values:
    """The numbers behind one of the `row_values` of raw or of calibrated probabilities."""
    return lambda run, labels: row_values(run.side(side), labels)[figure]


def miscalibration(run: Run, labels: np.ndarray) -> np.ndarray:
    """Log loss that held-out calibration takes away, per row (n,): what raw probabilities lose by their bend alone."""
    taken_away: np.ndarray = log_losses(run.raw, labels) - log_losses(run.calibrated, labels)
    return taken_away


def paired(ours: Runs, theirs: Runs, labels: np.ndarray, values: Values) -> Spread | None:
    """Our figure minus theirs, row by row, over the seeds that both have; None where they share none."""
    common = [seed for seed in ours if seed in theirs]
    return spread([values(ours[s], labels) - values(theirs[s], labels) for s in common]) if common else None


def paired_calibration_error(
    ours: Runs, theirs: Runs, labels: np.ndarray, side: Side, rng: np.random.Generator
) -> Spread | None:
    """Our 10-bin ECE minus theirs, averaged over the seeds that both have, with the reflected bootstrap over rows.

    Each draw of rows is the same for all runs. None where no seed is shared.
    """
    common = [seed for seed in ours if seed in theirs]
    if not common:
        return None
    rows = len(labels)
    once, drawn = np.ones((1, rows)), rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLES).astype(float)

    def difference(weights: np.ndarray) -> np.ndarray:
        return np.array([_ece(ours[s].side(side), labels, weights) - _ece(theirs[s].side(side), labels, weights)
                         for s in common])  # fmt: skip

    by_seed = difference(once)[:, 0]
    return Spread(reflected(float(by_seed.mean()), difference(drawn).mean(axis=0)), *_seeds(by_seed.tolist()))


def _ece(p: np.ndarray, y: np.ndarray, w: np.ndarray) -> np.ndarray:
    order = np.argsort(p, kind="stable")
    return np.asarray(murphy(p[order], y[order][None].astype(float), w[:, order])["ece"])


def logit_shift(unbend: Step) -> Values:
    """By how much logits lie above the truth after ``unbend``: a constant c for which z − c has the right mean.

    mean sigmoid(z − c) = mean y. Each row's number is c plus its influence on c, so that their mean is c and their
    standard error that of the estimating equation (Huber's sandwich).
    """

    def values(run: Run, labels: np.ndarray) -> np.ndarray:
        z = unbend(run.logits)
        shift = float(brentq(lambda c: float(np.mean(sigmoid(z - c) - labels)), -50.0, 50.0))
        p = sigmoid(z - shift)
        numbers: np.ndarray = shift + (p - labels) / np.mean(p * (1 - p))
        return numbers

    return values


def holm(p_values: Sequence[float], level: float = 0.05) -> int:
    """How many of these tests reject with the chance of even one false rejection ≤ ``level`` (Holm, 1979).

    Valid however the tests depend on one another.
    """
    ordered = np.sort(np.asarray(p_values, dtype=float))
    passed = ordered <= level / np.arange(len(ordered), 0, -1)
    return int(np.argmin(np.append(passed, False)))
