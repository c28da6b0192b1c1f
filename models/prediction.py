"""Logits → predictions: probability, diagnostics, and what metrics, drift tests and the log need of them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from msgspec import Struct

from models.calibration.confidence import CalibrationRecord, CalibrationStep, Confidence, entropy_bits
from models.reference import InputBinner, Reference, probability_bin
from models.rows import Row
from models.schema import Schema


class PredictionError(Exception):
    """The model gave a number that is not finite, so there is no probability to serve."""


class Prediction(Struct, frozen=True, kw_only=True):
    """One row's answer, with what was worked out on the way to it.

    ``outcome`` is the class with the greatest of the calibrated ``probabilities``, which are in the order of the
    classes; ``probability`` is that of the positive class, and at ½ it is the outcome. ``logit`` is the model's own, of
    the ``text`` that it read; ``unshifted_probability`` the calibrated one before a prior shift. ``probability_bin``
    and ``unshifted_bin`` number the tenths of the two, ``input_bins`` the bin of each field in the schema's order.
    """

    outcome: str
    probability: float
    probabilities: tuple[float, ...]
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


def positive_logits(logits: np.ndarray) -> np.ndarray:
    """Logits (B, 2) → the log-odds (B,) of the positive class, which calibration works on."""
    return np.asarray(logits[:, 1] - logits[:, 0])


def class_probabilities(p: np.ndarray) -> np.ndarray:
    """Probabilities (B,) of the positive class → of both classes (B, 2)."""
    return np.stack([1 - p, p], axis=1)


class Diagnosis:
    """Makes predictions of logits, by what a bundle holds."""

    def __init__(self, record: CalibrationRecord, reference: Reference, schema: Schema):
        self._record, self._reference = record, reference
        self._classes, self._bins = schema.classes, InputBinner(schema)

    def predictions(self, logits: np.ndarray, rows: Sequence[Row], texts: Sequence[str]) -> list[Prediction]:
        """Logits (B, K), the rows and the texts that they are of → a prediction each, in order."""
        if not len(rows):
            return []
        z = positive_logits(logits)
        trace = self._record.map.trace(z)
        p, unshifted = trace[-1][1], self._unshifted(trace)
        bins = [self._bins(row) for row in rows]
        confidences = self._confidences(z, trace, rows, bins)
        # For one row, as most requests are, a NumPy call costs more than the loop.
        columns = (p.tolist(), unshifted.tolist(), z.tolist(), bins, texts, confidences)
        return [
            Prediction(
                outcome=self._classes[probability >= 0.5], probability=probability,
                probabilities=(1 - probability, probability), confidence=confidence, text=text, logit=logit,
                unshifted_probability=before, probability_bin=probability_bin(probability),
                unshifted_bin=probability_bin(before), input_bins=field_bins,
            )
            for probability, before, logit, field_bins, text, confidence in zip(*columns, strict=True)
        ]  # fmt: skip

    def _unshifted(self, trace: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
        return trace[-1 if self._record.map.prior_shift is None else -2][1]

    def _confidences(
        self, z: np.ndarray, trace: Sequence[tuple[str, np.ndarray]], rows: Sequence[Row],
        bins: Sequence[tuple[int, ...]],
    ) -> list[Confidence]:  # fmt: skip
        record, p = self._record, trace[-1][1]
        p0, p1 = record.venn_abers.interval(z)
        if record.map.prior_shift is not None:
            p0, p1 = record.map.prior_shift.probabilities(p0), record.map.prior_shift.probabilities(p1)
        low, high = np.minimum(p0, p).tolist(), np.maximum(p1, p).tolist()
        members = record.conformal.sets(class_probabilities(self._unshifted(trace))).tolist()
        typicality = record.typicality.p_values(np.array(bins, np.int64).reshape(len(rows), -1)).tolist()
        steps = [(name, values.tolist()) for name, values in trace]
        return [
            Confidence(
                interval=(low[at], high[at]),
                prediction_set=(
                    labels := tuple(n for n, is_in in zip(self._classes, members[at], strict=True) if is_in)
                ),
                coverage=record.conformal.coverage,
                margin=abs(2 * probability - 1),
                entropy_bits=entropy_bits(probability),
                typicality=typicality[at],
                abstain=len(labels) != 1,
                uncalibrated_probability=steps[0][1][at],
                calibration=tuple(CalibrationStep(name, values[at]) for name, values in steps),
                warnings=self._reference.warnings(row),
            )
            for at, (probability, row) in enumerate(zip(p.tolist(), rows, strict=True))
        ]
