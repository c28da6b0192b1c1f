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
from models.prediction import positive_logits
from training.calibrate.maps import log_losses
from training.evaluate.calibration_errors import murphy
from training.evaluate.comparisons.paired import error_difference
from training.evaluate.estimates import Estimate, mean

Side = Literal["raw", "calibrated"]
SIDES: tuple[Side, ...] = ("raw", "calibrated")


@dataclass(frozen=True)
class Run:
    """One loss with one seed: out-of-fold logits (n, K), and probabilities (n,) of the positive class by calibrations
    that left the row out."""

    logits: np.ndarray
    calibrated: np.ndarray

    @property
    def raw(self) -> np.ndarray:
        return sigmoid(positive_logits(self.logits))

    def side(self, side: Side) -> np.ndarray:
        """Probabilities (n,), raw or calibrated."""
        return self.raw if side == "raw" else self.calibrated


Runs = Mapping[int, Run]
"""Seed → run, of one loss."""
Values = Callable[[Run, np.ndarray], np.ndarray]
"""(run, labels (n,)) → one number for each row, or for each row of a class."""


class Spread(Struct, frozen=True):
    """A figure averaged over seeds.

    ``over_rows``: each row's numbers are averaged over the seeds first, and the standard error is over rows. It lacks
    what another sample of training rows would add: the folds' training sets are parts of one sample (Bengio &
    Grandvalet, 2004). ``seeds_sd`` is the standard deviation of ``by_seed``, NaN for a single seed: the effect of other
    folds, another order of rows and other dropout.
    """

    over_rows: Estimate
    by_seed: tuple[float, ...]
    seeds_sd: float


def over_seeds(estimate: Estimate, by_seed: Sequence[float]) -> Spread:
    """`Spread` of an estimate over rows and the figure of each seed."""
    return Spread(estimate, tuple(by_seed), float(np.std(by_seed, ddof=1)) if len(by_seed) > 1 else math.nan)


def spread(by_seed: Sequence[np.ndarray]) -> Spread:
    """`Spread` of the same rows' numbers (n,) from each seed."""
    return over_seeds(mean(np.mean(by_seed, axis=0)), [float(values.mean()) for values in by_seed])


def averaged(by_seed: Sequence[Estimate]) -> Spread:
    """`Spread` of estimates that are no means over rows: value, standard error and interval are the seeds' averages.

    The seeds score the same rows, so their average is about as uncertain as one of them.
    """
    parts = [(estimate.value, estimate.standard_error, estimate.low, estimate.high) for estimate in by_seed]
    return over_seeds(Estimate(*np.mean(parts, axis=0).tolist()), [estimate.value for estimate in by_seed])


def row_values(probabilities: np.ndarray, labels: np.ndarray, classes: Sequence[str]) -> dict[str, np.ndarray]:
    """Figure → its number for each row (n,); a recall's for each row of its class. Decisions are made at p ≥ ½."""
    right = ((probabilities >= 0.5) == (labels == 1)).astype(float)
    losses = {"log_loss": log_losses(probabilities, labels), "brier": (probabilities - labels) ** 2, "accuracy": right}
    return losses | {f"recall_{name}": right[labels == index] for index, name in enumerate(classes)}


def values_of(figure: str, side: Side, classes: Sequence[str]) -> Values:
    """The numbers behind one of the `row_values` of raw or of calibrated probabilities."""
    return lambda run, labels: row_values(run.side(side), labels, classes)[figure]


def miscalibration(run: Run, labels: np.ndarray) -> np.ndarray:
    """Log loss that held-out calibration takes away, per row (n,)."""
    return np.asarray(log_losses(run.raw, labels) - log_losses(run.calibrated, labels))


def paired(ours: Runs, theirs: Runs, labels: np.ndarray, values: Values) -> Spread | None:
    """Our figure minus theirs, row by row, over the seeds that both have; None where they share none."""
    common = [seed for seed in ours if seed in theirs]
    return spread([values(ours[s], labels) - values(theirs[s], labels) for s in common]) if common else None


def paired_calibration_error(
    ours: Runs, theirs: Runs, labels: np.ndarray, side: Side, rng: np.random.Generator
) -> Spread | None:
    """Our 10-bin ECE minus theirs over the seeds that both have; None where they share none."""
    common = [seed for seed in ours if seed in theirs]
    if not common:
        return None
    a, b = ([runs[seed].side(side) for seed in common] for runs in (ours, theirs))
    return over_seeds(*error_difference(lambda p, y, w: murphy(p, y, w)["ece"], a, b, [labels] * len(a), rng))


def logit_shift(inverse: Step) -> Values:
    """By how much logits lie above the truth after ``inverse``: a constant c for which z − c has the right mean.

    mean sigmoid(z − c) = mean y. Each row's number is c plus its influence on c, so that their mean is c and their
    standard error that of the estimating equation (Huber's sandwich).
    """

    def values(run: Run, labels: np.ndarray) -> np.ndarray:
        z = inverse(positive_logits(run.logits))
        shift = float(brentq(lambda c: float(np.mean(sigmoid(z - c) - labels)), -50.0, 50.0))
        p = sigmoid(z - shift)
        return np.asarray(shift + (p - labels) / np.mean(p * (1 - p)))

    return values
