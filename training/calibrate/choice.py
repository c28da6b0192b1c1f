"""Choose the calibration map: candidates compared by cross-validated log loss."""

import math
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple

import numpy as np
from sklearn.model_selection import StratifiedKFold

from models.calibration.class_maps import MatrixScaling, VectorScaling
from models.calibration.inverse import ClasswiseInverse, FocalInverse, LossInverse
from models.calibration.maps import CalibrationMap, Candidate, Identity, Isotonic, Step
from models.calibration.venn_abers import MergedVennAbers
from training.calibrate.class_maps import (
    fit_class_temperature,
    fit_matrix_scaling,
    fit_vector_scaling,
)
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
STACKED_MAP = "half_venn_abers"
"""After a stack, which fitted slope and offset already (docs/decisions/stack.md)."""
FLEXIBLE_ROWS_OF_CLASS = 50
FEW_ROWS_CLASS_MAPS = ("classwise_inverse+temperature", "vector_scaling")
"""The same where there are more than two classes, in rows for each of them, and the map: the first where the loss has
such an inverse, else the second (docs/decisions/several-classes.md)."""
MAX_MATRIX_CLASSES = 30
"""Of more, a matrix has a thousand numbers, and takes minutes."""

Inverse = FocalInverse | LossInverse | ClasswiseInverse
MapRule = Literal["least", "one_standard_error"]
MAP_RULES: tuple[MapRule, ...] = ("least", "one_standard_error")
Fit = Callable[[np.ndarray, np.ndarray], Step]

AFTER_INVERSE: dict[str, tuple[Fit, ...]] = {
    "temperature": (fit_temperature,), "platt": (fit_platt,), "beta": (fit_beta,),
    FEW_ROWS_MAP: (fit_platt, fit_half_venn_abers),
}  # fmt: skip
AFTER_INVERSE_OF_CLASSES: dict[str, tuple[Fit, ...]] = {
    "temperature": (fit_class_temperature,), "vector_scaling": (fit_class_temperature, fit_vector_scaling),
    "matrix_scaling": (fit_class_temperature, fit_matrix_scaling),
}  # fmt: skip
"""Where there are more than two classes."""
STEP_FUNCTIONS: dict[str, Fit] = {"isotonic": fit_isotonic, "venn_abers": fit_merged_venn_abers}


def fit_map(
    logits: np.ndarray, labels: np.ndarray, inverse: Inverse | None, seed: int, rule: MapRule = "least",
    stacked: bool = False,
) -> tuple[CalibrationMap, tuple[Candidate, ...]]:  # fmt: skip
    """The map of `calibration_scores` (n,) or (n, K), chosen by cross-validated log loss, and all candidates with their
    paired distance to the best.

    ``rule`` "least" takes the best from `FLEXIBLE_ROWS` rows on, and below them `FEW_ROWS_MAP`; of more than two
    classes from `FLEXIBLE_ROWS_OF_CLASS` on, and below them one of `FEW_ROWS_CLASS_MAPS`. "one_standard_error" takes,
    among those not worse than the best by more than the standard error of the paired difference, the one with the
    fewest parameters (Breiman et al., 1984, section 3.4.3). Where the loss's inverse is known, maps with and without it
    compete. Scores that were ``stacked`` had slope and offset by that: where rows are few, half Venn–Abers alone
    is fitted to them, and nothing with more classes.
    """
    families = _families(inverse, _classes(logits), stacked)
    losses = {name: _cross_validated(family, logits, labels, seed) for name, family in families.items()}
    maps = {name: _fit(family, logits, labels) for name, family in families.items()}
    parameters = {name: _parameters(fitted) for name, fitted in maps.items()}
    best = min(families, key=lambda name: float(losses[name].mean()))
    worse = {name: loss - losses[best] for name, loss in losses.items()}
    errors = {name: float(loss.std(ddof=1) / math.sqrt(len(loss))) for name, loss in worse.items()}
    chosen = _fixed_map(logits, families, stacked) or best
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
    logits: np.ndarray, labels: np.ndarray, inverse: Inverse | None, seed: int, rule: MapRule = "least",
    stacked: bool = False,
) -> tuple[str, CalibrationMap]:  # fmt: skip
    """The name and the map that `fit_map` chooses; nothing is scored where scores decide nothing."""
    families = _families(inverse, _classes(logits), stacked)
    if rule == "least" and (few := _fixed_map(logits, families, stacked)):
        return few, _fit(families[few], logits, labels)
    chosen, candidates = fit_map(logits, labels, inverse, seed, rule, stacked)
    return next(candidate.name for candidate in candidates if candidate.chosen), chosen


class Family(NamedTuple):
    """Steps known beforehand, and what is fitted after them, one step after the other."""

    steps: tuple[Step, ...]
    fits: tuple[Fit, ...]


def _classes(scores: np.ndarray) -> int:
    return 2 if scores.ndim == 1 else scores.shape[1]


def _fixed_map(scores: np.ndarray, families: dict[str, Family], stacked: bool) -> str | None:
    """The map that is taken of so few rows, whatever the scores of the candidates; None where there are enough."""
    if len(scores) >= (FLEXIBLE_ROWS if scores.ndim == 1 else FLEXIBLE_ROWS_OF_CLASS * scores.shape[1]):
        return None
    if stacked:
        return STACKED_MAP if scores.ndim == 1 else "identity"
    if scores.ndim == 1:
        return FEW_ROWS_MAP
    return next(name for name in FEW_ROWS_CLASS_MAPS if name in families)


def _families(inverse: Inverse | None, classes: int, stacked: bool = False) -> dict[str, Family]:
    """Candidates by name. Isotonic regression and Venn–Abers see only the order, which an inverse does not change."""
    starts: dict[str, tuple[Step, ...]] = {"": ()}
    if inverse is not None and not (isinstance(inverse, FocalInverse | ClasswiseInverse) and not inverse.improper):
        starts[str(inverse.__struct_config__.tag)] = (inverse,)
    families = {}
    for start, steps in starts.items():
        families[start or "identity"] = Family(steps or (Identity(),), ())
        for name, fits in (AFTER_INVERSE if classes == 2 else AFTER_INVERSE_OF_CLASSES).items():
            if fit_matrix_scaling in fits and classes > MAX_MATRIX_CLASSES:
                continue
            families[f"{start}+{name}".lstrip("+")] = Family(steps, fits)
    if classes == 2:
        functions = STEP_FUNCTIONS | ({STACKED_MAP: fit_half_venn_abers} if stacked else {})
        families |= {name: Family((), (fit,)) for name, fit in functions.items()}
    return families


def _parameters(fitted: CalibrationMap) -> int:
    return sum(map(_parameters_of_step, fitted.steps))


def _parameters_of_step(step: Step) -> int:
    if isinstance(step, Isotonic):
        return len(set(step.probabilities))
    if isinstance(step, MergedVennAbers):
        return len(set(zip(step.predictor.p0, step.predictor.p1, strict=True)))
    if isinstance(step, VectorScaling | MatrixScaling):
        return np.size(step.weights) + np.size(step.offsets)
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
    for seen, held_out in parts_of_rows(logits, labels, MAP_FOLDS if len(labels) < MANY_ROWS else FEW_MAP_FOLDS, seed):
        p = _fit(family, logits[seen], labels[seen]).probabilities(logits[held_out])
        losses[held_out] = log_losses(p, labels[held_out])
    return losses


def parts_of_rows(
    scores: np.ndarray, labels: np.ndarray, parts: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows to fit on and to score on, each class spread over the parts as evenly as it can be.

    Of two classes, no more parts than the rarer one has rows; of more, a part may be without a rare one, which must not
    decide how little all others are fitted on.
    """
    if scores.ndim == 1:
        folds = StratifiedKFold(
            min(parts, int(np.bincount(labels, minlength=2).min())), shuffle=True, random_state=seed
        )
        yield from folds.split(scores, labels)
        return
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    for part in range(min(parts, len(labels))):
        held_out = np.arange(len(labels)) % parts == part
        yield order[~held_out], order[held_out]
