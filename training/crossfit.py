"""K-fold fine-tuning: every row gets a logit from a model that did not see it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from sklearn.model_selection import StratifiedKFold

from training.finetune import Encoded, Pretrained, Recipe, finetune, predict
from training.losses import Loss
from training.progress import TrainingProgress


def make_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold number (n,) of each row, 0 … folds − 1, stratified by label.

    Raises ValueError when a class has fewer rows than there are folds.
    """
    smallest = int(np.bincount(labels, minlength=2).min())
    if not 2 <= folds <= smallest:
        raise ValueError(f"folds is {folds}; it must be at least 2 and at most {smallest}, the rows of the rarer class")
    assigned = np.empty(len(labels), np.int64)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        assigned[held_out] = fold
    return assigned


def crossfit(
    base: Pretrained, encoded: Encoded, labels: np.ndarray, folds: np.ndarray, *, recipe: Recipe,
    make_loss: Callable[[np.ndarray], Loss], seed: int, progress: TrainingProgress, checkpoints: Path | None = None,
) -> np.ndarray:  # fmt: skip
    """Out-of-fold logits z = logit_survived − logit_died (n,) float64.

    ``make_loss`` gets the labels of a fold's training rows, so that weights come from those rows alone.
    A finished fold is kept in ``checkpoints`` and taken from there when it exists.
    """
    logits = np.empty(len(labels))
    count = int(folds.max()) + 1
    for fold in range(count):
        seen, held_out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
        kept = checkpoints / f"fold-{fold + 1}.npy" if checkpoints else None
        if kept is not None and kept.exists():
            logits[held_out] = np.load(kept, allow_pickle=False)
            progress.advance(recipe.steps(len(seen)))
            continue
        phase = f"fold {fold + 1} of {count}"
        progress.phase(phase)
        model = finetune(
            base, encoded, labels, seen, recipe=recipe, loss=make_loss(labels[seen]),
            seed=seed + fold, phase=phase, progress=progress,
        )  # fmt: skip
        pair = predict(model, encoded, held_out)
        logits[held_out] = pair[:, 1] - pair[:, 0]
        if kept is not None:
            partial = kept.with_suffix(".partial.npy")
            np.save(partial, logits[held_out], allow_pickle=False)
            partial.rename(kept)
    return logits
