"""Venn–Abers prediction: two isotonic fits that hold a calibrated probability between them."""

from functools import cached_property
from typing import Self

import numpy as np
from msgspec import Struct

from models.calibration.logit import MAX_VALUE, one_vs_rest


class VennAbers(Struct, frozen=True, dict=True, forbid_unknown_fields=True):
    """Inductive Venn–Abers predictor (Vovk & Petej, 2014) with both isotonic fits computed beforehand.

    ``scores`` (k,) are the distinct calibration logits, rising. ``p0`` and ``p1`` (2k + 1,) hold the probability when
    the new row is labelled 0 or 1: entry 2i + 1 for a row that ties scores[i], entry 2i for one just below it.

    Guarantee: with y the new row's label, P(y = 1 | p_y) = p_y, for any score function and any
    number of rows, so one of the two is calibrated: which one depends on the label that is not known yet.
    Assumption: calibration rows and the new row are exchangeable, and the score was not fitted on the former.
    """

    scores: tuple[float, ...]
    p0: tuple[float, ...]
    p1: tuple[float, ...]

    def __post_init__(self) -> None:
        scores = np.array(self.scores)
        if not len(scores) or not (abs(scores) <= MAX_VALUE).all() or (np.diff(scores) <= 0).any():
            raise ValueError(f"scores must be within ±{MAX_VALUE:g} and rising, and at least one")
        for name, values in (("p0", np.array(self.p0)), ("p1", np.array(self.p1))):
            if len(values) != 2 * len(scores) + 1 or not ((values >= 0) & (values <= 1)).all():
                raise ValueError(f"{name} must hold {2 * len(scores) + 1} probabilities")
            if (np.diff(values) < 0).any():
                raise ValueError(f"{name} must not fall")
        # But for the rounding of two fits.
        if (np.array(self.p0) > np.array(self.p1) + 1e-9).any():
            raise ValueError("p0 must be at most p1")

    def interval(self, logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """logits (B,) → p0 (B,), p1 (B,), p0 ≤ p1."""
        scores, p0, p1 = self._arrays
        entry = np.searchsorted(scores, logits, "left") + np.searchsorted(scores, logits, "right")
        return p0[entry], p1[entry]

    @cached_property
    def _arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return np.array(self.scores), np.array(self.p0), np.array(self.p1)

    def condensed(self) -> Self:
        """The same function by the scores at which it changes, of many rows a small part of all."""
        pairs = np.stack([self.p0, self.p1])
        below, at, above = pairs[:, :-1:2], pairs[:, 1::2], pairs[:, 2::2]
        kept = ((below != at) | (at != above)).any(axis=0)
        kept[0] |= not kept.any()
        entries = np.append(np.repeat(kept, 2), True)
        scores, p0, p1 = (np.array(self.scores)[kept], *pairs[:, entries])
        return type(self)(tuple(scores.tolist()), tuple(p0.tolist()), tuple(p1.tolist()))

    @classmethod
    def checked(cls, scores: np.ndarray, p0: np.ndarray, p1: np.ndarray) -> Self:
        """From arrays; rounding of the isotonic fits is taken out of their order."""
        return cls(
            tuple(scores.tolist()),
            tuple(np.clip(np.maximum.accumulate(p0), 0, 1).tolist()),
            tuple(np.clip(np.maximum.accumulate(p1), 0, 1).tolist()),
        )


def rounded_log_odds(scores: np.ndarray) -> np.ndarray:
    """Scores (B, K) → the log-odds (B, K) of each class against all others, to a tenth.

    Any score has Venn–Abers' guarantee, and this one keeps what a bundle holds of many classes and rows small: a tenth
    is at most .025 of probability, less than a few thousand rows can tell apart.
    """
    return np.round(one_vs_rest(scores), 1)


def venn_abers_interval(
    predictors: VennAbers | tuple[VennAbers, ...], scores: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`calibration_scores` → p0, p1 of the same shape: (B,) of the positive of two classes, (B, K) of each of more.

    Of more than two, the pair of class k is that of the two-class predictor for "k or another one", whose score is the
    model's own log-odds of k against all others (`rounded_log_odds`). Guarantee, for each class by itself: with y = 1
    for a row of k and 0 for any other, P(y = 1 | p_y) = p_y. Nothing is said of several classes at once, and neither
    the p0 nor the p1 of all classes sum to 1.
    """
    if isinstance(predictors, VennAbers):
        return predictors.interval(scores)
    pairs = [each.interval(z) for each, z in zip(predictors, rounded_log_odds(scores).T, strict=True)]
    p0, p1 = np.array(pairs).swapaxes(0, 1)
    return p0.T, p1.T


class MergedVennAbers(Struct, frozen=True, tag_field="step", tag="venn_abers", forbid_unknown_fields=True):
    """The one probability p1 / (1 − p0 + p1) of a Venn–Abers pair (Vovk, Petej & Fedorova, 2015), as a logit.

    It minimises the worst regret in log loss against whichever of p0, p1 will have been right. It never falls in z,
    is constant between calibration scores that pool, and is inside (0, 1) because p1 > 0 and p0 < 1.

    With a ``weight`` in (0, 1), z moves that share of the way to this logit: an average, in log-odds, of a map that
    knows the curve's form (the steps before) and one that knows nothing of it, which keeps the order of all z.
    """

    predictor: VennAbers
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.weight <= 1:
            raise ValueError(f"weight is {self.weight}; it must be above 0 and at most 1")
        if self.predictor.p1[0] <= 0 or self.predictor.p0[-1] >= 1:
            raise ValueError("p1 must stay above 0 and p0 below 1")

    def __call__(self, logits: np.ndarray) -> np.ndarray:
        p0, p1 = self.predictor.interval(logits)
        merged = np.log(p1) - np.log1p(-p0)
        return np.asarray(merged if self.weight == 1 else logits + self.weight * (merged - logits))
