"""Fit the stack on held-out scores of all models; choose its second models, or none, by cross-validated log loss."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from msgspec import Struct
from scipy.optimize import minimize

from models.calibration.logit import log_softmax, score_probabilities
from models.calibration.stack import Stack
from training.calibrate.choice import FEW_MAP_FOLDS, MANY_ROWS, MAP_FOLDS, Inverse, parts_of_rows
from training.calibrate.maps import MAX_SLOPE, log_losses

ALONE = "none"
"""The name of the model alone among the candidates."""
SHRINKAGE, OFFSET_SHRINKAGE = 2.0, 5.0
"""Penalties of n times the mean log loss: of the squared distance of the weights from where they are drawn to, and of
the offsets' squares (docs/decisions/stack.md)."""

Scores = Mapping[str, np.ndarray]
"""Second model's name → its held-out scores, (n,) or (n, K)."""


class StackSettings(Struct, frozen=True, kw_only=True):
    """``candidates`` are the sets of second models that are tried, beside none where ``may_be_none``; ``towards`` are
    the weights that the fit is drawn to, by default equal ones."""

    candidates: tuple[tuple[str, ...], ...] = ()
    may_be_none: bool = True
    towards: Stack | None = None


NO_STACK = StackSettings()


def all_candidates(names: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Every set of these second models, but for those of a linear model beside words, which hold its columns."""
    kept = [name for name in names if name != "linear" or "words" not in names]
    return tuple(chosen for size in range(1, len(kept) + 1) for chosen in combinations(kept, size))


def fit_stack(
    scores: np.ndarray, seconds: Scores, labels: np.ndarray, inverse: Inverse | None = None,
    towards: Stack | None = None,
) -> Stack:  # fmt: skip
    """Weights in [0, 50] and offsets of least log loss plus (`SHRINKAGE` Σ (weight − w)² + `OFFSET_SHRINKAGE` Σ
    offset²) / n, w the weights of ``towards``, or one over their number each.

    ``scores`` (n,) or (n, K) are `calibration_scores`. The problem is convex, so its one minimum is found.
    """
    inverse = None if inverse is None or not getattr(inverse, "improper", True) else inverse
    own = scores if inverse is None else inverse(scores)
    models = np.stack([_class_scores(each) for each in (own, *seconds.values())])
    start = np.full(len(models), 1 / len(models))
    if towards is not None:
        start = np.array([towards.own, *(towards.others[name] for name in seconds)])
    n, classes = models.shape[1:]
    # Of two classes one offset, of their difference.
    offset_of = np.array([[-0.5, 0.5]]) if classes == 2 else np.eye(classes)
    wanted, count = np.eye(classes)[labels], len(models)

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights, offsets = parameters[:count], parameters[count:]
        fitted = log_softmax(np.tensordot(weights, models, 1) + offsets @ offset_of)
        residual, away = (np.exp(fitted) - wanted) / n, weights - start
        penalty = (SHRINKAGE * (away @ away) + OFFSET_SHRINKAGE * (offsets @ offsets)) / n
        gradient = np.concatenate([
            (models * residual).sum(axis=(1, 2)) + 2 * SHRINKAGE / n * away,
            offset_of @ residual.sum(axis=0) + 2 * OFFSET_SHRINKAGE / n * offsets,
        ])  # fmt: skip
        return float(-(fitted * wanted).sum() / n + penalty), gradient

    bounds = [(0.0, MAX_SLOPE)] * count + [(-10 * MAX_SLOPE, 10 * MAX_SLOPE)] * len(offset_of)
    minimum = minimize(
        loss, np.concatenate([start, np.zeros(len(offset_of))]), jac=True, method="L-BFGS-B", bounds=bounds,
        options={"ftol": 1e-13, "gtol": 1e-8, "maxiter": 1000},
    )  # fmt: skip
    found = minimum.x.tolist()
    others = dict(zip(seconds, found[1:count], strict=True))
    return Stack(own=found[0], others=others, offsets=tuple(found[count:]), inverse=inverse)


def choose_stack(
    scores: np.ndarray, seconds: Scores, labels: np.ndarray, inverse: Inverse | None, seed: int,
    settings: StackSettings,
) -> Stack | None:  # fmt: skip
    """The stack of all second models, or of fewer, or none, where that has a lower cross-validated log loss by more
    than a standard error of the paired difference: what is no use gets no weight, and choices by luck cost more."""
    if not settings.candidates:
        return None
    everything = settings.candidates[-1]
    fewer = [*([()] if settings.may_be_none else []), *settings.candidates[:-1]]
    chosen = everything
    if fewer:
        losses = {
            names: _cross_validated(scores, _pick(seconds, names), labels, inverse, seed, settings.towards)
            for names in (everything, *fewer)
        }
        behind = {names: losses[everything] - losses[names] for names in fewer}
        ahead = [names for names, by in behind.items() if by.mean() > by.std(ddof=1) / math.sqrt(len(by))]
        chosen = max(ahead, key=lambda names: float(behind[names].mean()), default=everything)
    return fit_stack(scores, _pick(seconds, chosen), labels, inverse, settings.towards) if chosen else None


def _pick(seconds: Scores, names: Sequence[str]) -> Scores:
    return {name: seconds[name] for name in names}


def _cross_validated(
    scores: np.ndarray, seconds: Scores, labels: np.ndarray, inverse: Inverse | None, seed: int, towards: Stack | None
) -> np.ndarray:
    """Log loss (n,) of rows under a stack, or without second models under the same fit of the model alone, that was
    fitted without them."""
    losses = np.empty(len(labels))
    for seen, here in parts_of_rows(scores, labels, MAP_FOLDS if len(labels) < MANY_ROWS else FEW_MAP_FOLDS, seed):
        first = {name: each[seen] for name, each in seconds.items()}
        if not seconds:
            # Stacked with nothing: one weight, offsets, and the same penalties.
            first, seconds_here = {ALONE: np.zeros_like(scores[seen])}, {ALONE: np.zeros_like(scores[here])}
        else:
            seconds_here = {name: each[here] for name, each in seconds.items()}
        stack = fit_stack(scores[seen], first, labels[seen], inverse, towards)
        p = score_probabilities(stack(scores[here], seconds_here))
        losses[here] = log_losses(p, labels[here])
    return losses


def _class_scores(scores: np.ndarray) -> np.ndarray:
    """Scores of each class (n, K), of two classes half the log-odds for one and against the other."""
    return np.stack([-scores / 2, scores / 2], axis=1) if scores.ndim == 1 else scores
