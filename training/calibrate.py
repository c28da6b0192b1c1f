"""Fit what calibration.json holds, on out-of-fold logits: the map, Venn–Abers, conformal sets, typicality."""

import math
from collections.abc import Sequence

import numpy as np
from scipy.optimize import isotonic_regression, minimize_scalar
from sklearn.model_selection import StratifiedKFold

from models.calibration import CalibrationMap, Candidate, FocalInverse, Identity, Step, Temperature, VennAbers
from models.confidence import CalibrationRecord, ConformalSets, Typicality, input_bins
from models.passenger import Passenger

MAP_FOLDS = 10


def fit_record(
    logits: np.ndarray, labels: np.ndarray, passengers: Sequence[Passenger], *, inverse: FocalInverse | None,
    coverage: float, seed: int,
) -> CalibrationRecord:  # fmt: skip
    """Everything that a bundle needs to turn logits (n,) into trusted probabilities."""
    chosen, candidates = fit_map(logits, labels, inverse, seed)
    return CalibrationRecord(
        rows=len(labels), map=chosen, candidates=candidates, venn_abers=fit_venn_abers(logits, labels),
        conformal=fit_sets(chosen.probabilities(logits), labels, coverage), typicality=fit_typicality(passengers),
    )  # fmt: skip


def fit_map(
    logits: np.ndarray, labels: np.ndarray, inverse: FocalInverse | None, seed: int
) -> tuple[CalibrationMap, tuple[Candidate, ...]]:
    """The map with the lowest cross-validated log loss, and all candidates with their paired distance to it.

    Cross-validation charges a map for its parameters. The one-standard-error rule, which favours fewer still, was
    measured to cost .004 of log loss here and to leave probabilities overconfident. A loss that bends probabilities is
    unbent first; where its inverse is known, maps without it are kept as losers.
    """
    families: dict[str, tuple[Step, ...]] = {"identity": (Identity(),), "temperature": ()}
    if inverse is not None:
        families |= {"focal_inverse": (inverse,), "focal_inverse+temperature": (inverse,)}
    losses = {name: _cross_validated(name, steps, logits, labels, seed) for name, steps in families.items()}
    best = min(losses, key=lambda name: float(losses[name].mean()))
    worse = {name: loss - losses[best] for name, loss in losses.items()}
    errors = {name: float(one.std(ddof=1) / math.sqrt(len(one))) for name, one in worse.items()}
    candidates = tuple(
        Candidate(
            name=name, parameters=_parameters(name), log_loss=float(losses[name].mean()),
            worse_by=float(worse[name].mean()), standard_error=errors[name], chosen=name == best,
        )
        for name in families
    )  # fmt: skip
    return _fit(best, families[best], logits, labels), candidates


def _parameters(name: str) -> int:
    return int(name.endswith("temperature"))


def _fit(name: str, steps: tuple[Step, ...], logits: np.ndarray, labels: np.ndarray) -> CalibrationMap:
    if not _parameters(name):
        return CalibrationMap(steps)
    for step in steps:
        logits = step(logits)
    return CalibrationMap((*steps, fit_temperature(logits, labels)))


def _cross_validated(
    name: str, steps: tuple[Step, ...], logits: np.ndarray, labels: np.ndarray, seed: int
) -> np.ndarray:
    """Log loss (n,) of each row under a map that was fitted without it."""
    losses = np.empty(len(labels))
    folds = min(MAP_FOLDS, int(np.bincount(labels, minlength=2).min()))
    for seen, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(logits, labels):
        p = _fit(name, steps, logits[seen], labels[seen]).probabilities(logits[held_out])
        losses[held_out] = log_losses(p, labels[held_out])
    return losses


def log_losses(p: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """−ln of the probability given to each row's own class, (n,)."""
    losses: np.ndarray = -np.where(labels == 1, np.log(p), np.log1p(-p))
    return losses


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> Temperature:
    """The temperature that minimises log loss, from 1/50 to 50; the loss is convex in 1/T."""
    sign = np.where(labels == 1, -1.0, 1.0)
    best = minimize_scalar(
        lambda inverse: np.logaddexp(0.0, sign * logits * inverse).mean(),
        bounds=(0.02, 50.0), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    return Temperature(float(1 / best.x))


def fit_venn_abers(logits: np.ndarray, labels: np.ndarray) -> VennAbers:
    """Refit isotonic regression with a new row at, and between, all distinct scores, labelled 0 and labelled 1."""
    scores, index = np.unique(logits, return_inverse=True)
    counts = np.bincount(index).astype(float)
    means = np.bincount(index, weights=labels) / counts
    places = 2 * len(scores) + 1
    found = np.empty((2, places))
    for place in range(places):
        at, tied = divmod(place, 2)
        for label in (0, 1):
            if tied:
                y, w, new = means.copy(), counts.copy(), at
                y[new] = (y[new] * w[new] + label) / (w[new] + 1)
                w[new] += 1
            else:
                y, w, new = np.insert(means, at, label), np.insert(counts, at, 1.0), at
            found[label, place] = isotonic_regression(y, weights=w).x[new]
    return VennAbers.checked(scores, found[0], found[1])


def fit_sets(probabilities: np.ndarray, labels: np.ndarray, coverage: float) -> ConformalSets:
    """Thresholds: the ⌈(n_class + 1) coverage⌉-th smallest 1 − p_class of the class's rows, 1 if they are too few."""

    def threshold(non_conformity: np.ndarray) -> float:
        rank = math.ceil((len(non_conformity) + 1) * coverage)
        return float(np.sort(non_conformity)[rank - 1]) if rank <= len(non_conformity) else 1.0

    died, survived = probabilities[labels == 0], 1 - probabilities[labels == 1]
    return ConformalSets(coverage=coverage, died=threshold(died), survived=threshold(survived))


def fit_typicality(passengers: Sequence[Passenger]) -> Typicality:
    """The bag of the calibration rows' bin numbers."""
    patterns, weights = np.unique(input_bins(passengers), axis=0, return_counts=True)
    return Typicality(tuple(tuple(row) for row in patterns.tolist()), tuple(weights.tolist()))
