"""Held-out logits: every row gets one from a model that did not see it; the final model beside them.

A fine-tuning of a few layers is too small to fill several cores, but several side by side do: each is a process of
its own on one core (training/fit/process.py), so results do not depend on how many run at once.
"""

from pathlib import Path

import numpy as np
from msgspec import Struct

from models.prediction import positive_logits
from training.evaluate.estimates import roc_auc
from training.evaluate.folds import ONE_PART
from training.fit.encoding import Encoded
from training.fit.executors import Executor
from training.fit.finetune import Recipe, TrainingError
from training.fit.process import FineTuningJob, result_path, save_inputs
from training.fit.progress import TrainingProgress


class CrossFitOptions(Struct, frozen=True, kw_only=True):
    """What both `fit` and `compare-losses` are asked."""

    data: Path
    base: str | None = None
    recipe: Recipe = Recipe()
    feature: bool = True
    resume: bool = False
    quiet: bool = False


def crossfit(
    job: FineTuningJob, encoded: Encoded, labels: np.ndarray, folds: np.ndarray, *, work: Path, executor: Executor,
    progress: TrainingProgress, final: bool = True,
) -> np.ndarray:  # fmt: skip
    """Out-of-fold logits (n, K) float64, NaN in rows of no fold. ``encoded`` holds the texts of each fine-tuning.

    With ``final`` a model is also trained on all rows; its weights are kept as `process.final_weights`, as are those of
    the model that one part was held out of. Every finished fine-tuning is kept in ``work`` and taken from there when it
    exists. Raises TrainingError.
    """
    work.mkdir(parents=True, exist_ok=True)
    save_inputs(work, job, encoded, labels, folds)
    tasks = []
    for number in range(job.folds + (final and job.folds != ONE_PART)):
        if result_path(work, job, number).exists():
            seen = folds != number
            progress.advance(job.recipe.steps(int(seen.sum())))
        else:
            tasks.append(number)
    executor(work, job, tasks, progress)
    logits = np.full((len(labels), len(job.classes)), np.nan)
    for fold in range(job.folds):
        logits[folds == fold] = np.load(result_path(work, job, fold), allow_pickle=False)
    return logits


def check_scores(logits: np.ndarray, labels: np.ndarray) -> str:
    """A sentence where held-out logits (n, K), NaN in rows of no fold, may rank no better than chance, else "".

    Raises TrainingError where they rank backwards.
    """
    held = ~np.isnan(logits[:, 0])
    auc = roc_auc(positive_logits(logits[held]), labels[held])
    if auc.high < 0.5:
        raise TrainingError(
            f"the held-out scores rank the classes backwards (AUC {auc.value:.2f}, at most {auc.high:.2f}): what the "
            "model learns from some rows is the opposite of what holds for others; are rows that belong together in "
            "different folds (group in the description), or the labels mixed up?"
        )
    if auc.low <= 0.5:
        return f"the held-out scores may rank no better than chance (AUC {auc.value:.2f}, from {auc.low:.2f})"
    return ""
