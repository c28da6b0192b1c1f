"""What is on the wire."""

import os
import time
import uuid
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from models.bundle.manifest import Manifest
from models.calibration.confidence import Confidence, Share
from models.passenger import Passenger

MAX_BATCH = 1024


class BatchRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """Passengers to predict."""

    passengers: Annotated[list[Passenger], Meta(min_length=1, max_length=MAX_BATCH)]


class ModelIdentity(Struct, frozen=True):
    """The bundle that answered: its name, and the first 12 hex digits of its manifest's sha256."""

    name: str
    version: str


class PredictionResponse(Struct, frozen=True, kw_only=True):
    """``id`` is a UUIDv7 of this answer; ``survived`` is probability ≥ ½."""

    id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    model: ModelIdentity
    survived: bool
    probability: Share
    confidence: Confidence


class BatchResponse(Struct, frozen=True):
    """A prediction per passenger, in their order."""

    predictions: list[PredictionResponse]


class Outcome(Struct, frozen=True, forbid_unknown_fields=True):
    """``id`` is that of the prediction's answer."""

    id: Annotated[str, Meta(min_length=1, max_length=64)]
    survived: bool


class OutcomesRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What became of passengers that were predicted."""

    outcomes: Annotated[list[Outcome], Meta(min_length=1, max_length=MAX_BATCH)]


class OutcomesResponse(Struct, frozen=True, kw_only=True):
    """How many outcomes are new and durable, how many were known, and the ids of those that were not taken.

    ``unknown``: no such prediction is in the store. ``conflicting``: the opposite outcome was known, and stays.
    """

    counted: Annotated[int, Meta(ge=0)]
    repeated: Annotated[int, Meta(ge=0)]
    unknown: list[str]
    conflicting: list[str]


class ModelDescription(Struct, frozen=True, kw_only=True):
    """What is served: the bundle's manifest and evaluation, and what computes it."""

    name: str
    version: str
    backend: dict[str, Any]
    manifest: Manifest
    evaluation: dict[str, Any]


class Acknowledgement(Struct, frozen=True, forbid_unknown_fields=True):
    """Which alarm to end. ``begin``: the test begins again against the reference, or against the recent rows, which
    are then taken as normal."""

    stream: Literal["prediction", "input", "calibration", "all"] = "all"
    begin: Literal["reference", "recent"] = "reference"


class Health(Struct, frozen=True):
    """A word, and in ``detail`` the reason where there is one."""

    status: Literal["live", "lost", "ready", "not ready"]
    detail: str = ""


def uuid7() -> str:
    """A UUIDv7 (RFC 9562, section 5.7): 48 bits of Unix milliseconds, then random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))
