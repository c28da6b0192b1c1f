"""Held-out logits: every row gets one from a model that did not see it; the final model beside them.

A fine-tuning of a few layers is too small to fill several cores, but several side by side do: each is a process of
its own on one core (training/fit/process.py), so results do not depend on how many run at once.
"""

import contextlib
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
from msgspec import Struct

from models.calibration.logit import calibration_scores, one_vs_rest
from training.evaluate.estimates import Estimate, roc_auc
from training.fit.encoding import Encoded
from training.fit.epoch_diagnostics import EpochDiagnostics
from training.fit.executors import Executor
from training.fit.finetune import Recipe, TrainingError, finetune
from training.fit.process import FineTuningJob, result_path, save_inputs
from training.fit.progress import TrainingProgress

MEASURED_STEPS, FORETOLD_STEPS, LONG_SECONDS = 3, 200, 120
"""Steps that are measured; so few in all are not worth it; and what is long enough to say how to shorten it."""

MANY_SEEDS = "with --seeds 1 it is shorter, and the spread between seeds is not known"


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
    """Out-of-fold logits (S, n, K) float64 by the folds (S, n) of each of the job's seeds, NaN in rows of no fold.
    ``encoded`` holds the texts of each fine-tuning.

    With ``final`` a model is also trained on all rows; its weights are kept as `process.final_weights`, as are those of
    the model that one part was held out of. Every finished fine-tuning is kept in ``work`` and taken from there when it
    exists. Raises TrainingError.
    """
    work.mkdir(parents=True, exist_ok=True)
    save_inputs(work, job, encoded, labels, folds)
    tasks = []
    for number, seen in enumerate(rows_seen(job, folds)):
        if not final and job.held_out(number)[1] == job.folds:
            continue
        if result_path(work, job, number).exists():
            progress.advance(job.recipe.steps(seen))
        else:
            tasks.append(number)
    executor(work, job, tasks, progress)
    logits = np.full((*folds.shape, len(job.classes)), np.nan)
    for number in range(len(job.phases)):
        place, fold = job.held_out(number)
        if fold < job.folds:
            logits[place, folds[place] == fold] = np.load(result_path(work, job, number), allow_pickle=False)
    return logits


def rows_seen(job: FineTuningJob, folds: np.ndarray) -> list[int]:
    """Rows that each fine-tuning is trained on, by the folds (S, n)."""
    held_out = map(job.held_out, range(len(job.phases)))
    return [int((folds[place] != fold).sum()) for place, fold in held_out]


class _Stopwatch:
    """A `progress.Listener` that ends a fine-tuning after a few steps, and knows how long the fastest took."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def advance(self, steps: int = 1) -> None:
        self.times.append(time.monotonic())
        if len(self.times) > MEASURED_STEPS:
            raise _MeasuredError

    def epoch(self, diagnostics: EpochDiagnostics) -> None:
        pass

    def note(self, sentence: str) -> None:
        pass

    @property
    def seconds(self) -> float:
        return min((after - before for before, after in pairwise(self.times)), default=0.0)


class _MeasuredError(Exception):
    """Enough steps were measured."""


def foretell(job: FineTuningJob, encoded: Encoded, labels: np.ndarray, folds: np.ndarray) -> str:
    """A sentence on how long training will take on this machine, measured by a few steps; "" where it is short.

    A step on all cores stands for one on one core while others run on the rest, which is a little faster.
    """
    steps = sum(map(job.recipe.steps, rows_seen(job, folds)))
    if steps < FORETOLD_STEPS:
        return ""
    seen, watch = np.flatnonzero(folds[0] != 0), _Stopwatch()
    with contextlib.suppress(_MeasuredError):
        finetune(
            job.pretrained, encoded.for_model(0), labels, seen, recipe=job.recipe,
            loss=job.loss.make(job.classes, labels[seen]), seed=job.seed, phase="", progress=watch,
        )  # fmt: skip
    seconds, tokens = steps * watch.seconds, float(encoded.for_model(0).lengths(seen).mean())
    lasts = f"{seconds:.0f} seconds" if seconds < LONG_SECONDS else f"{seconds / 60:.0f} minutes"
    sentence = f"training takes about {lasts}: {steps} steps of {job.recipe.batch_rows} texts of {tokens:.0f} tokens"
    if job.seeds > 1:
        sentence += f", for {job.seeds} seeds; {MANY_SEEDS}"
    if seconds < LONG_SECONDS:
        return sentence
    ways = ["fewer --max-steps", "fewer words to a row"] + ["fewer --folds"] * (job.folds > 1)
    return f"{sentence}. It is shorter with {', '.join(ways[:-1])} or {ways[-1]}"


def check_scores(logits: np.ndarray, labels: np.ndarray) -> str:
    """A sentence where held-out logits (n, K), NaN in rows of no fold, may rank no better than chance, else "".

    Of more than two classes it is about each against all others, on average. Raises TrainingError where they rank
    backwards.
    """
    held = ~np.isnan(logits[:, 0])
    auc = ranking(logits[held], labels[held])
    if auc.high < 0.5:
        raise TrainingError(
            f"the held-out scores rank the classes backwards (AUC {auc.value:.2f}, at most {auc.high:.2f}): what the "
            "model learns from some rows is the opposite of what holds for others; are rows that belong together in "
            "different folds (group in the description), or the labels mixed up?"
        )
    if auc.low <= 0.5:
        return f"the held-out scores may rank no better than chance (AUC {auc.value:.2f}, from {auc.low:.2f})"
    return ""


def ranking(logits: np.ndarray, labels: np.ndarray) -> Estimate:
    """The area under the ROC curve of logits (n, K): of the positive of two classes, of more each against all others,
    averaged over those that are there.

    The average's standard error is at most the mean of the errors, whatever their correlations.
    """
    scores = calibration_scores(logits)
    if scores.ndim == 1:
        return roc_auc(scores, labels)
    each = [roc_auc(odds, labels == k) for k, odds in enumerate(one_vs_rest(scores).T)]
    known = [auc for auc in each if not np.isnan(auc.standard_error)] or each[:1]
    return Estimate(*np.mean([(auc.value, auc.standard_error, auc.low, auc.high) for auc in known], axis=0).tolist())
