"""K-fold fine-tuning: every row gets a logit from a model that did not see it; the final model beside them.

A fine-tuning of a few layers is too small to fill several cores, but several side by side do: each is a process of
its own on one core (training/fit/process.py), so results do not depend on how many run at once.
"""

from pathlib import Path

import numpy as np
from msgspec import Struct
from sklearn.model_selection import StratifiedKFold

from training.fit.encoding import Encoded
from training.fit.executors import Executor
from training.fit.finetune import Recipe
from training.fit.process import FineTuningJob, result_path, save_inputs
from training.fit.progress import TrainingProgress


class CrossFitOptions(Struct, frozen=True, kw_only=True):
    """What both `fit` and `compare-losses` are asked."""

    data: Path
    base: str | None = None
    recipe: Recipe = Recipe()
    folds: int = 5
    feature: bool = True
    resume: bool = False
    quiet: bool = False


def make_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """Fold number (n,) of each row, 0 … folds − 1, stratified by label.

    Raises ValueError when a class has fewer rows than there are folds.
    """
    smallest = int(np.bincount(labels).min())
    if not 2 <= folds <= smallest:
        raise ValueError(f"folds is {folds}; it must be at least 2 and at most {smallest}, the rows of the rarer class")
    assigned = np.empty(len(labels), np.int64)
    splitter = StratifiedKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        assigned[held_out] = fold
    return assigned


def crossfit(
    job: FineTuningJob, encoded: Encoded, labels: np.ndarray, folds: np.ndarray, *, work: Path, executor: Executor,
    progress: TrainingProgress, final: bool = True,
) -> np.ndarray:  # fmt: skip
    """Out-of-fold logits (n, K) float64. ``encoded`` holds the texts of each fine-tuning.

    With ``final`` a model is also trained on all rows; its weights are kept as `process.final_weights`. Every finished
    fine-tuning is kept in ``work`` and taken from there when it exists. Raises TrainingError.
    """
    work.mkdir(parents=True, exist_ok=True)
    save_inputs(work, job, encoded, labels, folds)
    tasks = []
    for number in range(job.folds + final):
        if result_path(work, job, number).exists():
            seen = folds != number
            progress.advance(job.recipe.steps(int(seen.sum())))
        else:
            tasks.append(number)
    executor(work, job, tasks, progress)
    logits = np.empty((len(labels), len(job.classes)))
    for fold in range(job.folds):
        logits[folds == fold] = np.load(result_path(work, job, fold), allow_pickle=False)
    return logits
