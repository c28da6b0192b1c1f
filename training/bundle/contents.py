"""A bundle made of held-out logits: calibration, evaluation, reference and card, beside files that are there."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from msgspec import Struct, structs

from models.bundle.manifest import SELFTEST, TRAINING_ROWS, DataRecord, Origin
from models.bundle.read import Bundle
from models.bundle.training_rows import NO_ROWS, TrainingRows
from models.bundle.write import write_bundle
from models.calibration.confidence import CalibrationRecord
from models.calibration.logit import calibration_scores
from models.calibration.prior_shift import PriorShift
from models.calibration.uncertainty import Uncertainty
from models.files import pretty_json, write_atomic
from models.prediction import Diagnosis
from models.reference import build_reference
from models.second.model import SecondModel, SecondScorers, stacked_files
from training.bundle.known_answers import known_answers, read_seconds, read_tokenizer
from training.calibrate.choice import Inverse, MapRule, chosen_map
from training.calibrate.record import fit_record
from training.calibrate.stack import NO_STACK, StackSettings, choose_stack
from training.calibrate.uncertainty import fit_uncertainty
from training.data.table import Table
from training.evaluate.evaluation import AnyEvaluation
from training.evaluate.folds import find_units
from training.evaluate.nested import nested_evaluation
from training.evaluate.predictions import LabelledPredictions
from training.evaluate.seeds import Seeds, compare_seeds
from training.fit.epoch_diagnostics import EpochDiagnostics
from training.report.card import model_card
from training.report.page import report
from training.report.plots import make_plots

FitSeconds = Callable[[Sequence[str]], Sequence[SecondModel]]
"""Names of second models → the models, fitted on the rows that the weights were trained on."""


class CalibrationSettings(Struct, frozen=True, kw_only=True):
    """How held-out logits become a calibration; with ``shift`` its map ends in it. ``sets_by`` as of `SetsBy`."""

    inverse: Inverse | None
    coverage: float
    seed: int
    map_rule: MapRule
    shift: PriorShift | None = None
    sets_by: str | None = None
    stacking: StackSettings = NO_STACK


class HeldOutLogits(Struct, frozen=True, kw_only=True):
    """Logits (n, K) of a table's rows by models that did not see them, NaN in rows that are in no fold (n,).

    ``known`` is what the schema's feature knew for each fold; ``how`` says how they were obtained where that is not
    plain cross-fitting, and ``note`` what else there is to say. ``before`` are the rows that the weights were trained
    on where those are others, None where that is not known. ``seconds`` are second models' scores of the same rows by
    name, (n,) or (n, K), as much held out. ``seen`` (n, K) are the logits of the model that serves, where it was
    trained on all of these rows.
    """

    table: Table
    logits: np.ndarray
    folds: np.ndarray
    known: Sequence[Any]
    seed: int = 0
    how: str = ""
    note: str = ""
    before: TrainingRows | None = NO_ROWS
    seconds: Mapping[str, np.ndarray] = {}
    seen: np.ndarray | None = None


def write_calibrated(
    out: Path, held: HeldOutLogits, settings: CalibrationSettings, files: Mapping[str, bytes | Path], origin: Origin, *,
    others: Sequence[HeldOutLogits] = (), log: Sequence[EpochDiagnostics] = (), with_baselines: bool = True,
    page: Path | None = None, fit_seconds: FitSeconds | None = None,
) -> Bundle:  # fmt: skip
    """Calibrate and evaluate, and write the bundle of ``files`` and of what comes out, and its report to ``page``.

    ``others`` are of the same rows by other seeds, whose scores and spread are reported beside those of ``held``.
    The evaluation and the reference are of the rows as they are, before a prior shift. ``fit_seconds`` gives the second
    models of the stack that is chosen; without it ``files`` has them. Raises BundleError, ExportError.
    """
    table, schema, places = held.table, held.table.schema, np.flatnonzero(held.folds >= 0)
    rows = [table.rows[at] for at in places.tolist()]
    fitting: dict[str, Any] = {
        "inverse": settings.inverse, "coverage": settings.coverage, "seed": settings.seed,
        "map_rule": settings.map_rule, "sets_by": settings.sets_by, "stacking": settings.stacking,
    }  # fmt: skip
    tokenizer = read_tokenizer(files)
    record = fit_record(
        held.logits[places], table.labels[places], rows, schema, tokenizer=tokenizer,
        seconds={name: scores[places] for name, scores in held.seconds.items()}, **fitting,
    )  # fmt: skip
    if fit_seconds is not None and record.stack is not None:
        files = {**files, **stacked_files(fit_seconds(tuple(record.stack.others)))}
    scorers = read_seconds(files, schema, tokenizer)
    uncertainty = _fit_uncertainty((held, *others), settings, record, scorers)
    record = structs.replace(record, uncertainty=uncertainty)
    evaluation, predictions = _evaluate(held, fitting, with_baselines, uncertainty)
    how = [held.how or evaluation.how, held.table.note, held.note]
    if settings.shift is not None:
        record = structs.replace(record, map=record.map.shifted(settings.shift))
        how.append(f"before the shift from a prevalence of {settings.shift.training:.3g} to {settings.shift.target:g}")
    evaluation = structs.replace(
        evaluation, how="; ".join(filter(None, how)), sets_by=record.conformal.by,
        seeds=_compare_seeds(held, evaluation, others, fitting),
    )  # fmt: skip
    reference = build_reference(predictions.calibrated, rows, schema, tokenizer)
    diagnosis = Diagnosis(record, reference, schema, tokenizer, scorers)
    contents = {
        **files,
        "schema.json": pretty_json(schema),
        "calibration.json": msgspec.json.encode(record),
        "reference.json": pretty_json(reference),
        "evaluation.json": pretty_json(evaluation),
        SELFTEST: msgspec.json.encode(known_answers(files, tokenizer, schema, diagnosis, table.rows)),
        "README.md": model_card(origin, schema, evaluation).encode(),
    }
    if (seen := _all_rows(held)) is not None:
        contents[TRAINING_ROWS] = msgspec.json.encode(seen)
    bundle = write_bundle(out, contents, origin)
    if page is not None:
        plots = make_plots(predictions, evaluation, list(log), np.random.default_rng(settings.seed))
        write_atomic(page, report(schema, evaluation, plots))
    return bundle


def _fit_uncertainty(
    all_held: Sequence[HeldOutLogits], settings: CalibrationSettings, record: CalibrationRecord,
    scorers: SecondScorers | None,
) -> Uncertainty | None:  # fmt: skip
    """Of the seeds, the first of which has the ``record``; None of a single one, or where one part is held out."""
    first = all_held[0]
    if len(all_held) < 2 or first.seen is None:
        return None
    labels, table = first.table.labels, first.table
    own, _ = record.trace(calibration_scores(first.logits), first.seconds)
    scores, maps = [own], [record.map.probabilities]
    for held in all_held[1:]:
        own = calibration_scores(held.logits)
        stack = choose_stack(own, held.seconds, labels, settings.inverse, held.seed, settings.stacking)
        if stack is not None:
            own = stack(own, held.seconds)
        inverse = settings.inverse if stack is None else None
        scores.append(own)
        maps.append(chosen_map(own, labels, inverse, held.seed, settings.map_rule, stack is not None)[1].probabilities)
    seen, _ = record.trace(calibration_scores(first.seen), None if scorers is None else scorers(table.rows))
    return fit_uncertainty(scores, maps, seen, labels, int(first.folds.max()) + 1)


def _evaluate(
    held: HeldOutLogits, fitting: dict[str, Any], with_baselines: bool, uncertainty: Uncertainty | None = None
) -> tuple[AnyEvaluation, LabelledPredictions]:
    """`nested_evaluation`, whose remaining parts are drawn by the seed of the folds."""
    table = held.table
    return nested_evaluation(
        held.logits, table.labels, held.folds, table.rows, table.schema, held.known, with_baselines=with_baselines,
        units=find_units(table.rows, table.groups), seconds=held.seconds, uncertainty=uncertainty,
        **{**fitting, "seed": held.seed},
    )  # fmt: skip


def _compare_seeds(
    held: HeldOutLogits, evaluation: AnyEvaluation, others: Sequence[HeldOutLogits], fitting: dict[str, Any]
) -> Seeds | None:
    scores = {other.seed: _evaluate(other, fitting, False)[0].calibrated for other in others}
    return compare_seeds({held.seed: evaluation.calibrated, **scores})


def _all_rows(held: HeldOutLogits) -> TrainingRows | None:
    rows = TrainingRows.of(held.table.rows)
    return None if rows is None or held.before is None else rows.joined(held.before)


def class_counts(table: Table) -> dict[str, int]:
    """Class → rows of it."""
    counts = np.bincount(table.labels, minlength=len(table.schema.classes))
    return dict(zip(table.schema.classes, counts.tolist(), strict=True))


def data_record(table: Table) -> DataRecord:
    """The manifest's words on a table."""
    return DataRecord(table.sha256, len(table), class_counts(table))


def prior_shift(table: Table, target: float | None) -> PriorShift | None:
    """The shift from the positive class's share in the table to ``target``. Raises ValueError."""
    if target is not None and len(table.schema.classes) > 2:
        raise ValueError(f"--target-prevalence is of two classes; the table has {len(table.schema.classes)}")
    try:
        return None if target is None else PriorShift(training=float(table.labels.mean()), target=target)
    except ValueError as error:
        raise ValueError(f"--target-prevalence: {error}") from error
