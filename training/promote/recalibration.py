"""A bundle calibrated anew on labelled rows: the same weights, with map, sets, intervals and reference of these."""

import sys
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct, structs

from models.bundle.manifest import FEATURE, STACKED, STACKED_WEIGHTS, WEIGHTS, Origin, Recalibration
from models.bundle.read import Bundle
from models.calibration.stack import Stack
from models.predictor import Predictor
from training.bundle.contents import CalibrationSettings, HeldOutLogits, data_record, prior_shift, write_calibrated
from training.bundle.seen import find_seen
from training.calibrate.choice import Inverse, MapRule
from training.calibrate.stack import NO_STACK, StackSettings
from training.data.source import DataError
from training.data.table import Table, read_table
from training.evaluate.folds import FOLDS, ONE_PART, choose_folds, find_units, make_folds
from training.fit.crossfit import check_scores
from training.fit.finetune import Recipe
from training.fit.pipeline import work_folder
from training.losses.registry import make_loss

KEPT = ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json", FEATURE, STACKED, STACKED_WEIGHTS)
"""Files of the bundle that stay as they are. Measured precisions do not: they were measured with the old map."""


class RecalibrationOptions(Struct, frozen=True, kw_only=True):
    """What ``python -m training recalibrate`` was asked to do."""

    bundle: Path
    data: Path
    out: Path
    separator: str | None = None
    seed: int = 0
    target_prevalence: float | None = None
    on_training_rows: bool = False
    quiet: bool = False


def recalibrate(options: RecalibrationOptions) -> Bundle:
    """Predict the rows with the bundle's weights, calibrate on these predictions, and write a bundle to ``out``.

    It is evaluated by cross-fitting: each part of the rows is calibrated on the others. Raises BundleError, DataError,
    TrainingError where the rows are ranked backwards, ValueError where a class has too few.
    """
    predictor = Predictor.load(options.bundle)
    bundle = predictor.bundle
    table = read_table(options.data, bundle.schema, options.separator, fitting=False)
    seen = find_seen(table, bundle)
    if seen.trained and not options.on_training_rows:
        which = "the rows are those that the bundle was made from" if seen.file else f"{seen} of the bundle"
        raise DataError(
            f"{options.data}: {which}, and the model is surer of them than of others; give other rows, or "
            "--on-training-rows"
        )
    units = find_units(table.rows, table.groups)
    count = choose_folds(table.labels, units, None, bundle.schema.classes)
    folds = make_folds(table.labels, FOLDS if count == ONE_PART else count, options.seed, units)
    count = int(folds.max()) + 1
    logits = predictor.logits(predictor.render(table.rows))
    doubt = check_scores(logits, table.labels)
    if doubt and not options.quiet:
        print(f"training: {doubt}", file=sys.stderr)
    how = f"the weights of version {bundle.version}, calibrated anew by {count}-fold cross-fitting over the rows"
    notes = [units.note, doubt, f"{seen} of the weights" if seen.trained else ""]
    held = HeldOutLogits(
        table=table, logits=logits, folds=folds, known=(bundle.known,) * count, seed=options.seed, how=how,
        before=bundle.training_rows,
        note="; ".join(filter(None, notes)), seconds=predictor.second_scores(table.rows),
    )  # fmt: skip
    # A field that the sets are by stays: what was promised of its groups is not dropped for few rows.
    settings = CalibrationSettings(
        inverse=loss_inverse(bundle), coverage=bundle.record.conformal.coverage, seed=options.seed,
        sets_by=bundle.record.conformal.by,
        map_rule=msgspec.convert(bundle.record.map_rule, MapRule), shift=prior_shift(table, options.target_prevalence),
        stacking=refit(bundle.record.stack),
    )  # fmt: skip
    files: dict[str, bytes | Path] = {
        name: options.bundle / name for name in KEPT if (options.bundle / name).exists()
    }  # fmt: skip
    page = work_folder(options.out) / "report.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    return write_calibrated(
        options.out, held, settings, files, _origin(bundle, table, options.seed), with_baselines=False, page=page
    )


def refit(stack: Stack | None) -> StackSettings:
    """The stack's weights fitted anew, drawn to what they were, its second models as they are."""
    if stack is None:
        return NO_STACK
    return StackSettings(candidates=(tuple(stack.others),), may_be_none=False, towards=stack)


def loss_inverse(bundle: Bundle) -> Inverse | None:
    """The inverse of the loss that a bundle was trained with, where it has one."""
    origin = bundle.manifest.origin
    loss = make_loss(origin.loss.name, bundle.schema.classes, **origin.loss.parameters)
    given = {name: value for name, value in origin.recipe.items() if name in Recipe.__struct_fields__}
    folds = int(origin.recipe.get("folds", FOLDS))
    rows = origin.data.rows - origin.data.rows // max(folds, 2)
    return loss.inverse(msgspec.convert(given, Recipe).steps_of_run(rows))


def _origin(bundle: Bundle, table: Table, seed: int) -> Origin:
    return structs.replace(
        bundle.manifest.origin, created=datetime.now(UTC).isoformat(timespec="seconds"), seed=seed,
        recalibration=Recalibration(of=bundle.version, data=data_record(table)),
    )  # fmt: skip
