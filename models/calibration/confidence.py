"""What one prediction says of itself, and the record of a bundle that it is worked out from."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated

import numpy as np
from msgspec import UNSET, Meta, Struct, UnsetType

from models.calibration.conformal import ConformalSets
from models.calibration.logit import step_probabilities
from models.calibration.maps import CalibrationMap, Candidate
from models.calibration.stack import Stack
from models.calibration.typicality import Typicality
from models.calibration.uncertainty import Uncertainty
from models.calibration.venn_abers import VennAbers
from models.reference import InputWarning

Share = Annotated[float, Meta(ge=0, le=1)]
"""A probability, or another number from 0 to 1."""


class CalibrationRecord(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What ``calibration.json`` holds. ``rows`` out-of-fold logits fitted all of it; ``map_rule`` chose the map.

    ``venn_abers`` is of the positive of two classes; of more there is one for each, against all others. With a
    ``stack`` all but it is of the stacked scores; None is the model alone. ``uncertainty`` is None where one seed alone
    was cross-fitted, and in bundles of before.
    """

    rows: int
    map: CalibrationMap
    candidates: tuple[Candidate, ...]
    venn_abers: VennAbers | tuple[VennAbers, ...]
    conformal: ConformalSets
    typicality: Typicality
    map_rule: str = "least"
    stack: Stack | None = None
    uncertainty: Uncertainty | None = None

    def trace(
        self, scores: np.ndarray, seconds: Mapping[str, np.ndarray] | None = None
    ) -> tuple[np.ndarray, list[tuple[str, np.ndarray]]]:
        """The model's `calibration_scores` and the second models' → the scores that the map is fitted to, and the
        probabilities after each step (`CalibrationMap.trace`), the raw ones first."""
        if self.stack is None:
            return scores, self.map.trace(scores)
        steps = self.stack.trace(scores, seconds or {})
        stacked = steps[-1][1]
        return stacked, step_probabilities([("model", scores), *steps, *self.map.scores(stacked)])


class StackedPart(Struct, frozen=True):
    """A model of the stack: its weight, and what it says by itself; of the bundle's model after the loss's inverse."""

    model: str
    weight: float
    probability: Share | UnsetType = UNSET
    probabilities: dict[str, Share] | UnsetType = UNSET


class CalibrationStep(Struct, frozen=True):
    """The probability of the positive of two classes, or those of more by name, after one step of the map.

    The step ``stack`` says which models it joined, the one of the bundle first.
    The step ``online`` names the ``offset`` and ``slope`` on the log-odds that it was, and how many ``outcomes`` these
    were learnt from.
    """

    step: str
    probability: Share | UnsetType = UNSET
    probabilities: dict[str, Share] | UnsetType = UNSET
    models: tuple[StackedPart, ...] | UnsetType = UNSET
    offset: float | UnsetType = UNSET
    slope: float | UnsetType = UNSET
    outcomes: Annotated[int, Meta(ge=0)] | UnsetType = UNSET


class Confidence(Struct, frozen=True, kw_only=True):
    """How far one prediction can be trusted.

    All guarantees assume that the row is exchangeable with the calibration rows; the assumption fails where the
    population has drifted. Of two classes there are ``interval``, ``venn_abers``, ``uncalibrated_probability`` and
    steps of one ``probability``, all of the positive class; of more, in their places, ``intervals``, ``venn_abers``,
    ``uncalibrated_probabilities`` and ``probabilities``, by class. What does not apply is `msgspec.UNSET`, and absent
    from the JSON.

    - ``interval``: what the model does not know is in it (`Uncertainty`). Of 90 % of rows like the training rows it
      holds η(x), the share of the class among all rows that are like this one, on average over them; the assumptions
      are there. Where the bundle has no uncertainty, as of a single seed, it is the smallest that holds ``venn_abers``
      and the served probability p, which says only what the map does not know.
    - ``venn_abers``: p0 and p1, one of which is calibrated (`VennAbers`).
    - After a prior shift the ends and p0, p1 are shifted as p is: exact for a calibrated probability that depends on
      the row alone, and for the pair as far as p0 and p1 agree.
    - ``intervals`` and, then by class too, ``venn_abers``: the same for each class against all others, each by itself
      (`venn_abers_interval`).
    - ``prediction_set``, ``coverage``: holds the true class of each class's rows with that probability
      (`ConformalSets`).
    - ``abstain``: the set is not a single class. Of each class at most a share 1 − coverage is answered wrongly.
    - ``margin`` the greatest probability less the second, of two classes |2p − 1|; ``entropy_bits`` −Σ p log₂ p:
      nothing beyond the probabilities.
    - ``typicality``: at most t for at most a share t of rows like the training rows (`Typicality`).
    """

    interval: tuple[Share, Share] | UnsetType = UNSET
    intervals: dict[str, tuple[Share, Share]] | UnsetType = UNSET
    venn_abers: tuple[Share, Share] | dict[str, tuple[Share, Share]] | UnsetType = UNSET
    prediction_set: tuple[str, ...]
    coverage: Share
    margin: Share
    entropy_bits: Annotated[float, Meta(ge=0)]
    typicality: Share
    abstain: bool
    uncalibrated_probability: Share | UnsetType = UNSET
    uncalibrated_probabilities: dict[str, Share] | UnsetType = UNSET
    calibration: tuple[CalibrationStep, ...]
    warnings: tuple[InputWarning, ...]

    @property
    def stacked(self) -> tuple[StackedPart, ...] | UnsetType:
        """The models of the stack, where there is one."""
        return next((step.models for step in self.calibration if step.models is not UNSET), UNSET)


def entropy_bits(probabilities: Sequence[float]) -> float:
    """−Σ p log₂ p, for probabilities in (0, 1)."""
    return -sum([p * math.log(p) for p in probabilities]) / math.log(2)
