"""The whole of training: table → cross-fitted logits → calibration and evaluation → final model → bundle."""

import hashlib
import importlib.metadata
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import structs

from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import BaseModel, DataRecord, LossRecord, Origin, sha256_of
from models.bundle.read import Bundle
from models.bundle.verify import REQUIRED_CONFIG, labels_config
from models.bundle.write import write_bundle
from models.calibration.prior_shift import PriorShift
from models.files import pretty_json, write_atomic
from models.reference import build_reference
from models.schema import Schema
from models.text import Renderer
from training.calibrate.choice import MapRule
from training.calibrate.record import fit_record
from training.data.table import Table, fold_known, render_texts
from training.evaluate.evaluation import nested_evaluation
from training.fit.crossfit import CrossFitOptions, crossfit, make_folds
from training.fit.encoding import encode
from training.fit.epoch_diagnostics import LOG, read_log
from training.fit.executors import Executor
from training.fit.pretrained import PACKAGE_NAME, find_base
from training.fit.process import HIDDEN, FineTuningJob, final_weights
from training.fit.progress import TrainingProgress
from training.losses.registry import Loss, LossChoice
from training.report.card import model_card
from training.report.page import report
from training.report.plots import make_plots

PACKAGES = ("mlx", "numpy", "scipy", "scikit-learn", "tokenizers", "safetensors", "msgspec", "pandas")


class FitOptions(CrossFitOptions, frozen=True, kw_only=True):
    """What ``python -m training fit`` was asked to do."""

    out: Path
    loss: LossChoice = LossChoice()
    seed: int = 0
    coverage: float = 0.9
    map_rule: MapRule = "least"
    target_prevalence: float | None = None


def fit(options: FitOptions, table: Table, executor: Executor) -> Bundle:
    """Train on the table, calibrate, evaluate and write the bundle.

    Finished folds, ``training_log.jsonl`` and the evaluation's ``report.html`` are kept beside it in ``OUT.training``;
    the folds are removed once the bundle is written. With ``target_prevalence`` the map ends in the shift to it; the
    evaluation and the reference are of the training rows, and so at theirs. Raises DataError, LossError, BaseError,
    TrainingError, BundleError, ValueError.
    """
    schema, renderer = table.schema, Renderer(table.schema)
    base, tokenizer_path = find_base(options.base)
    base.print_notes(options.quiet)
    loss = options.loss.make(schema.classes, table.labels)
    shift = _prior_shift(float(table.labels.mean()), options.target_prevalence)
    folds = make_folds(table.labels, options.folds, options.seed)
    known = fold_known(renderer, table.rows, table.labels, folds, options.feature)
    final_known = _learned(renderer, table, options.feature)
    work = _prepare_folder(options, table, base.weights)
    sizes = [int((folds != fold).sum()) for fold in range(options.folds)] + [len(table)]
    with TrainingProgress(work / LOG, sum(map(options.recipe.steps, sizes)), options.quiet) as progress:
        progress.phase("frozen layers")
        tokenizer = Tokenizer.load(tokenizer_path, base.max_tokens)
        texts = render_texts(renderer, table.rows, (*known, final_known))
        encoded = encode(base, tokenizer, texts, options.recipe.trained_layers, work / "folds" / HIDDEN)
        progress.phase("fine-tuning")
        job = FineTuningJob(
            classes=schema.classes, config=classifier_config(base.config, schema), weights=str(base.weights),
            loss=options.loss, recipe=options.recipe, seed=options.seed, folds=options.folds, start=encoded.start,
        )  # fmt: skip
        logits = crossfit(job, encoded, table.labels, folds, work=work / "folds", executor=executor, progress=progress)
        progress.phase("calibration and evaluation")
        settings: dict[str, Any] = {
            "inverse": loss.inverse(options.recipe.steps(sizes[0]) // options.recipe.runs),
            "coverage": options.coverage, "seed": options.seed, "map_rule": options.map_rule,
        }  # fmt: skip
        record = fit_record(logits, table.labels, table.rows, schema, **settings)
        evaluation, predictions = nested_evaluation(
            logits, table.labels, folds, table.rows, schema, known=known, **settings
        )
        if shift is not None:
            record = structs.replace(record, map=record.map.shifted(shift))
            how = f"{evaluation.how}; before the shift from a prevalence of {shift.training:.3g} to {shift.target:g}"
            evaluation = structs.replace(evaluation, how=how)
        origin = _origin(options, table, loss, base.weights)
        contents: dict[str, bytes | Path] = {
            "config.json": pretty_json(job.config),
            "model.safetensors": final_weights(work / "folds"),
            "tokenizer.json": tokenizer.to_json().encode(),
            "tokenizer_config.json": pretty_json(_tokenizer_config(base.config)),
            "schema.json": pretty_json(schema),
            "calibration.json": msgspec.json.encode(record),
            "reference.json": pretty_json(build_reference(predictions.calibrated, table.rows, schema)),
            "evaluation.json": pretty_json(evaluation),
            "README.md": model_card(origin, schema, evaluation).encode(),
        }
        if schema.feature is not None:
            contents["feature.json"] = msgspec.json.encode(final_known)
        bundle = write_bundle(options.out, contents, origin)
        plots = make_plots(predictions, evaluation, read_log(work / LOG), np.random.default_rng(options.seed))
        write_atomic(work / "report.html", report(schema, evaluation, plots))
    shutil.rmtree(work / "folds", ignore_errors=True)
    return bundle


def _origin(options: FitOptions, table: Table, loss: Loss, weights: Path) -> Origin:
    recipe = {**msgspec.to_builtins(options.recipe), "folds": options.folds, "feature": options.feature}
    if options.target_prevalence is not None:
        recipe["target_prevalence"] = options.target_prevalence
    return Origin(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=options.seed,
        base=BaseModel(options.base or PACKAGE_NAME, sha256_of(weights)),
        loss=LossRecord(loss.name, loss.parameters),
        recipe=recipe,
        data=DataRecord(table.sha256, len(table), class_counts(table)),
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
    )


def class_counts(table: Table) -> dict[str, int]:
    """Class → rows of it."""
    counts = np.bincount(table.labels, minlength=len(table.schema.classes))
    return dict(zip(table.schema.classes, counts.tolist(), strict=True))


def _learned(renderer: Renderer, table: Table, wanted: bool) -> Any:
    """What the schema's feature learns of the table; of no rows where it is not ``wanted``."""
    if renderer.feature is None:
        return None
    return renderer.feature.learn(table.rows if wanted else (), table.labels if wanted else table.labels[:0])


def _prior_shift(training: float, target: float | None) -> PriorShift | None:
    try:
        return None if target is None else PriorShift(training=training, target=target)
    except ValueError as error:
        raise ValueError(f"--target-prevalence: {error}") from error


def work_folder(bundle: Path) -> Path:
    """``OUT.training``, the folder beside a bundle: the training log, the report, folds of a run not yet finished."""
    return bundle.absolute().with_name(bundle.absolute().name + ".training")


def _prepare_folder(options: FitOptions, table: Table, weights: Path) -> Path:
    """`work_folder`, emptied unless an interrupted run with the same settings is to be resumed.

    Raises ValueError when there is nothing to resume, or its settings were others.
    """
    work = work_folder(options.out)
    same = {k: v for k, v in msgspec.to_builtins(options, enc_hook=str).items() if k not in ("resume", "quiet", "out")}
    settings = hashlib.sha256(pretty_json([same, table.schema, table.sha256, sha256_of(weights)])).hexdigest().encode()
    kept = work / "settings.sha256"
    if options.resume:
        if not kept.exists() or kept.read_bytes() != settings:
            raise ValueError(f"--resume: {work} holds no interrupted run with these settings and data")
    else:
        shutil.rmtree(work, ignore_errors=True)
        (work / "folds").mkdir(parents=True)
        kept.write_bytes(settings)
    (work / "folds").mkdir(exist_ok=True)
    return work


def classifier_config(base: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """A base model's config as that of a classifier of the schema's classes."""
    dropped = (
        "_name_or_path", "auto_map", "finetuning_task", "gradient_checkpointing", "problem_type", "torch_dtype",
        "transformers_version",
    )  # fmt: skip
    labels = {"label2id": {name: index for index, name in enumerate(schema.classes)}, "dtype": "float32"}
    return {k: v for k, v in base.items() if k not in dropped} | REQUIRED_CONFIG | labels_config(schema) | labels


def _tokenizer_config(base: dict[str, Any]) -> dict[str, Any]:
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": base["max_position_embeddings"]} | {
        f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")
    }
