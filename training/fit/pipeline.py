"""The whole of training: table → held-out logits → calibration and evaluation → final model → bundle."""

import hashlib
import importlib.metadata
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from models.bert.layouts.registry import layout_of
from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import BaseModel, LossRecord, Origin, sha256_of
from models.bundle.read import Bundle
from models.bundle.verify import labels_config
from models.files import pretty_json
from models.schema import Schema
from models.text import Renderer
from training.bundle.contents import CalibrationSettings, HeldOutLogits, data_record, prior_shift, write_calibrated
from training.calibrate.choice import MapRule
from training.data.table import Table, fold_known, render_texts
from training.evaluate.folds import ONE_PART, choose_folds, find_units, make_folds
from training.fit.crossfit import CrossFitOptions, check_scores, crossfit, foretell
from training.fit.encoding import encode
from training.fit.epoch_diagnostics import LOG, read_log
from training.fit.executors import Executor, LocalExecutor
from training.fit.pretrained import PACKAGE_NAME, find_base
from training.fit.process import HIDDEN, FineTuningJob, final_weights
from training.fit.progress import TrainingProgress
from training.fit.texts import describe_cut, with_text_bins
from training.losses.registry import Loss, LossChoice

PACKAGES = ("mlx", "numpy", "scipy", "scikit-learn", "tokenizers", "safetensors", "msgspec", "pandas")


class FitOptions(CrossFitOptions, frozen=True, kw_only=True):
    """What ``python -m training fit`` was asked to do; ``folds`` None are as many as the table calls for."""

    out: Path
    folds: int | None = None
    loss: LossChoice = LossChoice()
    seed: int = 0
    coverage: float = 0.9
    map_rule: MapRule = "least"
    target_prevalence: float | None = None


def fit(options: FitOptions, table: Table, executor: Executor) -> Bundle:
    """Train on the table, calibrate, evaluate and write the bundle.

    Finished fine-tunings, ``training_log.jsonl`` and the evaluation's ``report.html`` are kept beside it in
    ``OUT.training``; the fine-tunings are removed once the bundle is written. Raises LossError, BaseError,
    TrainingError, BundleError, ValueError.
    """
    schema, renderer = table.schema, Renderer(table.schema)
    base, tokenizer_path = find_base(options.base)
    base.print_notes(options.quiet)
    tokenizer = Tokenizer.load(tokenizer_path, base.max_tokens)
    table = with_text_bins(table, tokenizer)
    schema = table.schema
    loss = options.loss.make(schema.classes, table.labels)
    shift = prior_shift(table, options.target_prevalence)
    units = find_units(table.rows, table.groups)
    count = choose_folds(table.labels, units, options.folds, schema.classes)
    folds = make_folds(table.labels, count, options.seed, units)
    known = fold_known(renderer, table.rows, table.labels, folds, options.feature)
    # One part is held out of the model that is served; of several folds, from models of their own.
    models = known if count == ONE_PART else (*known, _learned(renderer, table, options.feature))
    sizes = [int((folds != number).sum()) for number in range(len(models))]
    work = _prepare_folder(options, table, base.weights)
    with TrainingProgress(work / LOG, sum(map(options.recipe.steps, sizes)), options.quiet) as progress:
        progress.note(table.note)
        progress.note(units.note)
        progress.phase("frozen layers")
        texts = render_texts(renderer, table.rows, models)
        progress.note(cut := describe_cut(texts[-1], tokenizer))
        # Where most texts are needed once at most, they are not worth keeping.
        keep = sum(map(options.recipe.steps, sizes)) * options.recipe.batch_rows > len(table)
        encoded = encode(
            base, tokenizer, texts, options.recipe.trained_layers, work / "folds" / HIDDEN, keep, progress.share
        )  # fmt: skip
        progress.phase("fine-tuning")
        job = FineTuningJob(
            classes=schema.classes, config=classifier_config(base.config, schema), weights=str(base.weights),
            loss=options.loss, recipe=options.recipe, seed=options.seed, folds=count, start=encoded.start,
        )  # fmt: skip
        if isinstance(executor, LocalExecutor) and not options.quiet:
            progress.note(foretell(job, encoded, table.labels, folds))
        logits = crossfit(job, encoded, table.labels, folds, work=work / "folds", executor=executor, progress=progress)
        progress.note(doubt := check_scores(logits, table.labels))
        progress.phase("calibration and evaluation")
        settings = CalibrationSettings(
            inverse=loss.inverse(options.recipe.steps_of_run(sizes[0])), coverage=options.coverage, seed=options.seed,
            map_rule=options.map_rule, shift=shift,
        )  # fmt: skip
        held = HeldOutLogits(
            table=table, logits=logits, folds=folds, known=known, note="; ".join(filter(None, (units.note, cut, doubt)))
        )
        files: dict[str, bytes | Path] = {
            "config.json": pretty_json(job.config),
            "model.safetensors": final_weights(work / "folds"),
            "tokenizer.json": tokenizer.to_json().encode(),
            "tokenizer_config.json": pretty_json(_tokenizer_config(base.config)),
        }
        if schema.feature is not None:
            files["feature.json"] = msgspec.json.encode(models[-1])
        origin = _origin(options, count, table, loss, base.weights)
        log, page = read_log(work / LOG), work / "report.html"
        bundle = write_calibrated(options.out, held, settings, files, origin, log=log, page=page)
    shutil.rmtree(work / "folds", ignore_errors=True)
    return bundle


def _origin(options: FitOptions, folds: int, table: Table, loss: Loss, weights: Path) -> Origin:
    recipe = {**msgspec.to_builtins(options.recipe), "folds": folds, "feature": options.feature}
    if options.target_prevalence is not None:
        recipe["target_prevalence"] = options.target_prevalence
    return Origin(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=options.seed,
        base=BaseModel(options.base or PACKAGE_NAME, sha256_of(weights)),
        loss=LossRecord(loss.name, loss.parameters),
        recipe=recipe,
        data=data_record(table),
        packages={name: importlib.metadata.version(name) for name in PACKAGES},
    )


def _learned(renderer: Renderer, table: Table, wanted: bool) -> Any:
    """What the schema's feature learns of the table; of no rows where it is not ``wanted``."""
    if renderer.feature is None:
        return None
    return renderer.feature.learn(table.rows if wanted else (), table.labels if wanted else table.labels[:0])


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
    kept = {name: value for name, value in base.items() if name not in dropped}
    return kept | layout_of(base).written() | labels_config(schema) | labels


def _tokenizer_config(base: dict[str, Any]) -> dict[str, Any]:
    return {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": base["max_position_embeddings"]} | {
        f"{name}_token": f"[{name.upper()}]" for name in ("cls", "sep", "pad", "unk", "mask")
    }
