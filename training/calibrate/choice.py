"""Choose the calibration map: candidates compared by cross-validated log loss."""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold

from models.calibration.inverse import ClasswiseInverse, FocalInverse, LossInverse
from models.calibration.maps import CalibrationMap, Candidate, Identity, Isotonic, Step
from models.calibration.venn_abers import MergedVennAbers
from training.calibrate.class_maps import fit_class_temperature
from training.calibrate.maps import (
    fit_beta,
    fit_half_venn_abers,
    fit_isotonic,
    fit_merged_venn_abers,
    fit_platt,
    fit_temperature,
    log_losses,
)

MAP_FOLDS, FEW_MAP_FOLDS = 10, 3
"""Parts of the rows by which maps are compared; few where there are `MANY_ROWS`, as each part then says enough."""
MANY_ROWS = 5000
FLEXIBLE_ROWS = 1000
"""Rows from which the map of least cross-validated log loss is taken: with fewer, one of many is often ahead by luck,
and on other rows the choice is worse than `FEW_ROWS_MAP` (docs/decisions/map-choice.md)."""
FEW_ROWS_MAP = "platt+half_venn_abers"
FEW_ROWS_CLASS_MAP = "temperature"
"""Of more than two classes."""

Inverse = FocalInverse | LossInverse | ClasswiseInverse
MapRule = Literal["least", "one_standard_error"]
MAP_RULES: tuple[MapRule, ...] = ("least", "one_standard_error")
Fit = Callable[[np.ndarray, np.ndarray], Step]

AFTER_INVERSE: dict[str, tuple[Fit, ...]] = {
    "temperature": (fit_temperature,), "platt": (fit_platt,), "beta": (fit_beta,),
    FEW_ROWS_MAP: (fit_platt, fit_half_venn_abers),
}  # fmt: skip
OF_CLASSES: dict[str, tuple[Fit, ...]] = {"temperature": (fit_class_temperature,)}
"""After an inverse, where there are more than two classes."""
STEP_FUNCTIONS: dict[str, Fit] = {"isotonic": fit_isotonic, "venn_abers": fit_merged_venn_abers}


def fit_map(
    logits: np.ndarray, labels: np.ndarray, inverse: Inverse | None, seed: int, rule: MapRule = "least"
) -> tuple[CalibrationMap, tuple[Candidate, ...]]:
    """The map of `calibration_scores` (n,) or (n, K), chosen by cross-validated log loss, and all candidates with their
    paired distance to the best.

    ``rule`` "least" takes the best from `FLEXIBLE_ROWS` rows on, and below them `FEW_ROWS_MAP`. "one_standard_error"
    takes, among those not worse than the best by more than the standard error of the paired difference, the one with
    the fewest parameters (Breiman et al., 1984, section 3.4.3). Where the loss's inverse is known, maps with and
    without it compete.
    """
    families = _families(inverse, logits.ndim == 1)
    losses = {name: _cross_validated(family, logits, labels, seed) for name, family in families.items()}
    maps = {name: _fit(family, logits, labels) for name, family in families.items()}
    parameters = {name: _parameters(fitted) for name, fitted in maps.items()}
    best = min(families, key=lambda name: float(losses[name].mean()))
    worse = {name: loss - losses[best] for name, loss in losses.items()}
    errors = {name: float(loss.std(ddof=1) / math.sqrt(len(loss))) for name, loss in worse.items()}
    chosen = best if len(labels) >= FLEXIBLE_ROWS else _few_rows_map(logits)
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
        few = _few_rows_map(logits)
        return few, _fit(_families(inverse, logits.ndim == 1)[few], logits, labels)
    chosen, candidates = fit_map(logits, labels, inverse, seed, rule)
    return next(candidate.name for candidate in candidates if candidate.chosen), chosen


class Family(NamedTuple):
    """Steps known beforehand, and what is fitted after them, one step after the other."""

    steps: tuple[Step, ...]
    fits: tuple[Fit, ...]


def _few_rows_map(scores: np.ndarray) -> str:
    return FEW_ROWS_MAP if scores.ndim == 1 else FEW_ROWS_CLASS_MAP


def _families(inverse: Inverse | None, two: bool) -> dict[str, Family]:
    """Candidates by name. Isotonic regression and Venn–Abers see only the order, which an inverse does not change."""
    starts: dict[str, tuple[Step, ...]] = {"": ()}
    if inverse is not None and not (isinstance(inverse, FocalInverse | ClasswiseInverse) and not inverse.improper):
        starts[str(inverse.__struct_config__.tag)] = (inverse,)
    families = {}
    for start, steps in starts.items():
        families[start or "identity"] = Family(steps or (Identity(),), ())
        for name, fits in (AFTER_INVERSE if two else OF_CLASSES).items():
            families[f"{start}+{name}".lstrip("+")] = Family(steps, fits)
    return families | {name: Family((), (fit,)) for name, fit in STEP_FUNCTIONS.items() if two}


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
    folds = min(MAP_FOLDS if len(labels) < MANY_ROWS else FEW_MAP_FOLDS, int(np.bincount(labels, minlength=2).min()))
    for seen, held_out in StratifiedKFold(folds, shuffle=True, random_state=seed).split(logits, labels):
        p = _fit(family, logits[seen], labels[seen]).probabilities(logits[held_out])
        losses[held_out] = log_losses(p, labels[held_out])
    return losses
