"""Per-request diagnostics: interval, conformal prediction set, entropy, margin, typicality, warnings."""

import math
from functools import cached_property
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from models.calibration.maps import CalibrationMap, Candidate
from models.calibration.venn_abers import VennAbers
from models.passenger import INPUT_BINS
from models.reference import MAX_ROWS, InputWarning, bin_names

Share = Annotated[float, Meta(ge=0, le=1)]
"""A probability, or another number from 0 to 1."""

BLOCK = 1 << 24
"""Comparisons of bins made at once, a byte each."""


class ConformalSets(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Label-conditional conformal prediction sets (Vovk et al., 2005, section 4.5).

    A class belongs to the set when 1 − p_class is at most its threshold. If the rows that set the thresholds and the
    new row are exchangeable, a row of either class has its class in the set with probability ≥ ``coverage``. The
    thresholds here come from cross-fitted probabilities, for which theory promises only about 1 − 2(1 − coverage)
    (Barber et al., 2021, theorem 4); the evaluation reports what was found.

    The guarantee is within each class, so a shift of the classes' shares leaves it, as long as each class looks as it
    did; the scores are therefore the probabilities *before* a prior shift, whatever the shift.
    """

    coverage: float
    died: float
    survived: float

    def __post_init__(self) -> None:
        if not 0 < self.coverage < 1 or not (0 <= self.died <= 1 and 0 <= self.survived <= 1):
            raise ValueError("coverage must be inside (0, 1) and thresholds in [0, 1]")

    def sets(self, probabilities: np.ndarray) -> np.ndarray:
        """Probabilities of survival (B,) → membership (B, 2) bool of died, survived."""
        return np.stack([probabilities <= self.died, 1 - probabilities <= self.survived], axis=1)


class Typicality(Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """Full conformal p-value of a passenger's inputs (Vovk et al., 2005, section 2.2).

    The score of a row is Σ over fields of −ln(share of its bin) in the bag of training rows *and* the new one; the
    p-value is the share of the bag whose score is at least the new row's. While rows are exchangeable,
    P(typicality ≤ t) ≤ t: 0.01 is as odd as one training row in a hundred. ``patterns`` are the distinct rows of bin
    numbers in the order of `INPUT_BINS`, ``weights`` how often each occurs.
    """

    patterns: tuple[tuple[int, ...], ...]
    weights: tuple[int, ...]

    def __post_init__(self) -> None:
        sizes = [len(bin_names(bins)) for bins in INPUT_BINS]
        if not self.patterns or len(self.patterns) != len(self.weights):
            raise ValueError("patterns and weights must be of equal length, and at least one")
        if not 1 <= min(self.weights) <= max(self.weights) <= MAX_ROWS:
            raise ValueError(f"weights must be from 1 to {MAX_ROWS}")
        if any(len(row) != len(sizes) for row in self.patterns):
            raise ValueError(f"a pattern must hold {len(sizes)} bin numbers")
        if any(not 0 <= one < size for row in self.patterns for one, size in zip(row, sizes, strict=True)):
            raise ValueError("a bin number is outside its field's bins")

    @cached_property
    def _bag(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Patterns (k, F), weights (k,), counts (F, most bins), and Σ ln count per pattern (k,)."""
        patterns, weights = np.array(self.patterns), np.array(self.weights)
        counts = np.zeros((patterns.shape[1], max(len(bin_names(bins)) for bins in INPUT_BINS)))
        for field in range(patterns.shape[1]):
            np.add.at(counts[field], patterns[:, field], weights)
        log_counts = np.log(np.maximum(counts, 1))
        return patterns, weights, counts, log_counts[np.arange(patterns.shape[1]), patterns].sum(axis=1)

    def p_values(self, rows: np.ndarray) -> np.ndarray:
        """Bin numbers (B, F) → p-values (B,) in (0, 1]."""
        at_once = max(1, BLOCK // (len(self.patterns) * rows.shape[1]))
        blocks = [self._p_values(rows[first : first + at_once]) for first in range(0, len(rows), at_once)]
        return np.concatenate(blocks) if blocks else np.empty(0)

    def _p_values(self, rows: np.ndarray) -> np.ndarray:
        patterns, weights, counts, log_sums = self._bag
        own = counts[np.arange(rows.shape[1]), rows]
        # A new row adds one to the count of each of its bins, and so to every row of the bag that shares the bin.
        gain = np.log(own + 1) - np.log(np.maximum(own, 1))
        commonness = log_sums + np.einsum("bkf,bf->bk", patterns == rows[:, None], gain)
        mine = np.log(own + 1).sum(axis=1)
        at_most = (commonness <= mine[:, None] + 1e-9) @ weights
        return np.asarray((at_most + 1) / (weights.sum() + 1))


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
    """The probability of survival after one step of the calibration map."""

    step: str
    probability: Share


class Confidence(Struct, frozen=True, kw_only=True):
    """How far one prediction can be trusted.

    All guarantees assume that the passenger is exchangeable with the calibration rows; the assumption fails where the
    population has drifted.

    - ``interval``: the smallest that holds Venn–Abers' p0 and p1 and the served probability p. One of p0, p1 is
      calibrated (`VennAbers`). After a prior shift both ends are shifted as p is: exact for a calibrated probability
      that depends on the passenger alone, and for the pair as far as p0 and p1 agree.
    - ``prediction_set``, ``coverage``: holds the true class of either class's passengers with that probability
      (`ConformalSets`).
    - ``abstain``: the set is not a single class. Of either class at most a share 1 − coverage is answered wrongly.
    - ``margin`` |2p − 1|, ``entropy_bits`` the binary entropy of p: nothing beyond p.
    - ``typicality``: at most t for at most a share t of passengers like the training rows (`Typicality`).
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
