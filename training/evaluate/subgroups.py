"""How good the probabilities are for each sex, class, age band and party, with counts and spread."""

from collections.abc import Sequence

import numpy as np
from msgspec import Struct
from scipy.stats import norm

from models.features.titanic import NO_COMPANIONS, Companions
from models.passenger import Passenger
from models.text import CLASSES
from training.calibrate.maps import log_losses
from training.evaluate.calibration_errors import murphy
from training.evaluate.estimates import Estimate, mean, proportion, reflected
from training.evaluate.scores import (
    POSITIVE,
    CalibrationError,
    against_noise,
    draws_if_calibrated,
    resampled,
    spiegelhalter,
)

SUBGROUPS = {
    "sex": ("female", "male"),
    "class": tuple(CLASSES.values()),
    "age": ("under 13", "13 to 24", "25 to 34", "35 to 49", "50 and over", "age unknown"),
    "party": ("companions known", "companions unknown"),
}
"""Attribute → its groups; each is evaluated apart."""


class GroupScores(Struct, frozen=True, kw_only=True):
    """Probabilities of one subgroup's rows.

    ``expected`` is the mean probability. ``excess`` is the observed rate less it, ``excess_p`` its two-sided p-value by
    the normal limit of Σ(y − p) / √Σp(1 − p); ``spiegelhalter_p`` as in `Scores`. With many subgroups, a
    p-value below .05 is to be expected when nothing is wrong: compare with .05 over the number of tests (Bonferroni).
    """

    expected: float
    excess: Estimate
    excess_p: float
    log_loss: Estimate
    brier: Estimate
    calibration_error: CalibrationError
    spiegelhalter_p: float


class Subgroup(Struct, frozen=True, kw_only=True):
    """One group of one attribute: its rows, the share of survivors among them, and both kinds of probabilities."""

    attribute: str
    group: str
    rows: int
    observed: Estimate
    calibrated: GroupScores
    raw: GroupScores


Members = dict[tuple[str, str], np.ndarray]
"""(attribute, group) → row numbers."""


def subgroups(passenger: Passenger, companions: Companions = NO_COMPANIONS) -> dict[str, str]:
    """Attribute of `SUBGROUPS` → the group that the passenger is in."""
    bands = SUBGROUPS["age"]
    age = bands[-1] if passenger.age is None else bands[sum(passenger.age >= edge for edge in (13, 25, 35, 50))]
    party = SUBGROUPS["party"][not companions.party(passenger)]
    return {"sex": passenger.sex, "class": CLASSES[passenger.pclass], "age": age, "party": party}


def members(passengers: Sequence[Passenger], companions: Sequence[Companions]) -> Members:
    """Row numbers in the order of `SUBGROUPS`; ``companions`` are those known for each. Empty groups are left out."""
    groups_by_row = [subgroups(passenger, known) for passenger, known in zip(passengers, companions, strict=True)]
    rows = {
        (attribute, group): np.array(
            [i for i, groups_of in enumerate(groups_by_row) if groups_of[attribute] == group], np.int64
        )
        for attribute, groups in SUBGROUPS.items()
        for group in groups
    }
    return {key: value for key, value in rows.items() if len(value)}


def score_subgroups(
    groups: Members, labels: np.ndarray, calibrated: np.ndarray, raw: np.ndarray, rng: np.random.Generator
) -> tuple[Subgroup, ...]:
    """Scores of probabilities (n,) in (0, 1) against labels (n,), for each of the groups."""
    return tuple(
        Subgroup(
            attribute=attribute, group=group, rows=len(rows), observed=proportion(labels[rows] == 1),
            calibrated=_score(calibrated[rows], labels[rows], rng), raw=_score(raw[rows], labels[rows], rng),
        )
        for (attribute, group), rows in groups.items()
    )  # fmt: skip


def _score(probabilities: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> GroupScores:
    order = np.argsort(probabilities, kind="stable")
    p, y = probabilities[order], labels[order].astype(float)
    observed = float(murphy(p, y[None], np.ones((1, len(p))))["ece"][0])
    error = reflected(observed, resampled(murphy, p, y, rng)["ece"], bounds=POSITIVE)
    z = float((y - p).sum() / np.sqrt((p * (1 - p)).sum()))
    return GroupScores(
        expected=float(p.mean()), excess=mean(y - p), excess_p=float(2 * norm.sf(abs(z))),
        log_loss=mean(log_losses(p, y)), brier=mean((p - y) ** 2),
        calibration_error=against_noise(error, draws_if_calibrated(murphy, p, rng)["ece"]),
        spiegelhalter_p=spiegelhalter(p, y)[1],
    )  # fmt: skip
