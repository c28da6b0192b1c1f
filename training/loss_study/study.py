"""The losses side by side: each with each seed cross-fitted, calibrated and evaluated on the same rows and folds."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import sha256_of
from models.text import Renderer
from training.bundle.contents import class_counts
from training.data.table import Table, fold_known, render_texts
from training.evaluate.evaluation import Evaluation
from training.evaluate.folds import make_folds
from training.evaluate.nested import nested_evaluation
from training.fit.crossfit import CrossFitOptions, crossfit
from training.fit.encoding import Encoded, Pretrained, encode
from training.fit.epoch_diagnostics import LOG
from training.fit.executors import Executor
from training.fit.finetune import TrainingError
from training.fit.pipeline import classifier_config
from training.fit.pretrained import PACKAGE_NAME, find_base
from training.fit.process import FineTuningJob
from training.fit.progress import TrainingProgress
from training.loss_study.claims import evaluate_claims
from training.loss_study.comparison import REFERENCE, Comparison, count_tests, default_by_evidence, report_loss
from training.loss_study.contrasts import Run
from training.loss_study.tables import ComparisonReport
from training.losses.registry import LOSSES, Loss, LossChoice

ALL = (*LOSSES, "focal:note", "focal_smooth:note")
"""Compared by default: all losses, and with the research note's α the two that it used it for."""
COVERAGE = 0.9


class CompareOptions(CrossFitOptions, frozen=True, kw_only=True):
    """What ``python -m training compare-losses`` was asked to do."""

    work: Path
    folds: int = 5
    losses: tuple[str, ...] = ALL
    seeds: tuple[int, ...] = (0, 1, 2)


def loss_choices(names: Sequence[str]) -> dict[str, LossChoice]:
    """Losses by name as `LossChoice.parse` reads it, `REFERENCE` always the first. Raises LossError."""
    return {name: LossChoice.parse(name) for name in dict.fromkeys([REFERENCE, *names])}


@dataclass(frozen=True)
class Trial:
    """One loss with one seed; ``kept`` is where its out-of-fold logits (n, K) stay once they are whole."""

    name: str
    choice: LossChoice
    loss: Loss
    kept: Path

    @property
    def folder(self) -> Path:
        """Finished folds, as long as not all are."""
        return self.kept.with_suffix("")


@dataclass(frozen=True)
class SeedPlan:
    """What all losses of one seed share: folds (n,), what each fold's model knows, and its texts."""

    seed: int
    folds: np.ndarray
    known: tuple[Any, ...]
    texts: list[list[str]]
    trials: tuple[Trial, ...]
    steps: int


def compare_losses(options: CompareOptions, table: Table, executor: Executor) -> ComparisonReport:
    """Cross-fit every loss with every seed on the table, and report what differs.

    The logits of each are kept in the work folder under a name that stands for data, texts, base, loss, recipe, folds
    and seed, and everything after them is computed anew: ``resume`` takes what is there, so that losses and seeds can
    be added. A loss that cannot be trained is reported and loses no other. Raises DataError, LossError, BaseError,
    ValueError, and TrainingError when nothing could be trained.
    """
    if len(table.schema.classes) > 2:
        raise ValueError(
            f"compare-losses tests the research note's claims, which are of two classes, and the table has "
            f"{len(table.schema.classes)}; fit with one --loss and then another, and compare their evaluation.json"
        )
    base, tokenizer_path = find_base(options.base)
    base.print_notes(options.quiet)
    choices = loss_choices(options.losses)
    losses = {name: choice.make(table.schema.classes, table.labels) for name, choice in choices.items()}
    plans = _plans(options, table, sha256_of(base.weights), choices, losses)
    _prepare_folder(options, [trial for plan in plans for trial in plan.trials])
    steps = options.recipe.steps(int((plans[0].folds != 0).sum())) // options.recipe.runs
    comparison = Comparison(table.schema.classes, table.labels, losses, steps)
    done, total = 0, sum(plan.steps * len(plan.trials) for plan in plans)
    with TrainingProgress(options.work / LOG, total, options.quiet) as progress:
        study = _Study(options, executor, table, base, Tokenizer.load(tokenizer_path, base.max_tokens), progress)
        for plan in plans:
            encoded = None if all(trial.kept.exists() for trial in plan.trials) else study.encode(plan)
            for trial in plan.trials:
                study.run(plan, trial, encoded, comparison)
                done += plan.steps
                progress.reach(done)
    if not comparison.runs:
        name, failed = next(iter(comparison.failures.items()))
        raise TrainingError(f"no loss could be trained; {name}: {next(iter(failed.values()))}")
    return _report(options, table, comparison)


@dataclass(frozen=True)
class _Study:
    """What all trials need."""

    options: CompareOptions
    executor: Executor
    table: Table
    base: Pretrained
    tokenizer: Tokenizer
    progress: TrainingProgress

    def encode(self, plan: SeedPlan) -> Encoded:
        return encode(self.base, self.tokenizer, plan.texts, self.options.recipe.trained_layers)

    def run(self, plan: SeedPlan, trial: Trial, encoded: Encoded | None, comparison: Comparison) -> None:
        """Train and evaluate; add to ``comparison`` the run and its evaluation, or what stopped it."""
        title = f"{trial.name}, seed {plan.seed}"
        self.progress.phase(title)
        try:
            logits = self._logits(plan, trial, encoded)
        except TrainingError as error:
            comparison.failures.setdefault(trial.name, {})[plan.seed] = str(error)
            shutil.rmtree(trial.folder, ignore_errors=True)
            self.progress.phase(f"{title}: {error}")
            return
        evaluation, predictions = nested_evaluation(
            logits, self.table.labels, plan.folds, self.table.rows, self.table.schema, plan.known,
            inverse=trial.loss.inverse(comparison.steps), coverage=COVERAGE, seed=plan.seed, with_baselines=False,
        )  # fmt: skip
        assert isinstance(evaluation, Evaluation), "tables of more than two classes were refused"
        comparison.runs.setdefault(trial.name, {})[plan.seed] = Run(logits, predictions.calibrated)
        comparison.evaluations.setdefault(trial.name, {})[plan.seed] = evaluation

    def _logits(self, plan: SeedPlan, trial: Trial, encoded: Encoded | None) -> np.ndarray:
        """The kept logits (n, K), or new ones, kept as soon as they are whole."""
        if trial.kept.exists() or encoded is None:
            return np.asarray(np.load(trial.kept, allow_pickle=False))
        job = FineTuningJob(
            classes=self.table.schema.classes, config=classifier_config(self.base.config, self.table.schema),
            weights=str(self.base.weights), loss=trial.choice, recipe=self.options.recipe, seed=plan.seed,
            folds=self.options.folds, start=encoded.start,
        )  # fmt: skip
        (logits,) = crossfit(
            job, encoded, self.table.labels, plan.folds[None], work=trial.folder, executor=self.executor,
            progress=self.progress, final=False,
        )  # fmt: skip
        partial = trial.folder / "logits.npy"
        np.save(partial, logits, allow_pickle=False)
        partial.replace(trial.kept)
        shutil.rmtree(trial.folder, ignore_errors=True)
        return np.asarray(logits)


def _plans(
    options: CompareOptions, table: Table, weights: str, choices: dict[str, LossChoice], losses: dict[str, Loss]
) -> list[SeedPlan]:
    plans, renderer = [], Renderer(table.schema)
    for seed in options.seeds:
        folds = make_folds(table.labels, options.folds, seed)
        known = fold_known(renderer, table.rows, table.labels, folds, options.feature)
        texts = render_texts(renderer, table.rows, known)
        trials = []
        for name, choice in choices.items():
            made_from = [table.sha256, texts, weights, losses[name], options.recipe, options.folds, seed]
            digest = hashlib.sha256(msgspec.json.encode(made_from)).hexdigest()
            kept = options.work / f"{name.replace(':', '-')}-seed-{seed}-{digest[:12]}.npy"
            trials.append(Trial(name, choice, losses[name], kept))
        steps = sum(options.recipe.steps(int((folds != fold).sum())) for fold in range(options.folds))
        plans.append(SeedPlan(seed, folds, known, texts, tuple(trials), steps))
    return plans


def _prepare_folder(options: CompareOptions, trials: Sequence[Trial]) -> None:
    """Make the work folder; remove what an earlier run with these settings left there, unless it is to be resumed.

    Raises ValueError when there is nothing to resume.
    """
    options.work.mkdir(parents=True, exist_ok=True)
    if options.resume:
        if not any(trial.kept.exists() or trial.folder.exists() for trial in trials):
            raise ValueError(f"--resume: {options.work} holds nothing of a run with these settings and data")
        return
    for trial in trials:
        trial.kept.unlink(missing_ok=True)
        shutil.rmtree(trial.folder, ignore_errors=True)


def _report(options: CompareOptions, table: Table, comparison: Comparison) -> ComparisonReport:
    losses = {name: report_loss(comparison, name) for name in comparison.losses}
    return ComparisonReport(
        data_sha256=table.sha256, base=options.base or PACKAGE_NAME, rows=len(table), classes=class_counts(table),
        seeds=options.seeds, folds=options.folds, feature=options.feature, recipe=options.recipe, losses=losses,
        tests=count_tests(losses.values()), claims=evaluate_claims(comparison, np.random.default_rng(options.seeds[0])),
        default=default_by_evidence(comparison),
    )  # fmt: skip
