"""Logits → predictions: probability, diagnostics, and what metrics, drift tests and the log need of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from models.calibration.confidence import CalibrationRecord, CalibrationStep, Confidence, entropy_bits
from models.passenger import LABELS, Passenger
from models.reference import Reference, bin_numbers, bins_array, probability_bin


class PredictionError(Exception):
    """The model gave a number that is not finite, so there is no probability to serve."""


class Prediction(Struct, frozen=True, kw_only=True):
    """One row's answer, with what was worked out on the way to it.

    ``survived`` is ``probability`` ≥ ½, the calibrated probability of survival. ``logit`` is the model's own, of the
    ``text`` that it read; ``unshifted_probability`` the calibrated one before a prior shift. ``probability_bin`` and
    ``unshifted_bin`` number the tenths of the two, ``input_bins`` the bin of each field in the order of `INPUT_BINS`.
    """

    survived: bool
    probability: float
    confidence: Confidence
    text: str
    logit: float
    unshifted_probability: float
    probability_bin: int
    unshifted_bin: int
    input_bins: tuple[int, ...]


class EncodedText(NamedTuple):
    """A row as the model reads it: its text, and the text's token ids."""

    text: str
    token_ids: list[int]


def predictions_from_logits(
    record: CalibrationRecord, reference: Reference, logits: np.ndarray, passengers: Sequence[Passenger],
    texts: Sequence[str],
) -> list[Prediction]:  # fmt: skip
    """Logits (B,), the passengers and the texts that they are of → a prediction each, in order."""
    trace = record.map.trace(logits)
    p, unshifted = trace[-1][1].tolist(), _unshifted(record, trace).tolist()
    bins = [bin_numbers(passenger) for passenger in passengers]
    # For one row, as most requests are, a NumPy call costs more than the loop.
    columns = (
        p, unshifted, map(probability_bin, p), map(probability_bin, unshifted),
        logits.tolist(), bins, texts, _confidences(record, reference, logits, trace, passengers, bins_array(bins)),
    )  # fmt: skip
    return [
        Prediction(
            survived=probability >= 0.5, probability=probability, confidence=confidence, text=text, logit=logit,
            unshifted_probability=before, probability_bin=tenth, unshifted_bin=tenth_before,
            input_bins=field_bins,
        )
        for probability, before, tenth, tenth_before, logit, field_bins, text, confidence in zip(*columns, strict=True)
    ]  # fmt: skip


def _unshifted(record: CalibrationRecord, trace: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    return trace[-1 if record.map.prior_shift is None else -2][1]


def _confidences(
    record: CalibrationRecord, reference: Reference, logits: np.ndarray, trace: Sequence[tuple[str, np.ndarray]],
    passengers: Sequence[Passenger], bins: np.ndarray,
) -> list[Confidence]:  # fmt: skip
    p, unshifted = trace[-1][1], _unshifted(record, trace)
    p0, p1 = record.venn_abers.interval(logits)
    if record.map.prior_shift is not None:
        p0, p1 = record.map.prior_shift.probabilities(p0), record.map.prior_shift.probabilities(p1)
    low, high = np.minimum(p0, p).tolist(), np.maximum(p1, p).tolist()
    members, typicality = record.conformal.sets(unshifted).tolist(), record.typicality.p_values(bins).tolist()
    steps = [(name, values.tolist()) for name, values in trace]
    return [
        Confidence(
            interval=(low[row], high[row]),
            prediction_set=(labels := tuple(n for n, is_in in zip(LABELS, members[row], strict=True) if is_in)),
            coverage=record.conformal.coverage,
            margin=abs(2 * probability - 1),
            entropy_bits=entropy_bits(probability),
            typicality=typicality[row],
            abstain=len(labels) != 1,
            uncalibrated_probability=steps[0][1][row],
            calibration=tuple(CalibrationStep(name, values[row]) for name, values in steps),
            warnings=reference.warnings(passenger),
        )
        for row, (probability, passenger) in enumerate(zip(p.tolist(), passengers, strict=True))
    ]
