"""What is on the wire."""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from models.bundle.manifest import Manifest
from models.calibration.confidence import Confidence, Share
from models.schema import Schema

MAX_BATCH = 1024


class ModelIdentity(Struct, frozen=True):
    """The bundle that answered: its name, and the first 12 hex digits of its manifest's sha256."""

    name: str
    version: str


class PredictionResponse(Struct, frozen=True, kw_only=True):
    """``id`` is a UUIDv7 of this answer; ``outcome`` is the class with the greatest of the ``probabilities``.

    ``probability`` is that of the positive class, the last one; at ½ it is the outcome. It is there with two classes
    only. ``decision`` is there where the costs of mistakes are given: the class that the row can be taken for at the
    least expected cost, of equal ones the likelier.
    """

    id: Annotated[str, Meta(extra_json_schema={"format": "uuid"})]
    model: ModelIdentity
    outcome: str
    decision: str | UnsetType = UNSET
    probability: Share | UnsetType = UNSET
    probabilities: dict[str, Share]
    confidence: Confidence


class BatchResponse(Struct, frozen=True):
    """A prediction for each row, in their order."""

    predictions: list[PredictionResponse]


class OutcomesResponse(Struct, frozen=True, kw_only=True):
    """How many outcomes are new and durable, how many were known, and the ids of those that were not taken.

    ``unknown``: no such prediction is in the store. ``conflicting``: another outcome was known, and stays.
    """

    counted: Annotated[int, Meta(ge=0)]
    repeated: Annotated[int, Meta(ge=0)]
    unknown: list[str]
    conflicting: list[str]


class ModelDescription(Struct, frozen=True, kw_only=True):
    """What is served: the bundle's manifest and evaluation, the description of its table, and what computes it."""

    name: str
    version: str
    schema: Schema
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
