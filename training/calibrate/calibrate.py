"""Fit what calibration.json holds, on out-of-fold logits: the map, Venn–Abers, conformal sets, typicality."""

import math
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from scipy.optimize import isotonic_regression, minimize, minimize_scalar
from sklearn.model_selection import StratifiedKFold

from models.calibration.confidence import CalibrationRecord, ConformalSets, Typicality
from models.calibration.inverse import FocalInverse, LossInverse
from models.calibration.maps import Beta, CalibrationMap, Candidate, Identity, Isotonic, Platt, Step, Temperature
from models.calibration.venn_abers import MergedVennAbers, VennAbers
from models.passenger import Passenger
from models.reference import input_bins

MAP_FOLDS = 10
FLEXIBLE_ROWS = 1000
"""Rows from which the map of least cross-validated log loss is taken: with fewer, one of many is often ahead by luck,
and judged on other rows the choice is worse than `FEW_ROWS_MAP` (docs/decisions/map-choice.md)."""
FEW_ROWS_MAP = "platt+half_venn_abers"
STEEPEST = 50.0
"""Largest slope of a fitted map: where a logit separates the classes, log loss would drive it to infinity."""

Inverse = FocalInverse | LossInverse
MapRule = Literal["least", "one_standard_error"]
MAP_RULES: tuple[MapRule, ...] = ("least", "one_standard_error")


def fit_record(
    logits: np.ndarray, labels: np.ndarray, passengers: Sequence[Passenger], *, inverse: Inverse | None,
    coverage: float, seed: int, map_rule: MapRule = "least",
) -> CalibrationRecord:  # fmt: skip
    """Everything that a bundle needs to turn logits (n,) into trusted probabilities."""
    chosen, candidates = fit_map(logits, labels, inverse, seed, map_rule)
    return CalibrationRecord(
        rows=len(labels), map=chosen, candidates=candidates, venn_abers=fit_venn_abers(logits, labels),
        conformal=fit_sets(chosen.probabilities(logits), labels, coverage), typicality=fit_typicality(passengers),
        map_rule=map_rule,
    )  # fmt: skip


def fit_map(
    logits: np.ndarray, labels: np.ndarray, inverse: Inverse | None, seed: int, rule: MapRule = "least"
) -> tuple[CalibrationMap, tuple[Candidate, ...]]:
    """The map chosen by cross-validated log loss, and all candidates with their paired distance to the best.

    ``rule`` "least" takes the best from `FLEXIBLE_ROWS` rows on, and below them `FEW_ROWS_MAP`. "one_standard_error"
    takes, among those not worse than the best by more than the standard error of the paired difference, the one with
    the fewest parameters (Breiman et al., 1984, section 3.4.3). Where the loss's inverse is known, maps with and
    without it compete.
    """
    families = _families(inverse)
    losses = {name: _cross_validated(family, logits, labels, seed) for name, family in families.items()}
    maps = {name: _fit(family, logits, labels) for name, family in families.items()}
    parameters = {name: _parameters(one) for name, one in maps.items()}
    best = min(families, key=lambda name: float(losses[name].mean()))
    worse = {name: loss - losses[best] for name, loss in losses.items()}
    errors = {name: float(one.std(ddof=1) / math.sqrt(len(one))) for name, one in worse.items()}
    chosen = best if len(labels) >= FLEXIBLE_ROWS else FEW_ROWS_MAP
    if rule == "one_standard_error":
        near = [name for name in families if worse[name].mean() <= errors[name]]
        chosen = min(near, key=lambda name: (parameters[name], worse[name].mean()))
    candidates = tuple(
        Candidate(
            name=name, parameters=parameters[name], log_loss=float(losses[name].mean()),
            worse_by=float(worse[name].mean()), standard_error=errors[name], chosen=name == chosen,
        )
        for name in families
    )  # fmt: skip
    return maps[chosen], candidates


def chosen_map(
    logits: np.ndarray, labels: np.ndarray, inverse: Inverse | None, seed: int, rule: MapRule = "least"
) -> tuple[str, CalibrationMap]:
    """The name and the map that `fit_map` chooses; nothing is scored where scores decide nothing."""
    if rule == "least" and len(labels) < FLEXIBLE_ROWS:
        return FEW_ROWS_MAP, _fit(_families(inverse)[FEW_ROWS_MAP], logits, labels)
    chosen, candidates = fit_map(logits, labels, inverse, seed, rule)
    return next(candidate.name for candidate in candidates if candidate.chosen), chosen


Fit = Callable[[np.ndarray, np.ndarray], Step]


class Family(NamedTuple):
    """Steps known beforehand, and what is fitted after them, one step after the other."""

    steps: tuple[Step, ...]
    fits: tuple[Fit, ...]


def _families(inverse: Inverse | None) -> dict[str, Family]:
    """Candidates by name. Isotonic regression and Venn–Abers see only the order, which an inverse does not change."""
    starts: dict[str, tuple[Step, ...]] = {"": ()}
    if inverse is not None and not (isinstance(inverse, FocalInverse) and not inverse.improper):
        starts[str(inverse.__struct_config__.tag)] = (inverse,)
    families = {}
    for start, steps in starts.items():
        families[start or "identity"] = Family(steps or (Identity(),), ())
        for name, fits in AFTER_INVERSE.items():
            families[f"{start}+{name}".lstrip("+")] = Family(steps, fits)
    return families | {name: Family((), (fit,)) for name, fit in STEP_FUNCTIONS.items()}


def _parameters(fitted: CalibrationMap) -> int:
    return sum(map(_parameters_of_step, fitted.steps))


def _parameters_of_step(step: Step) -> int:
    if isinstance(step, Isotonic):
        return len(set(step.probabilities))
    if isinstance(step, MergedVennAbers):
        return len(set(zip(step.predictor.p0, step.predictor.p1, strict=True)))
    return {"temperature": 1, "platt": 2, "beta": 3}.get(str(step.__struct_config__.tag), 0)


def _fit(family: Family, logits: np.ndarray, labels: np.ndarray) -> CalibrationMap:
    steps = list(family.steps)
    for step in steps:
        logits = step(logits)
    for fit in family.fits:
        steps.append(fit(logits, labels))
        logits = steps[-1](logits)
    return CalibrationMap(tuple(steps))


def _cross_validated(family: Family, logits: np.ndarray, labels: np.ndarray, seed: int) -> np.ndarray:
    """Log loss (n,) of each row under a map that was fitted without it."""
    losses = np.empty(len(labels))
    folds = min(MAP_FOLDS, int(np.bincount(labels, minlength=2).min()))
    for seen, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(logits, labels):
        p = _fit(family, logits[seen], labels[seen]).probabilities(logits[held_out])
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


def fit_platt(logits: np.ndarray, labels: np.ndarray) -> Platt:
    """Slope ≥ 0 and offset of least cross entropy against targets (N₊+1)/(N₊+2) and 1/(N₋+2) (Platt, 1999)."""
    low, high = platt_targets(labels)
    slope, offset = _logistic(logits[:, None], np.where(labels == 1, high, low))
    return Platt(slope=slope, offset=offset)


def platt_targets(labels: np.ndarray) -> tuple[float, float]:
    """1/(N₋+2) and (N₊+1)/(N₊+2): the rates that a uniform prior leaves of "none of N" and "all of N"."""
    survived = int(labels.sum())
    return 1 / (len(labels) - survived + 2), (survived + 1) / (survived + 2)


def fit_beta(logits: np.ndarray, labels: np.ndarray) -> Beta:
    """a, b ≥ 0 and c of least log loss: a logistic regression on ln s and −ln(1−s) (Kull et al., 2017, section 4)."""
    features = np.stack([-np.logaddexp(0.0, -logits), np.logaddexp(0.0, logits)], axis=1)
    a, b, c = _logistic(features, labels.astype(float))
    return Beta(a=a, b=b, c=c)


def _logistic(features: np.ndarray, targets: np.ndarray) -> list[float]:
    """Coefficients in [0, `STEEPEST`] of features (n, k), then the intercept, of least cross entropy against targets
    (n,) in [0, 1]: a convex problem, so its one minimum is found, bounds included."""
    design = np.column_stack([features, np.ones(len(features))])

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = design @ weights
        residual = np.exp(-np.logaddexp(0.0, -z)) - targets
        return float((np.logaddexp(0.0, z) - targets * z).mean()), design.T @ residual / len(z)

    start = np.append(np.ones(features.shape[1]), 0.0)
    bounds = [(0.0, STEEPEST)] * features.shape[1] + [(-10 * STEEPEST, 10 * STEEPEST)]
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-15, "gtol": 1e-9, "maxiter": 1000}
    )
    return [float(one) for one in found.x]


def fit_isotonic(logits: np.ndarray, labels: np.ndarray) -> Isotonic:
    """Isotonic regression, its values kept within `platt_targets` so that no passenger gets probability 0 or 1."""
    scores, index = np.unique(logits, return_inverse=True)
    counts = np.bincount(index).astype(float)
    fitted = isotonic_regression(np.bincount(index, weights=labels) / counts, weights=counts).x
    fitted = np.clip(np.maximum.accumulate(fitted), *platt_targets(labels))
    # Inside a block of one value only its two ends are needed.
    kept = np.ones(len(fitted), bool)
    kept[1:-1] = (fitted[1:-1] != fitted[:-2]) | (fitted[1:-1] != fitted[2:])
    return Isotonic(tuple(scores[kept].tolist()), tuple(fitted[kept].tolist()))


def fit_merged_venn_abers(logits: np.ndarray, labels: np.ndarray) -> MergedVennAbers:
    """`fit_venn_abers` as a map to one probability."""
    return MergedVennAbers(fit_venn_abers(logits, labels))


def fit_half_venn_abers(logits: np.ndarray, labels: np.ndarray) -> MergedVennAbers:
    """Half of the way from the logits to `fit_merged_venn_abers`."""
    return MergedVennAbers(fit_venn_abers(logits, labels), weight=0.5)


AFTER_INVERSE: dict[str, tuple[Fit, ...]] = {
    "temperature": (fit_temperature,), "platt": (fit_platt,), "beta": (fit_beta,),
    FEW_ROWS_MAP: (fit_platt, fit_half_venn_abers),
}  # fmt: skip
STEP_FUNCTIONS: dict[str, Fit] = {"isotonic": fit_isotonic, "venn_abers": fit_merged_venn_abers}


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
