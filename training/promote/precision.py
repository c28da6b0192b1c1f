"""A bundle's weights in fewer bits, measured against float32 on labelled rows; what was found goes into the bundle."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from models.bert.classifier import load_classifier
from models.bundle.manifest import MAX_BYTES, PRECISIONS_FILE
from models.bundle.precisions import CALIBRATION_MARGIN, FULL, LOG_LOSS_MARGIN, Change, Measurement, Precision
from models.bundle.read import Bundle, open_bundle
from models.bundle.write import write_bundle
from models.engines.backend import prepare
from models.logit_cache import LogitCache
from models.prediction import PredictionError
from models.predictor import Predictor
from training.data.table import Table
from training.evaluate.calibration_errors import smooth_error
from training.evaluate.estimates import Estimate, mean, reflected
from training.loss_study.contrasts import Run, row_values

RESAMPLES = 1000
LEAST_ROWS = 100
"""Below it the interval of a difference of calibration errors says nothing."""


def measure(
    folder: Path, table: Table, precisions: Sequence[Precision], *, log_loss_margin: float = LOG_LOSS_MARGIN,
    calibration_margin: float = CALIBRATION_MARGIN, seed: int = 0,
) -> tuple[Measurement, ...]:  # fmt: skip
    """The bundle in each of ``precisions`` against itself in float32, on this machine's device.

    Each row's log losses are subtracted, and the mean difference has a standard error over rows; the difference of the
    smooth calibration errors has one by drawing rows, the same for both. The smooth error, because it moves little
    when a probability does: that of ten bins jumps where a row crosses from one to the next. A precision is refused
    where the upper end of either 95 % interval is past its margin: a difference that is not shown to be small counts
    as large. Raises BundleError, ValueError.
    """
    if len(table) < LEAST_ROWS:
        raise ValueError(f"{len(table)} rows are too few to tell a small difference; {LEAST_ROWS} are needed")
    full, *lower = (_predictor(folder, precision) for precision in (FULL, *precisions))
    reference = _run(full, table)
    training_rows = table.sha256 == full.bundle.manifest.origin.data.sha256

    def against(predictor: Predictor) -> Measurement:
        run = _run(predictor, table)
        calibration = _calibration_change(run, reference, table.labels, np.random.default_rng(seed))
        log_loss = mean(_log_losses(run, table) - _log_losses(reference, table))
        return Measurement(
            precision=predictor.backend.precision, device=predictor.backend.device, rows=len(table),
            data_sha256=table.sha256, training_rows=training_rows, log_loss=_change(log_loss, log_loss_margin),
            calibration_error=_change(calibration, calibration_margin),
            decisions_changed=float(((run.calibrated >= 0.5) != (reference.calibrated >= 0.5)).mean()),
            largest_logit_difference=float(np.abs(run.logits - reference.logits).max()),
            largest_probability_difference=float(np.abs(run.calibrated - reference.calibrated).max()),
        )  # fmt: skip

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


def _predictor(folder: Path, precision: Precision) -> Predictor:
    """The bundle in a precision whether or not it was measured, as `Predictor.load` does not give it."""
    bundle, tokenizer, weights = open_bundle(folder)
    backend = msgspec.structs.replace(prepare(), precision=precision)
    model = load_classifier(bundle.config, weights, precision)
    return Predictor(bundle, model, tokenizer, backend, LogitCache(0))


def _run(predictor: Predictor, table: Table) -> Run:
    try:
        logits = predictor.logits(predictor.render(table.passengers))
    except PredictionError as error:
        raise ValueError(f"{predictor.backend.precision}: {error}") from error
    return Run(logits, predictor.bundle.record.map.probabilities(logits))


def _calibration_change(ours: Run, theirs: Run, labels: np.ndarray, rng: np.random.Generator) -> Estimate:
    """Our smooth calibration error minus theirs, with the reflected bootstrap over rows."""
    rows = len(labels)
    drawn = rng.multinomial(rows, np.full(rows, 1 / rows), RESAMPLES).astype(float)

    def difference(weights: np.ndarray) -> np.ndarray:
        found: np.ndarray = _smooth_error(ours, labels, weights) - _smooth_error(theirs, labels, weights)
        return found

    return reflected(float(difference(np.ones((1, rows)))[0]), difference(drawn))


def _smooth_error(run: Run, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    order = np.argsort(run.calibrated, kind="stable")
    return smooth_error(run.calibrated[order], labels[order][None].astype(float), weights[:, order])


def _log_losses(run: Run, table: Table) -> np.ndarray:
    return row_values(run.calibrated, table.labels)["log_loss"]


def _change(difference: Estimate, margin: float) -> Change:
    return Change(value=difference.value, standard_error=difference.standard_error, high=difference.high, margin=margin)
