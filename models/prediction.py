"""Logits → predictions: probabilities, diagnostics, and what metrics, drift tests and the log need of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
from msgspec import UNSET, Struct

from models.bins.input_binner import InputBinner
from models.calibration.confidence import CalibrationRecord, CalibrationStep, Confidence, StackedPart, entropy_bits
from models.calibration.logit import calibration_scores, score_probabilities
from models.calibration.stack import STACK
from models.calibration.venn_abers import venn_abers_interval
from models.reference import InputWarning, PredictionBins, Reference, top_class
from models.rows import Row
from models.schema import Schema, parts_of
from models.second.model import SecondScorers

if TYPE_CHECKING:
    from models.bert.tokenizer import Tokenizer

Trace = Sequence[tuple[str, np.ndarray]]
Parts = tuple[str, float, list[Any]]
"""A model of the stack: its name, its weight, and its probabilities of each row, (B,) or (B, K) as lists."""
T = TypeVar("T")


class PredictionError(Exception):
    """The model gave a number that is not finite, so there is no probability to serve."""


class Prediction(Struct, frozen=True, kw_only=True):
    """One row's answer, with what was worked out on the way to it.

    ``outcome`` is the class with the greatest of the calibrated ``probabilities`` (K), the later one of equals; they
    are in the order of the classes and sum to 1. ``decision`` is the class that it costs least to take the row for
    (`Costs.decide`), None without costs. ``probability`` is that of the positive of two classes, None where
    there are more. ``logits`` (K) are the model's own, of the ``text`` that it read; ``unshifted_probabilities`` (K)
    the calibrated ones before a prior shift. ``probability_bin`` and ``unshifted_bin`` are the cells of the two
    (`PredictionBins`), ``input_bins`` the bin of each field in the schema's order. ``bundle_probability`` is what the
    bundle alone gave for ``probability``, where the service has recalibrated it, else None.
    """

    outcome: str
    probability: float | None
    probabilities: tuple[float, ...]
    confidence: Confidence
    text: str
    logits: tuple[float, ...]
    unshifted_probabilities: tuple[float, ...]
    probability_bin: int
    unshifted_bin: int
    input_bins: tuple[int, ...]
    decision: str | None = None
    bundle_probability: float | None = None

    @property
    def log_odds(self) -> float:
        """The model's own log-odds of the positive of two classes."""
        negative, positive = self.logits
        return positive - negative


class EncodedText(NamedTuple):
    """A row as the model reads it: its text, and the text's token ids."""

    text: str
    token_ids: list[int]


class Stage(NamedTuple):
    """A stage of predicting some rows, and when it began and ended by `time.perf_counter`."""

    name: str
    began: float
    ended: float


def timed(stages: list[Stage] | None, name: str, compute: Callable[..., T]) -> Callable[..., T]:
    """``compute``, whose calls are added to ``stages``, if those are asked for."""
    if stages is None:
        return compute

    def computed(*arguments: object) -> T:
        began = time.perf_counter()
        result = compute(*arguments)
        stages.append(Stage(name, began, time.perf_counter()))
        return result

    return computed


class CutField:
    """Row → the field that its text is cut for: the longest text, or else the last known field that the text says."""

    def __init__(self, schema: Schema):
        said = [name for template in schema.text for _, name in parts_of(template) if name in schema.by_name]
        self._said = said or [schema.fields[-1].name]
        self._texts = [name for name in said if schema.by_name[name].type == "text"]

    def __call__(self, row: Row) -> str:
        texts = [name for name in self._texts if getattr(row, name)]
        known = [name for name in self._said if getattr(row, name) is not None]
        return max(texts, key=lambda name: len(getattr(row, name)), default=(known or self._said)[-1])


def positive_logits(logits: np.ndarray) -> np.ndarray:
    """Logits (B, 2) → the log-odds (B,) of the positive class, which calibration works on."""
    return np.asarray(logits[:, 1] - logits[:, 0])


class Diagnosis:
    """Makes predictions of logits, by what a bundle holds."""

    def __init__(
        self, record: CalibrationRecord, reference: Reference, schema: Schema, tokenizer: "Tokenizer | None" = None,
        seconds: SecondScorers | None = None,
    ):  # fmt: skip
        self._seconds = seconds
        self._record, self._reference, self._tokenizer = record, reference, tokenizer
        self._cut_field = CutField(schema)
        self._sets_by = record.conformal.place(schema)
        self._classes, self._two, self._costs = schema.classes, len(schema.classes) == 2, schema.decision_costs
        self._cells, self._bins = PredictionBins(schema.classes), InputBinner(schema, tokenizer)

    def predictions(self, logits: np.ndarray, rows: Sequence[Row], texts: Sequence[str]) -> list[Prediction]:
        """Logits (B, K), the rows and the texts that they are of → a prediction each, in order."""
        if not len(rows):
            return []
        seconds = self.second_scores(rows)
        scores, trace = self._record.trace(calibration_scores(logits), seconds)
        probabilities = _by_row(trace[-1][1])
        unshifted = probabilities if self._record.map.prior_shift is None else _by_row(trace[-2][1])
        bins = self._bins.of(rows)
        members = self._sets(unshifted, bins)
        parts = self._parts(trace, seconds)
        warnings = self._warnings(rows, texts)
        confidences = self._confidences(scores, trace, parts, probabilities, members, bins, warnings)
        # For one row, as most requests are, a NumPy call costs more than the loop.
        columns = (probabilities, unshifted, logits.tolist(), bins, texts, confidences)
        return [
            Prediction(
                outcome=self._classes[top_class(mine)], probability=mine[1] if self._two else None,
                probabilities=mine, confidence=confidence, text=text, logits=tuple(own),
                unshifted_probabilities=before, probability_bin=self._cells.of_row(mine),
                unshifted_bin=self._cells.of_row(before), input_bins=field_bins, decision=self._decision(mine),
            )
            for mine, before, own, field_bins, text, confidence in zip(*columns, strict=True)
        ]  # fmt: skip

    def _sets(self, probabilities: Sequence[tuple[float, ...]], bins: Sequence[tuple[int, ...]]) -> list[list[bool]]:
        """Whether the prediction set of each row holds each class; ``bins`` say which group the row is of."""
        at = self._sets_by
        groups = None if at is None else [of_row[at] for of_row in bins]
        members: list[list[bool]] = self._record.conformal.sets(np.array(probabilities), groups).tolist()
        return members

    def _decision(self, probabilities: Sequence[float]) -> str | None:
        return None if self._costs is None else self._classes[self._costs.decide(probabilities)]

    def probabilities(self, logits: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
        """Calibrated probabilities alone, of logits (B, K) and their rows: (B,) of the positive of two classes, or
        (B, K)."""
        return self._record.trace(calibration_scores(logits), self.second_scores(rows))[1][-1][1]

    def second_scores(self, rows: Sequence[Row]) -> dict[str, np.ndarray]:
        """The scores of the stack's second models by name; none without a stack."""
        return {} if self._record.stack is None or self._seconds is None else self._seconds(rows)

    def _parts(self, trace: Trace, seconds: Mapping[str, np.ndarray]) -> list[Parts]:
        """Of a stack, each of its models: name, weight, probabilities in the shape of the trace's."""
        stack = self._record.stack
        if stack is None:
            return []
        names = [name for name, _ in trace]
        own = trace[names.index(STACK) - 1][1]
        others = [(name, weight, score_probabilities(seconds[name])) for name, weight in stack.others.items()]
        return [(name, weight, p.tolist()) for name, weight, p in (("model", stack.own, own), *others)]

    def _confidences(
        self, scores: np.ndarray, trace: Trace, parts: Sequence[Parts], probabilities: Sequence[tuple[float, ...]],
        members: Sequence[Sequence[bool]], bins: Sequence[tuple[int, ...]],
        warnings: Sequence[tuple[InputWarning, ...]],
    ) -> list[Confidence]:  # fmt: skip
        record = self._record
        typicality = record.typicality.p_values(np.array(bins, np.int64).reshape(len(bins), -1)).tolist()
        by_class = (self._of_two if self._two else self._of_many)(scores, trace, parts)
        return [
            Confidence(
                prediction_set=(
                    labels := tuple(n for n, is_in in zip(self._classes, members[at], strict=True) if is_in)
                ),
                coverage=record.conformal.coverage,
                margin=_margin(mine),
                entropy_bits=entropy_bits(mine),
                typicality=typicality[at],
                abstain=len(labels) != 1,
                warnings=warnings[at],
                **by_class[at],
            )
            for at, mine in enumerate(probabilities)
        ]

    def _warnings(self, rows: Sequence[Row], texts: Sequence[str]) -> list[tuple[InputWarning, ...]]:
        """What of each row lies outside the training rows, or is not read."""
        warnings = list(map(self._reference.warnings, rows))
        if self._tokenizer is not None:
            for at, tokens in self._tokenizer.tokens_of_cut(texts).items():
                message = f"the text has {tokens} tokens; the first {self._tokenizer.max_tokens} are read"
                warnings[at] = (*warnings[at], InputWarning(self._cut_field(rows[at]), message))
        return warnings

    def _of_two(self, scores: np.ndarray, trace: Trace, parts: Sequence[Parts]) -> list[dict[str, Any]]:
        """What is said of the positive class, for each row."""
        low, high, p0, p1 = self._ends(scores, trace)
        steps = [(name, values.tolist()) for name, values in trace]
        models = [tuple(StackedPart(name, weight, p[at]) for name, weight, p in parts) for at in range(len(scores))]
        return [
            {
                "interval": (low[at], high[at]),
                "venn_abers": (p0[at], p1[at]),
                "uncalibrated_probability": steps[0][1][at],
                "calibration": tuple(
                    CalibrationStep(name, values[at], models=models[at] if name == STACK else UNSET)
                    for name, values in steps
                ),
            }
            for at in range(len(scores))
        ]

    def _of_many(self, scores: np.ndarray, trace: Trace, parts: Sequence[Parts]) -> list[dict[str, Any]]:
        """What is said of each class by name, for each row."""
        classes = self._classes
        low, high, p0, p1 = self._ends(scores, trace)
        steps = [
            (name, [dict(zip(classes, mine, strict=True)) for mine in values.tolist()]) for name, values in trace
        ]  # fmt: skip
        models = [self._parts_by_class(parts, at) for at in range(len(scores))]
        return [
            {
                "intervals": dict(zip(classes, zip(low[at], high[at], strict=True), strict=True)),
                "venn_abers": dict(zip(classes, zip(p0[at], p1[at], strict=True), strict=True)),
                "uncalibrated_probabilities": steps[0][1][at],
                "calibration": tuple(
                    CalibrationStep(name, probabilities=values[at], models=models[at] if name == STACK else UNSET)
                    for name, values in steps
                ),
            }
            for at in range(len(scores))
        ]

    def _parts_by_class(self, parts: Sequence[Parts], at: int) -> tuple[StackedPart, ...]:
        return tuple(
            StackedPart(model, weight, probabilities=dict(zip(self._classes, p[at], strict=True)))
            for model, weight, p in parts
        )

    def _ends(self, scores: np.ndarray, trace: Trace) -> tuple[Any, ...]:
        """The ends of the intervals and Venn–Abers' pairs, as lists in the shape of the scores: low, high, p0, p1."""
        record, shift, p = self._record, self._record.map.prior_shift, trace[-1][1]
        pair = venn_abers_interval(record.venn_abers, scores)
        if record.uncertainty is not None:
            low, high = record.uncertainty.interval(p if shift is None else trace[-2][1], *pair)
        else:
            low, high = pair
        ends = [low, high, *pair] if shift is None else [shift.probabilities(end) for end in (low, high, *pair)]
        return tuple(end.tolist() for end in (np.minimum(ends[0], p), np.maximum(ends[1], p), *ends[2:]))


def _by_row(p: np.ndarray) -> list[tuple[float, ...]]:
    """Probabilities (B,) of the positive of two classes, or (B, K) → those (K) of each row."""
    return [(1 - one, one) for one in p.tolist()] if p.ndim == 1 else [tuple(row) for row in p.tolist()]


def _margin(probabilities: Sequence[float]) -> float:
    """The greatest probability less the second."""
    *_, second, first = sorted(probabilities)
    return first - second
