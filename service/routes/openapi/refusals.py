"""The errors that a route may answer with: status, reason and example, for the OpenAPI document."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example

from service.http.body.request_body import TIMEOUT_HEADER
from service.http.errors import (
    PROBLEM,
    BadHeader,
    BodyTooLarge,
    BodyTooSlow,
    InvalidBody,
    LengthRequired,
    MalformedBody,
    NotAcceptable,
    Problem,
    Refused,
    UnknownCoding,
    WrongMediaType,
    service_problem,
)
from service.http.negotiation import JSON, MESSAGEPACK
from service.inference.errors import DeadlinePassed, NotReady, PredictionFailed, QueueFull


def refusals(
    *reasons: tuple[str, Refused], beside: Mapping[int, ResponseSpec] | None = None
) -> dict[int, ResponseSpec]:
    """Responses by status from when they are given and an error that leads there, which is the example.

    They go with those ``beside`` them, also of the same status. InvalidBody has no example of its own: each route's is
    that of its body.
    """
    specs = {status: replace(spec, examples=[*(spec.examples or ())]) for status, spec in (beside or {}).items()}
    for reason, error in reasons:
        problem = problem_of(error)
        spec = specs.setdefault(
            problem["status"], ResponseSpec(Problem, description="", media_type=PROBLEM, examples=[])
        )
        spec.description = f"{spec.description}; or {reason}" if spec.description else reason
        if not isinstance(error, InvalidBody) and spec.examples is not None:
            spec.examples.append(Example(id=_snake_case(type(error).__name__), summary=reason, value=problem))
    return dict(sorted(specs.items()))


def problem_of(error: Refused) -> dict[str, Any]:
    """The body of the response to an error, as the service makes it."""
    request: Any = None  # It has no part in it.
    problem: dict[str, Any] = msgspec.json.decode(service_problem(request, error).content)
    return problem


def _snake_case(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


TIMEOUT_REFUSAL = (
    f"{TIMEOUT_HEADER} is not a number of milliseconds",
    BadHeader(f"{TIMEOUT_HEADER} is soon; it must be a whole number of milliseconds from 1"),
)
NOT_LOADED = ("not loaded yet", NotReady("the model is being loaded"))
TRANSFER_REFUSALS = (
    ("the body did not come within read_seconds", BodyTooSlow(4096)),
    ("neither Content-Length nor Transfer-Encoding", LengthRequired()),
    ("body larger than max_body_bytes", BodyTooLarge(1 << 20)),
)
CODING_REFUSAL = (
    "compressed by something else than gzip or zstd",
    UnknownCoding("Content-Encoding is br; it must be gzip, zstd or absent"),
)
INFERENCE_REFUSALS = (
    ("the model gave no finite number", PredictionFailed("the model gave no valid answer for this request")),
    ("not answered within the client's or the service's limit", DeadlinePassed("no answer within 30 seconds")),
)
QUEUE_REFUSAL = ("more requests wait than can be answered in time", QueueFull(1))

NOT_ACCEPTABLE = refusals(
    (
        "Accept takes neither JSON nor MessagePack",
        NotAcceptable(f"Accept is text/html; this can be had as {JSON} or {MESSAGEPACK}"),
    ),
)
READ_REFUSALS = refusals(NOT_LOADED, beside=NOT_ACCEPTABLE)
"""Of every route that reads nothing, and answers about the model."""

BODY_REFUSALS = refusals(
    ("not JSON or MessagePack, or a key stands twice", MalformedBody("the body is not JSON: Input data was truncated")),
    *TRANSFER_REFUSALS,
    (
        "Content-Type is neither JSON nor MessagePack",
        WrongMediaType(f"Content-Type is text/plain; it must be {JSON} (UTF-8) or {MESSAGEPACK}"),
    ),
    CODING_REFUSAL,
    ("a value of a wrong type or out of range, an unknown or a missing field", InvalidBody([])),
    beside=NOT_ACCEPTABLE,
)
"""Of every route that reads a body."""

PREDICTION_REFUSALS = refusals(TIMEOUT_REFUSAL, QUEUE_REFUSAL, NOT_LOADED, *INFERENCE_REFUSALS, beside=BODY_REFUSALS)
"""Of every route that predicts."""
