"""What one prediction says of itself, and the record of a bundle that it is worked out from."""

import math
from typing import Annotated

from msgspec import Meta, Struct

from models.calibration.conformal import ConformalSets
from models.calibration.maps import CalibrationMap, Candidate
from models.calibration.typicality import Typicality
from models.calibration.venn_abers import VennAbers
from models.reference import InputWarning

Share = Annotated[float, Meta(ge=0, le=1)]
"""A probability, or another number from 0 to 1."""


class CalibrationRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``calibration.json`` holds. ``rows`` out-of-fold logits fitted all of it; ``map_rule`` chose the map."""

    rows: int
    map: CalibrationMap
    candidates: tuple[Candidate, ...]
    venn_abers: VennAbers
    conformal: ConformalSets
    typicality: Typicality
    map_rule: str = "least"


class CalibrationStep(Struct, frozen=True):
    """The probability of the positive class after one step of the calibration map."""

    step: str
    probability: Share


class Confidence(Struct, frozen=True, kw_only=True):
    """How far one prediction can be trusted.

    All guarantees assume that the row is exchangeable with the calibration rows; the assumption fails where the
    population has drifted.

    - ``interval``: the smallest that holds Venn–Abers' p0 and p1 and the served probability p. One of p0, p1 is
      calibrated (`VennAbers`). After a prior shift both ends are shifted as p is: exact for a calibrated probability
      that depends on the row alone, and for the pair as far as p0 and p1 agree.
    - ``prediction_set``, ``coverage``: holds the true class of each class's rows with that probability
      (`ConformalSets`).
    - ``abstain``: the set is not a single class. Of each class at most a share 1 − coverage is answered wrongly.
    - ``margin`` |2p − 1|, ``entropy_bits`` the binary entropy of p: nothing beyond p.
    - ``typicality``: at most t for at most a share t of rows like the training rows (`Typicality`).
    """

    interval: tuple[Share, Share]
    prediction_set: tuple[str, ...]
    coverage: Share
    margin: Share
    entropy_bits: Annotated[float, Meta(ge=0)]
    typicality: Share
    abstain: bool
    uncalibrated_probability: Share
    calibration: tuple[CalibrationStep, ...]
    warnings: tuple[InputWarning, ...]


def entropy_bits(p: float) -> float:
    """−p log₂ p − (1−p) log₂(1−p), for p in (0, 1)."""
    return -(p * math.log(p) + (1 - p) * math.log1p(-p)) / math.log(2)
