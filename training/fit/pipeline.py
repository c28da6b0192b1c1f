"""The whole of training: table → held-out logits → calibration and evaluation → final model → bundle."""

import hashlib
import importlib.metadata
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from models.bert.layouts.registry import layout_of
from models.bert.tokenizer import Tokenizer
from models.bundle.manifest import BaseModel, LossRecord, Origin, sha256_of
from models.bundle.read import Bundle
from models.bundle.verify import labels_config
from models.files import pretty_json
from models.schema import Schema
from models.second.model import SecondModel
from models.text import Renderer
from training.bundle.contents import CalibrationSettings, HeldOutLogits, data_record, prior_shift, write_calibrated
from training.calibrate.choice import MapRule
from training.calibrate.stack import NO_STACK, StackSettings, all_candidates
from training.data.table import Table, render_texts
from training.evaluate.folds import ONE_PART, TRAINED_ON, choose_folds, find_units
from training.fit.crossfit import CrossFitOptions, check_scores, crossfit, foretell, rows_seen
from training.fit.encoding import encode
from training.fit.epoch_diagnostics import LOG, read_log
from training.fit.executors import Executor, LocalExecutor
from training.fit.pretrained import PACKAGE_NAME, find_base
from training.fit.process import FINAL, HIDDEN, FineTuningJob, final_weights, seen_logits
from training.fit.progress import TrainingProgress
from training.fit.seeds import choose_seeds, seed_folds
from training.fit.texts import describe_cut, with_text_bins
from training.losses.registry import Loss, LossChoice
from training.second.held_out import AUTO, fit_seconds, held_out_scores, wanted

PACKAGES = ("mlx", "numpy", "scipy", "scikit-learn", "tokenizers", "safetensors", "msgspec", "pandas")


class FitOptions(CrossFitOptions, frozen=True, kw_only=True):
    """What ``python -m training fit`` was asked to do; ``folds`` and ``seeds`` None are as many as the table
    calls for. The model that serves is that of ``seed``."""

    out: Path
    folds: int | None = None
    loss: LossChoice = LossChoice()
    seed: int = 0
    seeds: int | None = None
    coverage: float = 0.9
    map_rule: MapRule = "least"
    target_prevalence: float | None = None
    second: str = AUTO


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
    names = wanted(options.second, schema)
    count = choose_folds(table.labels, units, options.folds, schema.classes)
    first, *others = divided = seed_folds(
        table, renderer, units, first=options.seed, seeds=choose_seeds(len(table), options.seeds), folds=count,
        feature=options.feature,
    )  # fmt: skip
    folds = np.stack([each.folds for each in divided])
    # One part is held out of the model that is served; of several folds, from models of their own.
    final = first.known[-1] if count == ONE_PART else _learned(renderer, table, options.feature)
    models = [*first.known, *([] if count == ONE_PART else [final]), *(one for each in others for one in each.known)]
    job = FineTuningJob(
        classes=schema.classes, config=classifier_config(base.config, schema), weights=str(base.weights),
        loss=options.loss, recipe=options.recipe, seed=options.seed, folds=count, seeds=len(divided),
        start=base.first_trained(options.recipe.trained_layers),
    )  # fmt: skip
    sizes = rows_seen(job, folds)
    work = _prepare_folder(options, table, base.weights)
    with TrainingProgress(work / LOG, sum(map(options.recipe.steps, sizes)), options.quiet) as progress:
        progress.note(table.note)
        progress.note(units.note)
        progress.phase("frozen layers")
        texts = render_texts(renderer, table.rows, models)
        progress.note(cut := describe_cut(texts[job.phases.index(FINAL)], tokenizer))
        # Where most texts are needed once at most, they are not worth keeping.
        keep = sum(map(options.recipe.steps, sizes)) * options.recipe.batch_rows > len(table)
        encoded = encode(
            base, tokenizer, texts, options.recipe.trained_layers, work / "folds" / HIDDEN, keep, progress.share
        )  # fmt: skip
        progress.phase("fine-tuning")
        if isinstance(executor, LocalExecutor) and not options.quiet:
            progress.note(foretell(job, encoded, table.labels, folds))
        logits = crossfit(job, encoded, table.labels, folds, work=work / "folds", executor=executor, progress=progress)
        progress.note(doubt := check_scores(logits[0], table.labels))
        progress.phase("calibration and evaluation")
        settings = CalibrationSettings(
            inverse=loss.inverse(options.recipe.steps_of_run(sizes[0])), coverage=options.coverage, seed=options.seed,
            map_rule=options.map_rule, shift=shift, stacking=stack_settings(names, options.second),
        )  # fmt: skip
        note = "; ".join(filter(None, (units.note, cut, doubt)))
        held = [
            HeldOutLogits(
                table=table, logits=own, folds=each.folds, known=each.known, seed=each.seed, note=note,
                seconds=held_out_scores(
                    names, table.rows, table.labels, each.folds, schema, each.known, each.seed, tokenizer
                ),
            )
            for each, own in zip(divided, logits, strict=True)
        ]  # fmt: skip
        if count != ONE_PART:
            seen = np.load(seen_logits(work / "folds"), allow_pickle=False)
            held[0] = msgspec.structs.replace(held[0], seen=seen)
        files: dict[str, bytes | Path] = {
            "config.json": pretty_json(job.config),
            "model.safetensors": final_weights(work / "folds"),
            "tokenizer.json": tokenizer.to_json().encode(),
            "tokenizer_config.json": pretty_json(_tokenizer_config(base.config)),
        }
        if schema.feature is not None:
            files["feature.json"] = msgspec.json.encode(final)
        origin = _origin(options, count, len(divided), table, loss, base.weights)
        log, page = read_log(work / LOG), work / "report.html"
        # What the weights were trained on: of one held-out part, the others.
        places = np.flatnonzero(first.folds == TRAINED_ON) if count == ONE_PART else np.arange(len(table))

        def fit_chosen(chosen: Sequence[str]) -> tuple[SecondModel, ...]:
            rows = [table.rows[at] for at in places.tolist()]
            return fit_seconds(chosen, rows, table.labels[places], schema, final, options.seed, tokenizer)

        bundle = write_calibrated(
            options.out, held[0], settings, files, origin, others=held[1:], log=log, page=page, fit_seconds=fit_chosen
        )  # fmt: skip
    shutil.rmtree(work / "folds", ignore_errors=True)
    return bundle


def stack_settings(names: Sequence[str], second: str) -> StackSettings:
    """Of ``--second``: which sets of these second models compete, and whether with none."""
    if not names:
        return NO_STACK
    if second == AUTO:
        return StackSettings(candidates=all_candidates(names))
    return StackSettings(candidates=(tuple(names),), may_be_none=False)


def _origin(options: FitOptions, folds: int, seeds: int, table: Table, loss: Loss, weights: Path) -> Origin:
    recipe = {**msgspec.to_builtins(options.recipe), "folds": folds, "seeds": seeds, "feature": options.feature}
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
