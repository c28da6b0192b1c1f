"""The losses side by side: each with each seed cross-fitted, calibrated and judged on the same rows and folds."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from msgspec import Struct

from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import sha256_of
from models.features.titanic import Companions
from training.data.table import Table, fold_companions, read_table, told
from training.evaluate.evaluation import Evaluation, nested_evaluation
from training.fit.crossfit import crossfit, make_folds
from training.fit.epoch_diagnostics import LOG
from training.fit.executors import Engine
from training.fit.finetune import Encoded, Pretrained, Recipe, TrainingError, encode
from training.fit.pretrained import PACKAGE_NAME, find_base
from training.fit.process import Job
from training.fit.progress import TrainingProgress
from training.loss_study.claims import judge_claims
from training.loss_study.comparison import REFERENCE, Comparison, count_tests, default_by_evidence, report_loss
from training.loss_study.contrasts import Run
from training.loss_study.tables import ComparisonReport
from training.losses.registry import LOSSES, Loss, LossChoice

ALL = (*LOSSES, "focal:note", "focal_smooth:note")
"""Compared by default: all losses, and with the research note's α the two that it used it for."""
COVERAGE = 0.9


class CompareOptions(Struct, frozen=True, kw_only=True):
    """What ``python -m training compare-losses`` was asked to do."""

    data: Path
    work: Path
    base: str | None = None
    losses: tuple[str, ...] = ALL
    seeds: tuple[int, ...] = (0, 1, 2)
    recipe: Recipe = Recipe()
    folds: int = 5
    companions: bool = True
    resume: bool = False
    quiet: bool = False


def loss_choices(names: Sequence[str]) -> dict[str, LossChoice]:
    """Losses by name as `LossChoice.parse` reads it, `REFERENCE` always the first. Raises LossError."""
    return {name: LossChoice.parse(name) for name in dict.fromkeys([REFERENCE, *names])}


@dataclass(frozen=True)
class Trial:
    """One loss with one seed; ``kept`` is where its out-of-fold logits (n,) stay once they are whole."""

    name: str
    choice: LossChoice
    loss: Loss
    seed: int
    kept: Path

    @property
    def folder(self) -> Path:
        """Finished folds, as long as not all are."""
        return self.kept.with_suffix("")


@dataclass(frozen=True)
class Round:
    """What all losses of one seed share: folds (n,), the companions and the texts of each fold's model, the trials."""

    seed: int
    folds: np.ndarray
    companions: tuple[Companions, ...]
    texts: list[list[str]]
    trials: tuple[Trial, ...]


@dataclass
class Results:
    """By loss and seed: what could be trained, and what stopped the others."""

    runs: dict[str, dict[int, Run]] = field(default_factory=dict)
    evaluations: dict[str, dict[int, Evaluation]] = field(default_factory=dict)
    failures: dict[str, dict[int, str]] = field(default_factory=dict)


def compare_losses(options: CompareOptions, engine: Engine) -> ComparisonReport:
    """Cross-fit every loss with every seed, and report what differs.

    The logits of each are kept in the work folder under a name that stands for data, texts, base, loss, recipe, folds
    and seed, and everything after them is computed anew: ``resume`` takes what is there, so that losses and seeds can
    be added. A loss that cannot be trained is reported and loses no other. Raises DataError, LossError, BaseError,
    ValueError, and TrainingError when nothing could be trained.
    """
    table, (base, tokenizer_path) = read_table(options.data), find_base(options.base)
    choices = loss_choices(options.losses)
    losses = {name: choice.make(table.labels) for name, choice in choices.items()}
    weights = sha256_of(base.weights)
    rounds = [_round(options, table, weights, choices, losses, seed) for seed in options.seeds]
    _prepare_folder(options, rounds)
    tokenizer = Tokenizer.load(tokenizer_path, int(base.config["max_position_embeddings"]))
    steps = options.recipe.steps(int((rounds[0].folds != 0).sum())) // options.recipe.runs
    results = _run(options, engine, table, base, tokenizer, rounds, steps)
    if not results.runs:
        name, failed = next(iter(results.failures.items()))
        raise TrainingError(f"no loss could be trained; {name}: {next(iter(failed.values()))}")
    comparison = Comparison(
        labels=table.labels, losses=losses, runs=results.runs, evaluations=results.evaluations,
        failures=results.failures, steps=steps,
    )  # fmt: skip
    return _report(options, table, comparison)


def _run(
    options: CompareOptions, engine: Engine, table: Table, base: Pretrained, tokenizer: Tokenizer,
    rounds: Sequence[Round], steps: int,
) -> Results:  # fmt: skip
    results, done = Results(), 0
    total = sum(_steps(options.recipe, one.folds) * len(one.trials) for one in rounds)
    with TrainingProgress(options.work / LOG, total, options.quiet) as progress:
        for one in rounds:
            encoded = None
            for trial in one.trials:
                progress.phase(f"{trial.name}, seed {trial.seed}")
                if encoded is None and not trial.kept.exists():
                    encoded = encode(base, tokenizer, one.texts, options.recipe.trained_layers)
                try:
                    logits = _logits(options, engine, base, encoded, table.labels, one, trial, progress)
                    _judge(results, table, one, trial, logits, steps)
                except TrainingError as error:
                    results.failures.setdefault(trial.name, {})[trial.seed] = str(error)
                    shutil.rmtree(trial.folder, ignore_errors=True)
                    progress.phase(f"{trial.name}, seed {trial.seed}: {error}")
                done += _steps(options.recipe, one.folds)
                progress.reach(done)
    return results


def _steps(recipe: Recipe, folds: np.ndarray) -> int:
    return sum(recipe.steps(int((folds != fold).sum())) for fold in np.unique(folds))


def _round(
    options: CompareOptions, table: Table, weights: str, choices: dict[str, LossChoice], losses: dict[str, Loss],
    seed: int,
) -> Round:  # fmt: skip
    folds = make_folds(table.labels, options.folds, seed)
    companions = fold_companions(table.passengers, table.labels, folds, options.companions)
    texts = told(table.passengers, companions)

    def kept(name: str) -> Path:
        made_from = [table.sha256, texts, weights, losses[name], options.recipe, options.folds, seed]
        digest = hashlib.sha256(msgspec.json.encode(made_from)).hexdigest()
        return options.work / f"{name.replace(':', '-')}-seed-{seed}-{digest[:12]}.npy"

    trials = (Trial(name, choice, losses[name], seed, kept(name)) for name, choice in choices.items())
    return Round(seed, folds, companions, texts, tuple(trials))


def _prepare_folder(options: CompareOptions, rounds: Sequence[Round]) -> None:
    """Make the work folder; remove what an earlier run with these settings left there, unless it is to be resumed.

    Raises ValueError when there is nothing to resume.
    """
    options.work.mkdir(parents=True, exist_ok=True)
    trials = [trial for one in rounds for trial in one.trials]
    if options.resume:
        if not any(trial.kept.exists() or trial.folder.exists() for trial in trials):
            raise ValueError(f"--resume: {options.work} holds nothing of a run with these settings and data")
        return
    for trial in trials:
        trial.kept.unlink(missing_ok=True)
        shutil.rmtree(trial.folder, ignore_errors=True)


def _logits(
    options: CompareOptions, engine: Engine, base: Pretrained, encoded: Encoded | None, labels: np.ndarray, one: Round,
    trial: Trial, progress: TrainingProgress,
) -> np.ndarray:  # fmt: skip
    """The kept logits (n,), or new ones, kept as soon as they are whole."""
    if trial.kept.exists() or encoded is None:
        return np.asarray(np.load(trial.kept, allow_pickle=False))
    job = Job(
        config=base.config, weights=str(base.weights), loss=trial.choice, recipe=options.recipe, seed=trial.seed,
        folds=options.folds, start=encoded.start,
    )  # fmt: skip
    logits = crossfit(job, encoded, labels, one.folds, work=trial.folder, engine=engine, progress=progress, final=False)
    partial = trial.folder / "logits.npy"
    np.save(partial, logits, allow_pickle=False)
    partial.replace(trial.kept)
    shutil.rmtree(trial.folder, ignore_errors=True)
    return logits


def _judge(results: Results, table: Table, one: Round, trial: Trial, logits: np.ndarray, steps: int) -> None:
    evaluation, answers = nested_evaluation(
        logits, table.labels, one.folds, table.passengers, companions=one.companions,
        inverse=trial.loss.inverse(steps), coverage=COVERAGE, seed=trial.seed, with_peers=False,
    )  # fmt: skip
    results.runs.setdefault(trial.name, {})[trial.seed] = Run(logits, answers.calibrated)
    results.evaluations.setdefault(trial.name, {})[trial.seed] = evaluation


def _report(options: CompareOptions, table: Table, comparison: Comparison) -> ComparisonReport:
    losses = {name: report_loss(comparison, name) for name in comparison.losses}
    return ComparisonReport(
        data_sha256=table.sha256, base=options.base or PACKAGE_NAME, rows=len(table), survived=int(table.labels.sum()),
        seeds=options.seeds, folds=options.folds, companions=options.companions, recipe=options.recipe, losses=losses,
        tests=count_tests(losses.values()), claims=judge_claims(comparison, np.random.default_rng(options.seeds[0])),
        default=default_by_evidence(comparison),
    )  # fmt: skip
