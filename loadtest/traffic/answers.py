"""Is an answer the right one? Judged from its status and body, and from the cards that were sent."""

import re
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from loadtest.traffic.corpus import Card

TOLERANCE = 1e-4
"""In probability: who shares a batch moves a row by 1e-5 at most, another model by far more."""

Verdict = Literal["ok", "refused", "late", "error", "wrong"]


class Judged(NamedTuple):
    """``refused``: a proper 429. ``late``: a proper 504, past what the client waits. ``error``: no answer, or a status
    that the request does not deserve. ``wrong``: an answer that is not the right one."""

    verdict: Verdict
    fault: str = ""
    ids: tuple[str, ...] = ()
    version: str = ""


class Model(Struct):
    version: str


class Confidence(Struct):
    interval: tuple[float, float]
    prediction_set: list[str]
    coverage: float
    margin: float
    typicality: float
    abstain: bool


class Prediction(Struct):
    id: str
    model: Model
    survived: bool
    probability: float
    confidence: Confidence


class Batch(Struct):
    predictions: list[Prediction]


class Problem(Struct):
    status: int
    title: str
    detail: str


class Outcomes(Struct):
    counted: int
    repeated: int
    unknown: list[str]
    conflicting: list[str]


_ONE = msgspec.json.Decoder(Prediction)
_BATCH = msgspec.json.Decoder(Batch)
_PROBLEM = msgspec.json.Decoder(Problem)
_OUTCOMES = msgspec.json.Decoder(Outcomes)
_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\Z")
_TIMING = re.compile(r"queue;dur=([0-9.]+), inference;dur=([0-9.]+)")


def judge(status: int, body: bytes, cards: Sequence[Card], retry_after: str | None, *, batch: bool) -> Judged:
    """An answer to a prediction: of one passenger, or of a batch."""
    if status == 429:
        return _judge_refusal(body, retry_after)
    if status == 504 and _problem(body) is not None:
        return Judged("late", "status 504")
    if status != 200:
        return Judged("error", f"status {status}")
    try:
        predictions = _BATCH.decode(body).predictions if batch else [_ONE.decode(body)]
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return Judged("wrong", f"not an answer: {error}")
    if len(predictions) != len(cards):
        return Judged("wrong", f"{len(predictions)} predictions for {len(cards)} passengers")
    ids = tuple(one.id for one in predictions)
    if len(set(ids)) != len(ids):
        return Judged("wrong", "an id twice in one answer")
    version = predictions[0].model.version
    for place, (one, card) in enumerate(zip(predictions, cards, strict=True)):
        found = fault(one, card, version)
        if found:
            return Judged("wrong", f"passenger {place} of {len(cards)}: {found}" if batch else found)
    return Judged("ok", "", ids, version)


def fault(one: Prediction, card: Card, version: str) -> str | None:
    """What is wrong with a prediction for this card, if anything; ``version`` is that of the whole answer."""
    p, confidence = one.probability, one.confidence
    low, high = confidence.interval
    if one.model.version != version:
        return f"one answer of versions {version} and {one.model.version}"
    if version not in card.expected:
        return f"version {version} is none that is served"
    if not abs(p - card.expected[version]) <= TOLERANCE:
        return f"probability {p}, but this passenger's is {card.expected[version]}"
    if not 0 <= low <= p <= high <= 1:
        return f"probability {p} outside its interval {low}–{high}"
    if one.survived != (p >= 0.5):
        return f"survived {one.survived} at probability {p}"
    if confidence.abstain != (len(confidence.prediction_set) != 1):
        return f"abstain {confidence.abstain} with the set {confidence.prediction_set}"
    if not (0 <= confidence.typicality <= 1 and abs(confidence.margin - abs(2 * p - 1)) < 1e-6):
        return f"typicality {confidence.typicality} or margin {confidence.margin} out of range"
    if not _UUID7.match(one.id):
        return f"id {one.id} is no UUIDv7"
    return None


def judge_invalid(status: int, body: bytes, expected: Collection[int]) -> Judged:
    """An answer to what must be refused: the status that it deserves, as a problem that says so too."""
    if status == 429:
        return Judged("refused")
    if status not in expected:
        kind: Verdict = "wrong" if status == 200 else "error"
        return Judged(kind, f"status {status} for a body that must get {' or '.join(map(str, expected))}")
    problem = _problem(body)
    if problem is None or problem.status != status or not problem.detail:
        return Judged("wrong", f"status {status} without its problem")
    return Judged("ok")


def judge_outcomes(status: int, body: bytes, sent: int) -> Judged:
    """An answer to outcomes of predictions that were answered: each is counted, once."""
    if status == 429:
        return Judged("refused")
    if status != 200:
        return Judged("error", f"status {status}")
    try:
        answer = _OUTCOMES.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        return Judged("wrong", f"not an answer: {error}")
    if answer.conflicting:
        return Judged("wrong", f"{len(answer.conflicting)} outcomes conflict with ones never sent")
    if answer.counted != sent:
        return Judged("wrong", f"{answer.counted} of {sent} outcomes counted, {len(answer.unknown)} unknown")
    return Judged("ok")


def judge_text(status: int, body: bytes, begins: bytes) -> Judged:
    """The page, or the series."""
    if status != 200:
        return Judged("error", f"status {status}")
    if not body.lstrip()[: len(begins)].lower().startswith(begins):
        return Judged("wrong", f"begins with {body[:30]!r}")
    return Judged("ok")


def server_timing(header: str | None) -> tuple[float, float] | None:
    """Milliseconds in the queue and in inference, of the header ``Server-Timing``."""
    found = _TIMING.match(header or "")
    return (float(found[1]), float(found[2])) if found else None


def _judge_refusal(body: bytes, retry_after: str | None) -> Judged:
    if _problem(body) is None:
        return Judged("wrong", "status 429 without its problem")
    if not (retry_after or "").isdigit():
        return Judged("wrong", f"status 429 with Retry-After {retry_after}")
    return Judged("refused")


def _problem(body: bytes) -> Problem | None:
    try:
        return _PROBLEM.decode(body)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
