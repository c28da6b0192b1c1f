"""Is an answer the right one? Checked by its status and body, against the cases that were sent."""

import re
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import msgspec
from msgspec import UNSET, Struct, UnsetType

from loadtest.traffic.corpus import Case

TOLERANCE = 1e-4
"""In probability: who shares a batch moves a row by 1e-5 at most, another model by far more."""

Result = Literal["ok", "refused", "late", "error", "wrong"]


class Check(NamedTuple):
    """``refused``: a proper 429. ``late``: a proper 504, past what the client waits. ``error``: no answer, or a status
    that the request does not deserve. ``wrong``: an answer that is not the right one."""

    result: Result
    fault: str = ""
    ids: tuple[str, ...] = ()
    version: str = ""


class ModelBody(Struct):
    version: str


class ConfidenceBody(Struct, kw_only=True):
    interval: tuple[float, float] | UnsetType = UNSET
    intervals: dict[str, tuple[float, float]] | UnsetType = UNSET
    prediction_set: list[str]
    coverage: float
    margin: float
    typicality: float
    abstain: bool


class PredictionBody(Struct, kw_only=True):
    id: str
    model: ModelBody
    outcome: str
    probability: float | UnsetType = UNSET
    probabilities: dict[str, float]
    confidence: ConfidenceBody


class BatchBody(Struct):
    predictions: list[PredictionBody]


class ProblemBody(Struct):
    status: int
    title: str
    detail: str


class OutcomesBody(Struct):
    counted: int
    repeated: int
    unknown: list[str]
    conflicting: list[str]


_PREDICTION = msgspec.json.Decoder(PredictionBody)
_BATCH = msgspec.json.Decoder(BatchBody)
_PROBLEM = msgspec.json.Decoder(ProblemBody)
_OUTCOMES = msgspec.json.Decoder(OutcomesBody)
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
_TIMING = re.compile(r"queue;dur=([0-9.]+), inference;dur=([0-9.]+)")


def check_response(status: int, body: bytes, cases: Sequence[Case], retry_after: str | None, *, batch: bool) -> Check:
    """An answer to a prediction: of one row, or of a batch."""
    if status == 429:
        return _check_overload(body, retry_after)
    if status == 504 and _problem(body) is not None:
        return Check("late", "status 504")
    if status != 200:
        return Check("error", f"status {status}")
    try:
        predictions = _BATCH.decode(body).predictions if batch else [_PREDICTION.decode(body)]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return Check("wrong", f"not an answer: {error}")
    if len(predictions) != len(cases):
        return Check("wrong", f"{len(predictions)} predictions for {len(cases)} rows")
    ids = tuple(prediction.id for prediction in predictions)
    if len(set(ids)) != len(ids):
        return Check("wrong", "an id twice in one answer")
    version = predictions[0].model.version
    for place, (prediction, case) in enumerate(zip(predictions, cases, strict=True)):
        fault = prediction_fault(prediction, case, version)
        if fault:
            return Check("wrong", f"row {place} of {len(cases)}: {fault}" if batch else fault)
    return Check("ok", "", ids, version)


def prediction_fault(prediction: PredictionBody, case: Case, version: str) -> str | None:
    """What is wrong with a prediction for this case, if anything; ``version`` is that of the whole answer."""
    if prediction.model.version != version:
        return f"one answer of versions {version} and {prediction.model.version}"
    if version not in case.expected:
        return f"version {version} is none that is served"
    if not _UUID7.match(prediction.id):
        return f"id {prediction.id} is no UUIDv7"
    return _probability_fault(prediction, case.expected[version]) or _confidence_fault(prediction)


def _probability_fault(prediction: PredictionBody, expected: Sequence[float]) -> str | None:
    classes, p = tuple(prediction.probabilities), tuple(prediction.probabilities.values())
    if len(p) != len(expected) or not all(abs(q - e) <= TOLERANCE for q, e in zip(p, expected, strict=True)):
        return f"probabilities {prediction.probabilities}, but this row's are {expected}"
    if prediction.probability != (p[-1] if len(p) == 2 else UNSET):
        return f"probability {prediction.probability} beside {prediction.probabilities}"
    if abs(sum(p) - 1) > 1e-9:
        return f"probabilities {prediction.probabilities} do not add up to 1"
    # The later one of equals.
    if prediction.outcome != max(zip(p, range(len(p)), classes, strict=True))[2]:
        return f"outcome {prediction.outcome} of the probabilities {prediction.probabilities}"
    return None


def _confidence_fault(prediction: PredictionBody) -> str | None:
    confidence, probabilities = prediction.confidence, prediction.probabilities
    last = tuple(probabilities)[-1]
    intervals = confidence.intervals if confidence.interval is UNSET else {last: confidence.interval}
    if intervals is UNSET or tuple(intervals) != (tuple(probabilities) if len(probabilities) > 2 else (last,)):
        return f"intervals {intervals} of the classes {tuple(probabilities)}"
    for name, (low, high) in intervals.items():
        if not 0 <= low <= probabilities[name] <= high <= 1:
            return f"probability {probabilities[name]} outside its interval {low}–{high}"
    if not set(confidence.prediction_set) <= set(probabilities):
        return f"a set {confidence.prediction_set} of the classes {tuple(probabilities)}"
    if confidence.abstain != (len(confidence.prediction_set) != 1):
        return f"abstain {confidence.abstain} with the set {confidence.prediction_set}"
    second, first = sorted(probabilities.values())[-2:]
    if not (0 <= confidence.typicality <= 1 and abs(confidence.margin - (first - second)) < 1e-6):
        return f"typicality {confidence.typicality} or margin {confidence.margin} out of range"
    return None


def check_refused(status: int, body: bytes, expected: Collection[int]) -> Check:
    """An answer to what must be refused: the status that it deserves, as a problem that says so too."""
    if status == 429:
        return Check("refused")
    if status not in expected:
        kind: Result = "wrong" if status == 200 else "error"
        return Check(kind, f"status {status} for a body that must get {' or '.join(map(str, expected))}")
    problem = _problem(body)
    if problem is None or problem.status != status or not problem.detail:
        return Check("wrong", f"status {status} without its problem")
    return Check("ok")


def check_outcomes(status: int, body: bytes, sent: int) -> Check:
    """An answer to outcomes of predictions that were answered: each is counted, once."""
    if status == 429:
        return Check("refused")
    if status != 200:
        return Check("error", f"status {status}")
    try:
        answer = _OUTCOMES.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return Check("wrong", f"not an answer: {error}")
    if answer.conflicting:
        return Check("wrong", f"{len(answer.conflicting)} outcomes conflict with ones never sent")
    if answer.counted != sent:
        return Check("wrong", f"{answer.counted} of {sent} outcomes counted, {len(answer.unknown)} unknown")
    return Check("ok")


def check_text(status: int, body: bytes, begins: bytes) -> Check:
    """The page, or the series."""
    if status != 200:
        return Check("error", f"status {status}")
    if not body.lstrip()[: len(begins)].lower().startswith(begins):
        return Check("wrong", f"begins with {body[:30]!r}")
    return Check("ok")


def server_timing(header: str | None) -> tuple[float, float] | None:
    """Milliseconds in the queue and in inference, of the header ``Server-Timing``."""
    found = _TIMING.match(header or "")
    return (float(found[1]), float(found[2])) if found else None


def _check_overload(body: bytes, retry_after: str | None) -> Check:
    if _problem(body) is None:
        return Check("wrong", "status 429 without its problem")
    if not (retry_after or "").isdigit():
        return Check("wrong", f"status 429 with Retry-After {retry_after}")
    return Check("refused")


def _problem(body: bytes) -> ProblemBody | None:
    try:
        return _PROBLEM.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
