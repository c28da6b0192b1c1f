"""A bundle's weights in fewer bits, measured against float32 on labelled rows; the figures go into the bundle."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from models.bundle.manifest import MAX_BYTES, PRECISIONS_FILE
from models.bundle.precisions import CALIBRATION_MARGIN, FULL, LOG_LOSS_MARGIN, Change, Measurement, Precision
from models.bundle.read import Bundle, open_bundle, read_bundle
from models.bundle.write import write_bundle
from models.calibration.logit import calibration_scores, class_probabilities
from models.engines.choice import choose_engine, load_engine
from models.engines.engine import Chosen
from models.engines.logit_cache import LogitCache
from models.prediction import PredictionError
from models.predictor import Predictor
from training.calibrate.maps import log_losses
from training.data.table import Table
from training.evaluate.calibration_errors import smooth_error
from training.evaluate.comparisons.paired import error_difference, one_by_one
from training.evaluate.estimates import Estimate, mean
from training.evaluate.folds import find_units
from training.evaluate.several_classes.scores import top_classes

MIN_ROWS = 100
"""Below it the interval of a difference of calibration errors says nothing."""


def measure(
    folder: Path, table: Table, precisions: Sequence[Precision] | None = None, *,
    log_loss_margin: float = LOG_LOSS_MARGIN, calibration_margin: float = CALIBRATION_MARGIN, seed: int = 0,
) -> tuple[Measurement, ...]:  # fmt: skip
    """The bundle in each of ``precisions`` against itself in float32, by this machine's engine; None: in all it offers.

    Each row's log losses are subtracted, and the mean difference has a standard error over rows; the difference of the
    smooth calibration errors, of more than two classes averaged over them, has one by drawing rows, the same for both.
    The smooth error, because it moves little when a probability does: that of ten bins jumps where a row crosses from
    one to the next. A precision is refused where the upper end of either 95 % interval is past its margin: a difference
    that is not shown to be small counts as large. Raises BundleError, EngineError, ValueError.
    """
    if len(table) < MIN_ROWS:
        raise ValueError(f"{len(table)} rows are too few to tell a small difference; {MIN_ROWS} are needed")
    chosen = choose_engine("auto", read_bundle(folder).config)
    if precisions is None:
        precisions = [precision for precision in chosen.precisions if precision != FULL]
    for precision in precisions:
        chosen.check(precision)
    full, *lower = (_predictor(folder, chosen, precision) for precision in (FULL, *precisions))
    # The second models are computed alike in each precision.
    record, labels, seconds = full.bundle.record, table.labels, full.second_scores(table.rows)
    full_scores = _scores(full, table)
    reference = record.trace(full_scores, seconds)[1][-1][1]
    served, each_label = zip(*one_by_one(reference, labels), strict=True)
    units = find_units(table.rows, table.groups)
    clusters = None if units.single else units.of_row
    training_rows = table.sha256 == full.bundle.manifest.origin.data.sha256

    def against(predictor: Predictor) -> Measurement:
        scores = _scores(predictor, table)
        p = record.trace(scores, seconds)[1][-1][1]
        rng = np.random.default_rng(seed)
        each = [of_class for of_class, _ in one_by_one(p, labels)]
        calibration, _ = error_difference(smooth_error, each, served, each_label, rng, clusters)
        return Measurement(
            precision=predictor.backend.precision,
            device=predictor.backend.device,
            rows=len(table),
            data_sha256=table.sha256,
            training_rows=training_rows,
            log_loss=_change(mean(log_losses(p, labels) - log_losses(reference, labels), clusters), log_loss_margin),
            calibration_error=_change(calibration, calibration_margin),
            decisions_changed=float((_outcomes(p) != _outcomes(reference)).mean()),
            largest_logit_difference=float(np.abs(scores - full_scores).max()),
            largest_probability_difference=float(np.abs(p - reference).max()),
        )

    return tuple(against(predictor) for predictor in lower)


def record(folder: Path, measurements: Sequence[Measurement], out: Path) -> Bundle:
    """Write the bundle to ``out`` with these measurements in it; raises BundleError.

    Its version is another one, and a signature is of the old: sign it again.
    """
    bundle = open_bundle(folder).bundle
    contents: dict[str, bytes | Path] = {name: folder / name for name in bundle.manifest.files if name in MAX_BYTES}
    precisions = bundle.precisions.with_measured(*measurements)
    contents[PRECISIONS_FILE] = msgspec.json.format(msgspec.json.encode(precisions), indent=1) + b"\n"
    return write_bundle(out, contents, bundle.manifest.origin)


def _predictor(folder: Path, chosen: Chosen, precision: Precision) -> Predictor:
    """The bundle in a precision whether or not it was measured, as `Predictor.load` does not give it."""
    bundle, tokenizer, weights = open_bundle(folder)
    return Predictor(bundle, load_engine(chosen, bundle.config, weights, precision), tokenizer, LogitCache(0))


def _outcomes(p: np.ndarray) -> np.ndarray:
    return top_classes(class_probabilities(p))


def _scores(predictor: Predictor, table: Table) -> np.ndarray:
    try:
        return calibration_scores(predictor.logits(predictor.render(table.rows)))
    except PredictionError as error:
        raise ValueError(f"{predictor.backend.precision}: {error}") from error


def _change(difference: Estimate, margin: float) -> Change:
    return Change(value=difference.value, standard_error=difference.standard_error, high=difference.high, margin=margin)
